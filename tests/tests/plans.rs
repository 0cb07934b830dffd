//! Real guests move as a plan says and come back; those that write faster than is sent are dealt with as asked.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

use std::time::Duration;

use rackferry_tests::bench::limit;
use rackferry_tests::lab::rate::Rate;
use rackferry_tests::lab::site::{Settings, Site};
use rackferry_tests::lab::vm::{Profile, VmDef};
use rackferry_tests::{Lab, Topology, leak, runs_here};

const BOOT: Duration = Duration::from_secs(300);
const CHECK: Duration = Duration::from_secs(120);

#[test]
fn guests_move_as_planned_and_come_back() {
    if !runs_here("guests_move_as_planned_and_come_back") {
        return;
    }
    let lab = Lab::up(&Topology::of(2)).unwrap();
    let (prefix, folder) = (lab.prefix().to_string(), lab.folder().to_path_buf());
    lab.core().shape(Rate::gbit(1)).unwrap();
    let site = Site::up(&lab, Settings::default()).unwrap();
    let names = ["web-1", "web-2", "web-3"];
    let defs = names.map(|name| VmDef::named(name).memory_mib(128));
    let hosts: Vec<_> = lab.rack("a").cloned().collect();
    let places: Vec<_> = hosts.iter().cloned().cycle().zip(defs.clone()).collect();
    site.boot(&places[..2], 2, BOOT).unwrap();
    site.wait_listed(&names[..2]).unwrap();
    let file = folder.join("plan.json");
    let file = file.to_str().unwrap();
    let plan = ["plan", "a", "--to", "b", "--out", file];
    site.cli_json(&plan).unwrap();

    // An operator edits it; a VM comes to the rack; then it is made anew and followed to the letter.
    let text = std::fs::read_to_string(file).unwrap();
    std::fs::write(file, text.replace("\"b-1\"", "\"b-2\"")).unwrap();
    assert_eq!(site.cli_code(&["apply", file]).unwrap(), Some(2), "it was edited");
    std::fs::write(file, text).unwrap();
    site.boot(&places[2..], 1, BOOT).unwrap();
    site.wait_listed(&names).unwrap();
    assert_eq!(site.cli_code(&["apply", file]).unwrap(), Some(3), "a VM has come");
    site.cli_json(&plan).unwrap();
    let planned: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let moved = site.cli_json(&["apply", file]).unwrap();
    assert_eq!(moved["state"], "done", "{moved:#}");
    for step in planned["plan"]["moves"].as_array().unwrap() {
        let vm = moved["vms"].as_array().unwrap().iter().find(|vm| vm["vm"] == step["vm"]);
        assert_eq!(vm.unwrap()["target_host"], step["target_host"], "{moved:#}");
    }
    assert_eq!(
        site.cli_code(&["doctor"]).unwrap(),
        Some(0),
        "{:#?}",
        site.cli(&["doctor"]).unwrap()
    );

    let id = moved["id"].as_str().unwrap();
    let back = site.cli_json(&["restore", id, "--yes"]).unwrap();
    assert_eq!(back["state"], "done", "{back:#}");
    for (host, def) in &places {
        lab.heartbeats().wait_beat(&def.name, CHECK).unwrap();
        assert_eq!(lab.heartbeats().host_of(&def.name), Some(host.name()), "{}", def.name);
    }
    lab.heartbeats().check(&names, CHECK).unwrap();
    lab.heartbeats().assert_healthy().unwrap();
    drop(site);
    drop(lab);
    leak::assert_nothing_left(&prefix, &folder).unwrap();
}

/// A guest that rewrites 20 MiB a second, half of it with new content, over a link that is given 40 Mbit/s.
#[test]
fn a_guest_that_writes_too_fast_stays_or_is_stopped_as_was_asked() {
    if !runs_here("a_guest_that_writes_too_fast_stays_or_is_stopped_as_was_asked") {
        return;
    }
    let lab = Lab::up(&Topology::of(1)).unwrap();
    let (prefix, folder) = (lab.prefix().to_string(), lab.folder().to_path_buf());
    lab.core().shape(Rate::gbit(1)).unwrap();
    let site = Site::up(&lab, Settings::default()).unwrap();
    let mut def = VmDef::named("busy").memory_mib(128).profile(Profile::Busy);
    (def.guest.wss_mib, def.guest.rate_kib) = (24, 20 << 10);
    site.boot(&[(lab.host("a", 1).clone(), def)], 1, BOOT).unwrap();
    site.wait_listed(&["busy"]).unwrap();
    limit::import(&site).unwrap();
    site.cli_json(&["limit", "set", "core0=40Mbit"]).unwrap();

    // Nothing may be done to it: it stays, and the reason has the numbers.
    let stays = ["migrate", "busy", "--to", "b-1", "--disruption", "none", "--compress", "off"];
    let stayed = site.cli_outcome(&stays).unwrap();
    assert_eq!(stayed["phase"], "rolled_back", "{stayed:#}");
    let reason = stayed["reason"].as_str().unwrap();
    assert!(reason.contains("does not converge") && reason.contains("ms"), "{reason}");
    lab.heartbeats().wait_beat("busy", CHECK).unwrap();
    assert_eq!(lab.heartbeats().host_of("busy").as_deref(), Some("a-1"));

    // It may be stopped for as long as it takes: it arrives.
    let goes = ["migrate", "busy", "--to", "b-1", "--disruption", "allow", "--compress", "off"];
    let gone = site.cli_json(&goes).unwrap();
    assert_eq!(gone["phase"], "done", "{gone:#}");
    assert!(gone["blackout_ms"].as_u64().unwrap() > 300, "it did converge: {gone:#}");
    lab.heartbeats().check(&["busy"], CHECK).unwrap();
    lab.heartbeats().assert_healthy().unwrap();
    drop(site);
    drop(lab);
    leak::assert_nothing_left(&prefix, &folder).unwrap();
}
