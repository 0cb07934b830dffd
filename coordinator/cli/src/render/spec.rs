//! A VM's spec, as registered and as its owner's agent reports it.

use rackferry_model::view;
use rackferry_proto::v1::{GetVmResponse, VmSpecs};
use serde::Serialize;
use similar::{ChangeTag, TextDiff};

use super::json::resulting;
use crate::exit::Code;

/// The registered spec, line by line; none if no agent has reported one yet.
fn registered(specs: &VmSpecs) -> Option<String> {
    let lines: Vec<_> = specs.registered_toml.trim_end().lines().map(printable).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// What the agent reports against what is registered, if it reports another spec. The order of lines counts: below which
/// table a key stands is part of what it says.
pub fn difference(detail: &GetVmResponse) -> Option<String> {
    let VmSpecs { registered_toml, reported_toml } = specs(detail);
    if !view::VmSpecs::from(specs(detail)).differ {
        return None;
    }
    let mut text = format!("{} reports another spec (- registered, + reported):", host(detail));
    for change in TextDiff::from_lines(&registered_toml, &reported_toml).iter_all_changes() {
        let sign = match change.tag() {
            ChangeTag::Delete => '-',
            ChangeTag::Insert => '+',
            ChangeTag::Equal => ' ',
        };
        text += &format!("\n{sign} {}", printable(change.value().trim_end_matches(['\r', '\n'])));
    }
    Some(text)
}

/// The registered spec, as a file to start the VM from; a difference is behind it, as comments.
pub fn file(detail: &GetVmResponse) -> String {
    let registered = registered(&specs(detail));
    let mut text = registered.unwrap_or_else(|| "# none is registered yet".to_owned());
    if let Some(difference) = difference(detail) {
        let lines: Vec<_> = difference.lines().map(|line| format!("# {line}")).collect();
        text += &format!("\n\n{}", lines.join("\n"));
    }
    text
}

/// The registered spec and a difference, as a part of what is shown of a VM; empty if there is neither.
pub fn part(detail: &GetVmResponse) -> String {
    let registered = registered(&specs(detail));
    let registered = registered.map(|text| format!("registered spec:\n{text}"));
    let parts = registered.into_iter().chain(difference(detail));
    let parts: Vec<_> = parts.map(|part| part.replace('\n', "\n  ")).collect();
    parts.join("\n\n")
}

/// What an agent says must reach no terminal as a command, and look like nothing that it is not.
fn printable(line: &str) -> String {
    let odd = |c: char| {
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        turns || (c.is_control() && c != '\t')
    };
    line.chars().map(|c| if odd(c) { '?' } else { c }).collect()
}

/// A spec that was accepted.
pub fn accepted(detail: &GetVmResponse) -> String {
    let name = detail.vm.as_ref().map_or("", |vm| &vm.name);
    format!("the spec of VM {name} is registered as {} reports it", host(detail))
}

fn specs(detail: &GetVmResponse) -> VmSpecs {
    detail.specs.clone().unwrap_or_default()
}

fn host(detail: &GetVmResponse) -> &str {
    detail.vm.as_ref().map_or("", |vm| &vm.host)
}

/// The same for programs.
pub fn json(detail: &GetVmResponse) -> String {
    #[derive(Serialize)]
    struct Specs<'a> {
        name: &'a str,
        host: &'a str,
        #[serde(flatten)]
        specs: view::VmSpecs,
    }
    let name = detail.vm.as_ref().map_or("", |vm| &vm.name);
    resulting(Code::Done, Specs { name, host: host(detail), specs: specs(detail).into() })
}

#[cfg(test)]
mod tests {
    use rackferry_proto::v1::Vm;

    use super::*;

    fn detail(registered: &str, reported: &str) -> GetVmResponse {
        let specs = VmSpecs { registered_toml: registered.into(), reported_toml: reported.into() };
        let vm = Vm { name: "web".to_owned(), host: "a1".to_owned(), ..Vm::default() };
        GetVmResponse { vm: Some(vm), specs: Some(specs), ..GetVmResponse::default() }
    }

    #[test]
    fn a_difference_stands_behind_the_registered_spec_as_comments() {
        let good = "name = 'web'\ncpus = 1\n";
        let same = detail(good, good);
        assert_eq!(file(&same), "name = 'web'\ncpus = 1");
        assert_eq!(part(&same), "registered spec:\n  name = 'web'\n  cpus = 1");
        assert!(json(&same).contains("\"differ\": false"));
        let other = detail(good, "name = 'web'\nextra_args = ['\u{1b}[2J\u{202e}']\n");
        let expected = "name = 'web'\ncpus = 1\n\n# a1 reports another spec (- registered, + reported):\n\
                        #   name = 'web'\n# - cpus = 1\n# + extra_args = ['?[2J?']";
        assert_eq!(file(&other), expected);
        assert!(json(&other).contains("\"differ\": true"));
        assert!(file(&detail("", good)).starts_with("# none is registered yet\n\n# a1 reports"));
        assert_eq!(part(&detail("", "")), "");
    }

    #[test]
    fn a_line_that_only_moved_is_a_difference() {
        let registered = "[[disk]]\npath = '/srv/a'\nreadonly = true\n[[disk]]\npath = '/srv/b'\n";
        let reported = "[[disk]]\npath = '/srv/a'\n[[disk]]\npath = '/srv/b'\nreadonly = true\n";
        let shown = difference(&detail(registered, reported)).unwrap();
        let signs = |sign| shown.lines().filter(|line| line.starts_with(sign)).count();
        assert!(signs("- ") == 1 && signs("+ ") == 1, "{shown}");
    }
}
