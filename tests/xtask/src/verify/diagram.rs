//! The crate diagram of docs/ARCHITECTURE.md against what cargo says.

use std::collections::{BTreeMap, BTreeSet};

use super::metadata::{Kind, Package};

/// Crates that the diagram leaves out: they only build and start the others.
const NOT_DRAWN: [&str; 2] = ["xtask", "rackferry-guest"];

/// Every difference between the diagram in a page and the crates, one a line.
pub fn differences(page: &str, packages: &BTreeMap<String, Package>) -> Vec<String> {
    let Some(drawn) = Drawn::read(page) else {
        return vec!["docs/ARCHITECTURE.md has no diagram of crates".to_owned()];
    };
    let mut found = Vec::new();
    let named: BTreeSet<&str> = packages.keys().map(String::as_str).collect();
    let expected: BTreeSet<&str> =
        named.iter().copied().filter(|name| !NOT_DRAWN.contains(name)).collect();
    let nodes: BTreeSet<&str> = drawn.nodes.values().copied().collect();
    found.extend(expected.difference(&nodes).map(|name| format!("{name} is not drawn")));
    found.extend(nodes.difference(&expected).map(|name| format!("{name} is drawn and no crate")));
    for line in &drawn.unknown {
        found.push(format!("the diagram names what it does not define: {line}"));
    }
    let needed: BTreeSet<(&str, &str)> = packages
        .iter()
        .flat_map(|(name, package)| {
            let normal = package.dependencies.iter().filter(|(_, kind)| *kind == Kind::Normal);
            normal.map(move |(dependency, _)| (name.as_str(), dependency.as_str()))
        })
        .filter(|(from, to)| nodes.contains(from) && nodes.contains(to))
        .collect();
    let arrow = |(from, to): &(&str, &str)| format!("{from} --> {to}");
    found.extend(needed.difference(&drawn.edges).map(|edge| arrow(edge) + " is not drawn"));
    found.extend(drawn.edges.difference(&needed).map(|edge| arrow(edge) + " is drawn only"));
    found
}

/// The diagram as it is drawn; dotted arrows are no dependencies.
#[derive(Debug, Default)]
struct Drawn<'a> {
    nodes: BTreeMap<&'a str, &'a str>,
    edges: BTreeSet<(&'a str, &'a str)>,
    unknown: Vec<&'a str>,
}

impl<'a> Drawn<'a> {
    fn read(page: &'a str) -> Option<Self> {
        let (_, section) = page.split_once("## Crates")?;
        let (_, diagram) = section.split_once("```mermaid")?;
        let (diagram, _) = diagram.split_once("```")?;
        let mut drawn = Self::default();
        let lines = || diagram.lines().map(str::trim);
        for line in lines() {
            if let Some((id, label)) = line.strip_suffix(']').and_then(|line| line.split_once('['))
            {
                let name = label.split(' ').next().unwrap_or(label);
                drawn.nodes.insert(id, name);
            }
        }
        for line in lines() {
            let Some((from, to)) = line.split_once(" --> ") else { continue };
            match (drawn.nodes.get(from), drawn.nodes.get(to)) {
                (Some(from), Some(to)) => {
                    drawn.edges.insert((*from, *to));
                }
                _ => drawn.unknown.push(line),
            }
        }
        Some(drawn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(dependencies: &[&str]) -> Package {
        let named = dependencies.iter().map(|name| ((*name).to_owned(), Kind::Normal));
        Package { folder: "x".into(), targets: vec![], dependencies: named.collect() }
    }

    fn packages() -> BTreeMap<String, Package> {
        let all =
            [("a", package(&["b", "serde"])), ("b", package(&[])), ("xtask", package(&["a"]))];
        all.into_iter().map(|(name, package)| (name.to_owned(), package)).collect()
    }

    fn page(lines: &str) -> String {
        format!(
            "text\n## Crates\n\n```mermaid\ngraph BT\n  x[a · pure]\n  y[b]\n{lines}```\nmore\n"
        )
    }

    #[test]
    fn a_true_diagram_has_no_differences() {
        let page = page("  x --> y\n  y -. starts .-> x\n");
        assert_eq!(differences(&page, &packages()), Vec::<String>::new());
    }

    #[test]
    fn every_difference_is_told() {
        let found = differences(&page("  z[c]\n  y --> x\n  y --> w\n"), &packages());
        let expected = [
            "c is drawn and no crate",
            "the diagram names what it does not define: y --> w",
            "a --> b is not drawn",
            "b --> a is drawn only",
        ];
        assert_eq!(found, expected);
        assert_eq!(differences("no diagram", &packages()).len(), 1);
    }
}
