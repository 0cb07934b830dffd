//! A few faults while guests move; `cargo xtask faults` does many.

use std::path::Path;

use rackferry_tests::faults::{self, Kind, Options};
use rackferry_tests::rate::Rate;
use rackferry_tests::runs_here;

const SEED: u64 = 1;

#[test]
fn guests_survive_the_death_of_what_serves_them() {
    if !runs_here("guests_survive_the_death_of_what_serves_them") {
        return;
    }
    let options = Options {
        runs: 4,
        seed: SEED,
        replay: None,
        kinds: vec![Kind::SourceAgent, Kind::TargetAgent, Kind::Coordinator],
        hosts: 2,
        vms_per_host: 1,
        memory_mib: 128,
        core: Rate::mbit(300),
        logs: Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults"),
    };
    let summary = faults::run(&options, &mut |line| println!("{line}")).unwrap();
    println!("{}", summary.table());
    assert!(summary.failed.is_empty(), "seeds {:?}", summary.failed);
}
