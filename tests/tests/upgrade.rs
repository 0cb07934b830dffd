//! Every daemon is replaced while guests move; `cargo xtask upgrade` does it from another version.

#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

use rackferry_tests::lab::rate::Rate;
use rackferry_tests::lab::site::Settings;
use rackferry_tests::runs_here;
use rackferry_tests::trials::upgrade::{self, Options};

#[test]
fn an_evacuation_goes_on_while_every_daemon_is_replaced() {
    if !runs_here("an_evacuation_goes_on_while_every_daemon_is_replaced") {
        return;
    }
    let programs = Settings::default().programs;
    // The same programs under another name: what matters here is that each daemon ends and starts.
    let new = tempfile::tempdir().unwrap();
    for name in ["rackferry", "rackferry-agent", "rackferry-coordinator"] {
        std::fs::copy(programs.join(name), new.path().join(name)).unwrap();
    }
    let options = Options {
        hosts: 2,
        coordinators: 3,
        vms_per_host: 2,
        memory_mib: 128,
        core: Rate::mbit(30),
        old: programs,
        new: new.path().to_path_buf(),
    };
    let report = upgrade::run(&options, &mut |line| println!("{line}")).unwrap();
    assert_eq!(report.restarts.len(), 3 + 4);
    assert!(report.restarts[0].1 > 0, "nothing was on its way: {:?}", report.restarts);
}
