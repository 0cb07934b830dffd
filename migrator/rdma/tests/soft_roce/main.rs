//! What must hold with a real device: Soft-RoCE in an emulated machine (Lab B), as no kernel of a build machine has RDMA.
//!
//! The tests of `inside` run there, one after the other; outside they pass without doing anything.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod inside;
mod rig;

use std::ffi::OsString;
use std::time::Duration;

use rackferry_tests::lab_b::{self, Job, Options};
use rackferry_tests::runs_here;

/// Set in the emulated machine.
const INSIDE: &str = "RACKFERRY_RDMA_INSIDE";
/// Boot takes 15 s and the tests as long, several times that on a busy machine.
const LIMIT: Duration = Duration::from_secs(600);

#[test]
fn reads_work_in_an_emulated_machine() {
    let test = "reads_work_in_an_emulated_machine";
    if !lab_b::is_set_up() {
        eprintln!("{test}: SKIPPED: run `cargo xtask setup --lab-b` first");
        return;
    }
    if std::env::var_os(INSIDE).is_some() || !runs_here(test) {
        return;
    }
    let results = tempfile::tempdir().unwrap();
    let options = Options {
        memory_mib: 2048,
        soft_roce: true,
        ..Options::of(results.path().to_path_buf(), LIMIT)
    };
    let mut command = vec![std::env::current_exe().unwrap().into_os_string()];
    command.extend(["inside::", "--test-threads=1", "--nocapture"].map(OsString::from));
    let job = Job::here(&command).unwrap().variable(INSIDE, "1");
    assert_eq!(lab_b::run(&options, &job).unwrap(), 0, "the tests inside have failed");
}
