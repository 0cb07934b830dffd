//! Dependencies that no source file of a crate names.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::metadata::{Kind, Package};

/// Dependencies that no file of ours names, and why they are needed.
const NEEDED: [(&str, &str, &str); 1] =
    [("rackferry-proto", "tonic-prost", "the code that the build script generates")];

/// Every dependency that is not named, one a line.
pub fn found(packages: &BTreeMap<String, Package>) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for (name, package) in packages {
        let sources = Sources::of(package)?;
        for (dependency, kind) in &package.dependencies {
            let needed = NEEDED.iter().any(|(by, what, _)| by == name && what == dependency);
            if !needed && !sources.name(dependency, *kind) {
                found.push(format!("{name} does not use {dependency} ({kind:?})"));
            }
        }
    }
    Ok(found)
}

/// The text of a crate's sources.
#[derive(Debug, Default)]
struct Sources {
    crates: String,
    build: String,
}

impl Sources {
    fn of(package: &Package) -> Result<Self> {
        let mut sources = Self::default();
        for target in &package.targets {
            if target.file_name().is_some_and(|name| name == "build.rs") {
                sources.build += &read(target)?;
            } else {
                sources.crates += &read(target)?;
            }
        }
        // Modules lie below the folders of targets; other crates of the workspace may lie below that of the crate.
        for folder in ["src", "tests", "benches", "examples"] {
            add(&package.folder.join(folder), &mut sources.crates)?;
        }
        Ok(sources)
    }

    fn name(&self, dependency: &str, kind: Kind) -> bool {
        let text = if kind == Kind::Build { &self.build } else { &self.crates };
        names(text, &dependency.replace('-', "_"))
    }
}

/// Whether a text has a word.
fn names(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

fn add(folder: &Path, text: &mut String) -> Result<()> {
    // A crate of its own, such as tests/xtask below tests, has its sources elsewhere.
    if !folder.is_dir() || folder.join("Cargo.toml").exists() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            add(&path, text)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            *text += &read(&path)?;
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_word() {
        for text in ["use serde::x;", "serde", "#[derive(serde::Serialize)]", "extern crate serde;"]
        {
            assert!(names(text, "serde"), "{text}");
        }
        for text in ["use serde_json;", "my_serde::x", "", "deserde"] {
            assert!(!names(text, "serde"), "{text}");
        }
    }

    #[test]
    fn kinds_look_at_their_own_files() {
        let sources = Sources { crates: "use a_b;".to_owned(), build: "use c;".to_owned() };
        assert!(sources.name("a-b", Kind::Normal) && sources.name("a-b", Kind::Dev));
        assert!(sources.name("c", Kind::Build) && !sources.name("c", Kind::Normal));
        assert!(!sources.name("a-b", Kind::Build));
    }
}
