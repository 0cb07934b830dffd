//! A few faults while guests move; `cargo xtask faults` does many.

#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

use std::path::Path;
use std::time::Duration;

use rackferry_tests::lab::rate::Rate;
use rackferry_tests::runs_here;
use rackferry_tests::trials::faults::{self, Kind, Options};
use rackferry_tests::trials::pauses;

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
fn guests_survive_freezes_and_black_holes() {
    if runs_here("guests_survive_freezes_and_black_holes") {
        let kinds = vec![Kind::FrozenSource, Kind::FrozenNeighbour, Kind::BlackHole];
        all_hold(&options(1, 3, kinds));
    }
}

/// `cargo xtask pauses` judges how long stops take on a machine that has nothing else to do.
#[test]
fn vms_move_beside_frozen_agents() {
    if !runs_here("vms_move_beside_frozen_agents") {
        return;
    }
    let options = pauses::Options {
        runs: 1,
        hosts: 3,
        vms_per_host: 1,
        memory_mib: 128,
        max_downtime_ms: 300,
        freeze: Duration::from_secs(3),
        core: Rate::mbit(300),
    };
    let report = pauses::run(&options, &mut |line| println!("{line}")).unwrap();
    assert!(report.freezes > 0 && !report.stops_ms.is_empty(), "{report:?}");
}

#[test]
fn guests_survive_their_coordinators() {
    if runs_here("guests_survive_their_coordinators") {
        all_hold(&options(3, 3, vec![Kind::Leaders, Kind::LeaderApart, Kind::Coordinators]));
    }
}
