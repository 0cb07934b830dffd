//! Streams of real QEMUs: what the parsers find in them, and what a rebuilt stream makes of a memory.
//!
//! `RACKFERRY_WALK_STREAM` may name an independent reader of streams (walk_stream.py) to compare the counts with.

mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

use rackferry_migrator_protocol::stream::PAGE_SIZE;
use support::captures::{self, Capture};
use support::qemu::SHADOWED;
use support::{Loaded, rewrite};

/// One line per capture, as in the committed file.
fn line(name: &str, counts: &BTreeMap<&'static str, u64>) -> String {
    let mut line = format!("{name}:");
    for (what, count) in counts.iter().filter(|(_, count)| **count > 0) {
        write!(line, " {count} {what},").expect("strings take everything");
    }
    line.trim_end_matches(',').to_owned()
}

#[test]
fn everything_in_the_captures_is_found() {
    let expected = std::fs::read_to_string(captures::folder().join("counts.txt"));
    let expected = expected.expect("the counts are committed");
    let lines =
        captures::all().iter().map(|c| line(c.case.name, &c.rebuild().1.0)).collect::<Vec<_>>();
    assert_eq!(lines, expected.lines().collect::<Vec<_>>());
}

#[test]
fn streams_hold_the_memory_of_their_source() {
    for capture in captures::all() {
        let (rebuilt, _) = capture.rebuild();
        let loaded = Loaded::from_stream(&rebuilt).expect("the writer's streams are good");
        assert!(loaded.ended, "{}", capture.case.name);
        for ((block, page), content) in &loaded.pages {
            let at = *page as usize * PAGE_SIZE;
            if block == "pc.ram" && !SHADOWED.contains(&at) {
                let same = capture.memory[at..at + PAGE_SIZE] == **content;
                assert!(same, "{}: page {page}", capture.case.name);
            }
        }
        let guest = loaded.pages.keys().filter(|(block, _)| block == "pc.ram").count();
        assert_eq!(guest * PAGE_SIZE, capture.memory.len(), "{}: every page", capture.case.name);
    }
}

#[test]
fn rewriting_keeps_memory_and_everything_else() {
    for capture in captures::all() {
        let expected = Loaded::from_stream(&capture.main).expect("a good stream");
        for piece in [70_000, 1 << 20, 1 << 30] {
            let again = rewrite(&capture.main, piece, |_| {});
            let loaded = Loaded::from_stream(&again).expect("the writer's streams are good");
            assert!(loaded.pages == expected.pages, "{} {piece}", capture.case.name);
            assert!(loaded.other == expected.other, "{} {piece}", capture.case.name);
            assert_eq!(loaded.machine, expected.machine);
        }
    }
}

#[test]
fn cuts_do_not_matter() {
    for capture in captures::all() {
        let expected = Loaded::from_stream(&capture.main).expect("a good stream");
        for step in [4099, 65_537] {
            let cuts = (0..capture.main.len()).step_by(step);
            let loaded = Loaded::from_pieces(&capture.main, cuts).expect("a good stream");
            assert!(loaded == expected, "{} {step}", capture.case.name);
        }
    }
}

#[test]
fn an_independent_reader_finds_the_same() {
    let Some(program) = std::env::var_os("RACKFERRY_WALK_STREAM") else {
        println!("skipped: RACKFERRY_WALK_STREAM names no program");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    for capture in captures::all() {
        let main = folder.path().join("main");
        std::fs::write(&main, &capture.main).expect("written");
        let mut command = Command::new("python3");
        command.arg(&program).arg(&main);
        for (number, channel) in capture.channels.iter().enumerate() {
            let file = folder.path().join(number.to_string());
            std::fs::write(&file, channel).expect("written");
            if number == 0 {
                command.arg("--multifd");
            }
            command.arg(&file);
        }
        let output = command.output().expect("python runs");
        let text = String::from_utf8(output.stdout).expect("text");
        assert!(output.status.success() && !text.contains("STOP:"), "{text}");
        let found = line(capture.case.name, &walked(&text, &capture));
        println!("{found}");
        assert_eq!(found, line(capture.case.name, &capture.rebuild().1.0));
    }
}

/// Takes the counts from the text that walk_stream.py prints.
fn walked(text: &str, capture: &Capture) -> BTreeMap<&'static str, u64> {
    let totals = text.lines().find(|line| line.starts_with("ram totals:")).expect("totals");
    let channels = || text.lines().filter(|line| line.contains("'packets'"));
    let sum = |key| channels().map(|line| number(line, key)).sum();
    let blocks = text.lines().skip_while(|line| *line != "blocks:").skip(1);
    assert_eq!(channels().count(), capture.channels.len());
    BTreeMap::from([
        ("blocks", blocks.take_while(|line| line.starts_with("   ")).count() as u64),
        ("pages", number(totals, "'page': ")),
        ("zeros", number(totals, "'zero': ")),
        ("sections", number(totals, "'eos': ")),
        ("flushes", number(totals, "'multifd_flush': ")),
        ("multifd pages", sum("'normal': ")),
        ("multifd zeros", sum("'zero': ")),
        ("multifd syncs", sum("'sync': ")),
    ])
}

/// The number behind a key, 0 if the key is missing.
fn number(text: &str, key: &str) -> u64 {
    let Some((_, behind)) = text.split_once(key) else { return 0 };
    let digits = behind.split(|c: char| !c.is_ascii_digit()).next().expect("one piece at least");
    digits.parse().expect("a number")
}
