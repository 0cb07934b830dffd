//! What tests of a program's list of metrics look at. Each panics with what does not fit.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test stops at what it does not expect"
)]

use std::{
    collections::BTreeSet,
    io::Write,
    process::{Command, Stdio},
};

use rackferry_model::Metric;

/// The list and a section of the manual name the same metrics, each with its type.
pub fn is_in_the_manual(list: &[Metric], manual: &str, title: &str) {
    let (_, section) = manual.split_once(&format!("\n## {title}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let word = |c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let found: BTreeSet<_> =
        section.split(word).filter(|name| name.starts_with("rackferry_")).collect();
    assert_eq!(found, list.iter().map(|metric| metric.name).collect());
    for Metric { name, kind, .. } in list {
        assert!(section.contains(&format!("| `{name}` | {kind} |")), "{name} {kind}");
    }
}

/// A page of `/metrics` has every metric of the list, each with its type.
pub fn is_shown(list: &[Metric], page: &str) {
    for Metric { name, kind, .. } in list {
        assert!(page.contains(&format!("# TYPE {name} {kind}\n")), "{name}:\n{page}");
    }
}

/// promtool has no objections to a page of `/metrics`. It is where `RACKFERRY_PROMTOOL` says; without that nothing is
/// looked at.
pub fn promtool_accepts(page: &str) {
    let Some(promtool) = std::env::var_os("RACKFERRY_PROMTOOL") else {
        eprintln!("skipped: RACKFERRY_PROMTOOL is not set; `cargo xtask test` sets it");
        return;
    };
    let mut check =
        Command::new(promtool).args(["check", "metrics"]).stdin(Stdio::piped()).spawn().unwrap();
    check.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    assert!(check.wait().unwrap().success());
}
