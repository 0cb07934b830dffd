//! Files, good and bad.

use proptest::prelude::*;
use rackferry_inventory::{Disruption, Inventory, SIZE_LIMIT, read};

const SITE: &str = include_str!("site.yaml");

fn site() -> Inventory {
    read("site.yaml", SITE).expect("it is well formed")
}

fn mistakes(text: &str) -> String {
    read("site.yaml", text).expect_err("it has a mistake").to_string()
}

#[test]
fn a_site_is_read() {
    let site = site();
    let hosts: Vec<usize> = site.racks.iter().map(|rack| rack.hosts.len()).collect();
    assert_eq!(hosts, [20, 20]);
    let last = &site.racks[0].hosts[19];
    assert_eq!((last.name.as_str(), last.mem, last.cpus), ("r12-h20", Some(512 << 30), Some(64)));
    assert_eq!((last.nic, last.mem_headroom), (Some(3_125_000_000), Some(10)));
    assert_eq!(last.mig_addr.map(|addr| addr.to_string()).as_deref(), Some("10.112.0.20"));
    assert_eq!(last.addr, None, "a template's addr is not inherited");
    assert_eq!(site.racks[1].hosts[0].labels.len(), 2);
    let links: Vec<&str> = site.links.iter().map(|link| link.name.as_str()).collect();
    assert_eq!(links, ["r12-spine1", "r12-spine2", "r13-spine1", "r13-spine2", "core0"]);
    assert_eq!(site.links[4].rate, 5_000_000_000);
    assert_eq!(site.policies[0].max_downtime_ms, Some(100));
    assert_eq!(site.policies[1].disruption, Some(Disruption::Allow));
    assert_eq!(site.vms.len(), 9);
}

/// The good file with one thing changed: the mistake is told with its line and column, what it is, and what to do.
#[test]
fn mistakes_are_told_where_they_are() {
    let changed = [
        ("version: 1", "version: 2"),
        ("  - name: r12\n", "  - nmae: r12\n"),
        ("cpus: 64", "cores: 64"),
        ("cpus: 64", "cpus: many"),
        ("cpus: 64", "cpus: 0"),
        ("mem: 512GiB", "mem: 512GB"),
        ("{name: spine2}]", "{name: spine1}]"),
        ("name: r13\n", "name: r12\n"),
        ("template: r12-h01, mig_addr", "template: r12-h99, mig_addr"),
        ("r12-h[02-20]", "r12-h[20-02]"),
        ("r12-h[02-20]", "r12-h[01-20]"),
        ("10.112.0.[2-20]", "10.112.0.[2-9]"),
        ("10.112.0.[2-20]", "10.112.0.[1-19]"),
        ("addr: 10.12.0.1,", "addr: r12-h01.example,"),
        ("b: r13, rate", "b: r14, rate"),
        ("b: r13, rate", "b: r12, rate"),
        ("rate: 40Gbit", "rate: 40Gbps"),
        ("name: core0", "name: r12-spine1"),
        ("cost: 1}", "cost: 0}"),
        ("disruption: allow", "disruption: maybe"),
        ("max_downtime: 100ms", "max_downtime: soon"),
        ("match: {workload: db}", "match: {}"),
        ("nic: 25Gbit", "nic: fast"),
        ("name: db-1", "name: \"db 1\""),
        ("spines: [", "spines: {"),
        ("racks:\n", "racks\n"),
    ];
    let told = changed.map(|(from, to)| {
        assert!(SITE.contains(from), "{from}");
        format!(
            "{} -> {}\n    {}\n",
            from.trim(),
            to.trim(),
            mistakes(&SITE.replacen(from, to, 1)).replace('\n', "\n    ")
        )
    });
    insta::assert_snapshot!("mistakes", told.concat());
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = SITE.replace("100Gbit", "fast").replace("name: db-1", "name: '-'");
    let told = mistakes(&text);
    assert_eq!(told.lines().count(), 5, "{told}");
    assert!(told.starts_with("site.yaml:5:"), "{told}");
    let many: String = (0..30).map(|_| "  - {name: '-'}\n").collect();
    assert!(mistakes(&format!("version: 1\nvms:\n{many}")).ends_with("and 10 more"));
}

#[test]
fn nothing_and_too_much_are_refused() {
    for text in ["", "\0", "- 1", "version: 1\n---\nversion: 1\n", "version: &a [*a]", "\t"] {
        assert!(mistakes(text).starts_with("site.yaml:"), "{text:?}");
    }
    assert!(mistakes(&" ".repeat(SIZE_LIMIT + 1)).starts_with("site.yaml:1:1: the file has"));
    let vms: String = (0..30).map(|n| format!("  - {{name: \"v{n}-[1-4000]\"}}\n")).collect();
    assert!(mistakes(&format!("version: 1\nvms:\n{vms}")).contains("more than 100000"));
    let empty = read("site.yaml", "version: 1").expect("a site without anything is one");
    assert_eq!(empty, Inventory::default());
}

#[test]
fn a_mistake_cannot_write_to_the_terminal() {
    let told = mistakes("version: 1\nvms:\n  - {name: \"a\\e[31m\\n\\r\"}\n");
    assert!(!told.contains(|c: char| c.is_control()), "{told:?}");
}

/// A bad file's mistakes are each at a line that it has.
fn is_sound(text: &str) -> bool {
    let lines = text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count() as u64 + 1;
    match read("f", text) {
        Ok(_) => true,
        Err(mistakes) => {
            let at = |line: u64| (1..=lines).contains(&line);
            !mistakes.all().is_empty()
                && mistakes
                    .all()
                    .iter()
                    .all(|one| at(one.line) && one.column > 0 && !one.what.is_empty())
                && mistakes.to_string().starts_with("f:")
        }
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_with_a_line(text in "\\PC{0,200}") {
        prop_assert!(is_sound(&text));
    }

    #[test]
    fn a_damaged_file_is_read_or_refused_with_a_line(
        at in 0..SITE.len(),
        length in 0..40_usize,
        with in "[-\\[\\]{}:,&*!|>'\"%@`# \\n\\ta-z0-9é]{0,8}",
    ) {
        let end = (at + length).min(SITE.len());
        let text = format!("{}{with}{}", &SITE[..at], &SITE[end..]);
        prop_assert!(is_sound(&text));
    }
}
