//! Real guests under a limit of the core link, paused and resumed evacuations, cordoned hosts.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

use std::time::Duration;

use rackferry_tests::lab::rate::Rate;
use rackferry_tests::lab::site::{Settings, Site};
use rackferry_tests::lab::vm::VmDef;
use rackferry_tests::{Lab, Topology, bench::limit, leak, runs_here};
use serde_json::Value;

const BOOT: Duration = Duration::from_secs(300);
const CHECK: Duration = Duration::from_secs(120);
/// Mbit/s; two moves need more than half of it each by the coordinator's built-in minimum.
const LIMIT: u64 = 60;

fn core0(site: &Site<'_>) -> Value {
    site.cli_json(&["limit", "show"]).unwrap()["links"][0].clone()
}

#[test]
fn guests_move_within_a_limit_wait_while_paused_and_avoid_cordoned_hosts() {
    if !runs_here("guests_move_within_a_limit_wait_while_paused_and_avoid_cordoned_hosts") {
        return;
    }
    let lab = Lab::up(&Topology::of(2)).unwrap();
    let (prefix, folder) = (lab.prefix().to_string(), lab.folder().to_path_buf());
    lab.core().shape(Rate::gbit(1)).unwrap();
    let site = Site::up(&lab, Settings::default()).unwrap();
    let names = ["web-1", "web-2", "web-3"];
    let defs = names.map(|name| VmDef::named(name).memory_mib(128));
    let hosts: Vec<_> = lab.rack("a").cloned().collect();
    let places: Vec<_> = hosts.into_iter().cycle().zip(defs).collect();
    site.boot(&places, 3, BOOT).unwrap();
    assert_eq!(
        site.cli_code(&["limit", "set", "core0=60Mbit"]).unwrap(),
        Some(2),
        "no inventory, no links"
    );
    limit::import(&site).unwrap();
    let shown = site.cli_json(&["inventory", "show"]).unwrap();
    assert_eq!(shown["summary"]["hosts"], 4, "{shown:#}");
    assert_eq!(shown["strangers"], Value::Array(vec![]), "{shown:#}");

    // A limit that lets one move at a time, and one that is turned away before it starts.
    let limit = format!("core0={LIMIT}Mbit");
    site.cli_json(&["limit", "set", &limit]).unwrap();
    site.cli_json(&["cordon", "b-2"]).unwrap();
    assert_eq!(site.cli_code(&["migrate", "web-1", "--to", "b-2"]).unwrap(), Some(3));
    let start = ["evacuate", "a", "--to", "b", "--verify", "--yes", "--detach"];
    let id = site.cli_json(&start).unwrap()["id"].as_str().unwrap().to_owned();
    let paused = site.cli_json(&["pause", &id]).unwrap();
    assert_eq!(paused["state"], "paused", "{paused:#}");
    let waiting = |status: &Value| -> Vec<String> {
        let vms = status["vms"].as_array().unwrap().iter();
        let queued = vms.filter(|vm| vm["phase"] == "queued");
        queued.map(|vm| vm["wait_reason"]["code"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(waiting(&paused), ["evacuation_paused"; 2], "{paused:#}");
    let link = core0(&site);
    assert_eq!(link["forth"]["moves"], 1, "{link:#}");
    assert!(link["forth"]["allotted_bytes_per_second"].as_u64().unwrap() <= LIMIT * 125_000);
    let resumed = site.cli_json(&["resume", &id]).unwrap();
    assert_eq!(resumed["state"], "running", "{resumed:#}");
    assert!(waiting(&resumed).iter().all(|code| code == "link_full"), "{resumed:#}");
    site.cli_json(&["limit", "set", "core0=off"]).unwrap();
    let end = site.cli_json(&["status", "--watch", &id]).unwrap();
    assert_eq!(end["state"], "done", "{end:#}");
    for vm in end["vms"].as_array().unwrap() {
        assert_eq!(vm["target_host"], "b-1", "{vm:#}");
    }
    assert_eq!(site.cli_code(&["pause", &id]).unwrap(), Some(3), "it has ended");

    site.cli_json(&["uncordon", "b"]).unwrap();
    let moved = site.cli_json(&["migrate", "web-1", "--to", "b-2"]).unwrap();
    assert_eq!(moved["phase"], "done", "{moved:#}");
    lab.heartbeats().check(&names, CHECK).unwrap();
    lab.heartbeats().assert_healthy().unwrap();
    drop(site);
    drop(lab);
    leak::assert_nothing_left(&prefix, &folder).unwrap();
}
