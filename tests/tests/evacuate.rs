//! Rackferry moves real guests: every page arrives, no VM is lost, a cancelled move changes nothing.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

use std::time::{Duration, Instant};

use rackferry_tests::image::Qemu;
use rackferry_tests::lab::rate::Rate;
use rackferry_tests::lab::site::{Settings, Site};
use rackferry_tests::lab::vm::{Profile, VmDef};
use rackferry_tests::{Lab, Topology, leak, runs_here};
use serde_json::Value;

const BOOT: Duration = Duration::from_secs(300);
const BEAT: Duration = Duration::from_secs(10);
const CHECK: Duration = Duration::from_secs(120);

fn evacuate(site: &Site<'_>, from: &str, to: &str) -> Value {
    let order = ["evacuate", from, "--to", to, "--no-cordon", "--verify", "--yes"];
    let result = site.cli_json(&order).unwrap();
    for vm in result["vms"].as_array().unwrap() {
        assert_eq!(vm["phase"], "done", "{vm:#}");
        assert_eq!(vm["source_memory_digest"].as_str().map(str::len), Some(64), "verified: {vm:#}");
    }
    result
}

fn assert_on(site: &Site<'_>, vms: &[&str], rack: &str) {
    let beats = site.lab().heartbeats();
    for vm in vms {
        beats.wait_beat(vm, BEAT).unwrap();
        let host = beats.host_of(vm).unwrap();
        assert!(host.starts_with(rack), "{vm} runs at {host}");
        assert!(beats.log(vm).two_copies().is_none(), "{vm} ran twice");
    }
}

/// Rack a runs QEMU 7.2, rack b 10.0: there, back, and a cancelled third move. One of the guests is busy, one was
/// started outside of Rackferry and only attached to.
#[test]
fn guests_move_byte_for_byte_between_qemu_versions_and_stay_when_cancelled() {
    if !runs_here("guests_move_byte_for_byte_between_qemu_versions_and_stay_when_cancelled") {
        return;
    }
    let lab = Lab::up(&Topology::of(2)).unwrap();
    let (prefix, folder) = (lab.prefix().to_string(), lab.folder().to_path_buf());
    lab.core().shape(Rate::gbit(1)).unwrap();
    let settings = Settings { qemu: [Qemu::V7_2, Qemu::V10_0], ..Settings::default() };
    let site = Site::up(&lab, settings).unwrap();
    let names = ["web-1", "busy-2", "foreign-3"];
    let defs = names.map(|name| {
        let profile = if name == "busy-2" { Profile::Busy } else { Profile::Idle };
        VmDef::named(name).memory_mib(128).profile(profile).uneven()
    });
    let places: Vec<_> = lab.rack("a").cloned().zip(defs[..2].iter().cloned()).collect();
    site.boot(&places, 2, BOOT).unwrap();
    let monitor = folder.join("foreign-3.agent.qmp");
    let second = format!("unix:{},server=on,wait=off", monitor.display());
    let foreign = lab.start_with(lab.host("a", 1), &defs[2], &["-qmp", &second]).unwrap();
    lab.heartbeats().wait_ready(&["foreign-3"], BOOT).unwrap();
    site.attach_vm(lab.host("a", 1), &defs[2], &monitor).unwrap();

    // Memory of an attached VM is not the agent's, so it cannot be verified at the source: it moves without.
    site.wait_listed(&names).unwrap();
    let moved = site.cli_json(&["migrate", "foreign-3", "--to", "b-2"]).unwrap();
    assert_eq!(moved["phase"], "done", "{moved:#}");
    let there = evacuate(&site, "a", "b");
    assert_eq!(there["vms"].as_array().unwrap().len(), 2);
    assert_on(&site, &names, "b-");
    let back = evacuate(&site, "b", "a");
    assert_eq!(back["vms"].as_array().unwrap().len(), 3);
    assert!(back["totals"]["duplicate_bytes"].as_u64().unwrap() > 64 << 20, "{:#}", back["totals"]);
    assert_on(&site, &names, "a-");

    lab.core().shape(Rate::mbit(20)).unwrap();
    let started = site.cli_json(&["evacuate", "a", "--to", "b", "--yes", "--detach"]).unwrap();
    let id = started["id"].as_str().unwrap().to_owned();
    std::thread::sleep(Duration::from_secs(2));
    site.cli_json(&["cancel", &id]).unwrap();
    lab.core().shape(Rate::gbit(1)).unwrap();
    let end = wait_ended(&site, &id);
    assert_eq!(end["state"], "cancelled", "{end:#}");
    assert_on(&site, &names, "a-");
    evacuate(&site, "a", "b");
    assert_on(&site, &names, "b-");
    lab.heartbeats().check(&names, CHECK).unwrap();
    lab.heartbeats().assert_healthy().unwrap();
    drop(foreign);
    drop(site);
    drop(lab);
    leak::assert_nothing_left(&prefix, &folder).unwrap();
}

fn wait_ended(site: &Site<'_>, id: &str) -> Value {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let output = site.cli(&["status", id, "--output", "json"]).unwrap();
        let status: Value = serde_json::from_slice(&output.stdout).unwrap();
        if status["ended_unix_ms"].as_u64().is_some_and(|at| at > 0) {
            return status;
        }
        assert!(Instant::now() < deadline, "{id} does not end: {status:#}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
