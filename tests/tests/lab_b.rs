//! The emulated machine runs a command and ends; where Lab B is not set up, nothing of this runs.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::Duration;

use rackferry_tests::lab_b::{self, Job, Options};
use rackferry_tests::{leak, runs_here};

/// Boot takes 10 s, several times that on a busy machine.
const LIMIT: Duration = Duration::from_secs(300);

fn runs(test: &str) -> bool {
    if !lab_b::is_set_up() {
        eprintln!("{test}: SKIPPED: run `cargo xtask setup --lab-b` first");
    }
    lab_b::is_set_up() && runs_here(test)
}

fn shell(script: &str) -> Job {
    let words = ["/bin/sh", "-c", script].map(OsString::from);
    Job::here(&words).unwrap()
}

/// One after the other: what one test's machine is would be left over for the next.
#[test]
fn a_machine_runs_a_command_and_is_ended_if_that_takes_too_long() {
    if runs("a_machine_runs_a_command_and_is_ended_if_that_takes_too_long") {
        a_command_has_kvm_and_our_files_and_its_exit_code_comes_back();
        a_machine_that_takes_too_long_is_ended();
    }
}

fn a_command_has_kvm_and_our_files_and_its_exit_code_comes_back() {
    let results = tempfile::tempdir().unwrap();
    let ours = std::env::current_exe().unwrap();
    let script = format!(
        "test -c /dev/kvm || exit 1; test -x '{}' || exit 2; echo lost > /lab-b-test; uname -r > '{}/kernel'; exit 7",
        ours.display(),
        results.path().display()
    );
    let options = Options::of(results.path().to_path_buf(), LIMIT);
    assert_eq!(lab_b::run(&options, &shell(&script)).unwrap(), 7);
    let kernel = fs::read_to_string(results.path().join("kernel")).unwrap();
    assert!(kernel.starts_with("6.1."), "{kernel}");
    assert!(!Path::new("/lab-b-test").exists(), "it wrote to the root of this machine");
    let left: Vec<_> = fs::read_dir(results.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "logs stay only if it fails: {left:?}");
}

fn a_machine_that_takes_too_long_is_ended() {
    let results = tempfile::tempdir().unwrap();
    let options = Options::of(results.path().to_path_buf(), Duration::from_secs(2));
    let error = lab_b::run(&options, &shell("sleep 1000")).unwrap_err().to_string();
    assert!(error.contains("did not end within 2 s"), "{error}");
    assert!(results.path().join(".lab-b/qemu.log").exists(), "its logs are kept");
    let prefix = std::env::var("RACKFERRY_LAB_PREFIX").unwrap_or_else(|_| "rf".into());
    leak::assert_nothing_left(&format!("{prefix}.b"), results.path()).unwrap();
}
