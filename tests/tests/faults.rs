//! A few faults while guests move; `cargo xtask faults` does many.

#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

use std::path::Path;

use rackferry_tests::lab::rate::Rate;
use rackferry_tests::runs_here;
use rackferry_tests::trials::faults::{self, Kind, Options};

const SEED: u64 = 1;

/// Small, and slow enough that something is under way when it is hit.
fn options(coordinators: u8, runs: usize, kinds: Vec<Kind>) -> Options {
    Options {
        runs,
        seed: SEED,
        replay: None,
        kinds,
        at: None,
        matrix: false,
        hosts: 2,
        coordinators,
        vms_per_host: 1,
        memory_mib: 128,
        core: Rate::mbit(300),
        logs: Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults"),
    }
}

fn all_hold(options: &Options) {
    let summary = faults::run(options, &mut |line| println!("{line}")).unwrap();
    println!("{}", summary.table());
    assert!(summary.failed.is_empty(), "seeds {:?}", summary.failed);
}

#[test]
fn guests_survive_the_death_of_what_serves_them() {
    if runs_here("guests_survive_the_death_of_what_serves_them") {
        all_hold(&options(1, 4, vec![Kind::SourceAgent, Kind::TargetAgent, Kind::Coordinator]));
    }
}

#[test]
fn guests_survive_their_coordinators() {
    if runs_here("guests_survive_their_coordinators") {
        all_hold(&options(3, 3, vec![Kind::Leaders, Kind::LeaderApart, Kind::Coordinators]));
    }
}
