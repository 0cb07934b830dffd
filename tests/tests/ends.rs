//! However a lab ends, nothing of it stays.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rackferry_tests::{Lab, Topology, leak, runs_here};
use rustix::process::{Pid, Signal, kill_process};

/// Runs the test below in a process of its own, until its lab is up.
fn hold(prefix: &str) -> Result<Child> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--exact", "holds_a_lab", "--ignored", "--nocapture"])
        .env("RACKFERRY_LAB_PREFIX", prefix)
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.as_mut().context("the output is piped")?;
    let mut lines = BufReader::new(output).lines().map_while(std::io::Result::ok);
    ensure!(lines.any(|line| line.contains("lab is up")), "the lab did not come up");
    Ok(child)
}

#[test]
#[ignore = "a part of the tests below: runs until it is killed"]
fn holds_a_lab() {
    let lab = Lab::up(&Topology::of(1)).unwrap();
    let child = lab.spawn(lab.host("a", 1), "sleeper", Command::new("sleep").arg("1000")).unwrap();
    println!("lab is up");
    std::thread::sleep(Duration::from_secs(1000));
    drop(child);
}

#[test]
fn a_signal_takes_everything_down() {
    if !runs_here("a_signal_takes_everything_down") {
        return;
    }
    let mut child = hold("rfterm").unwrap();
    let folder = std::path::Path::new("/run/rackferry-lab/rfterm");
    let before = leak::Census::take("rfterm", folder).unwrap();
    assert_eq!((before.namespaces.len(), before.processes.len()), (6, 1));
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
    leak::assert_nothing_left("rfterm", folder).unwrap();
}

#[test]
fn the_next_lab_removes_what_a_killed_one_left() {
    if !runs_here("the_next_lab_removes_what_a_killed_one_left") {
        return;
    }
    let mut first = hold("rfkill").unwrap();
    let folder = std::path::Path::new("/run/rackferry-lab/rfkill");
    first.kill().unwrap();
    first.wait().unwrap();
    assert_eq!(leak::Census::take("rfkill", folder).unwrap().processes.len(), 1);
    let mut second = hold("rfkill").unwrap();
    assert_eq!(leak::Census::take("rfkill", folder).unwrap().processes.len(), 1);
    kill_process(Pid::from_child(&second), Signal::TERM).unwrap();
    second.stdout.take().unwrap().read_to_end(&mut Vec::new()).unwrap();
    second.wait().unwrap();
    leak::assert_nothing_left("rfkill", folder).unwrap();
}
