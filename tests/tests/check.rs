//! What keeps a VM from moving is found before it is tried, and a refused evacuation changes nothing.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

use rackferry_tests::image::Qemu;
use rackferry_tests::lab::site::{Settings, Site};
use rackferry_tests::{Lab, Topology, runs_here};
use serde_json::Value;

/// Exit code and answer.
fn ask(site: &Site<'_>, arguments: &[&str]) -> (Option<i32>, Value) {
    let output = site.cli(&[arguments, &["--output", "json"]].concat()).unwrap();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
}

fn spec(name: &str, more: &str) -> String {
    format!("name = '{name}'\nmemory = '64MiB'\n{more}")
}

/// Rack a runs QEMU 10.0, rack b 7.2.
#[test]
fn what_blocks_a_move_is_told_before_it() {
    if !runs_here("what_blocks_a_move_is_told_before_it") {
        return;
    }
    let lab = Lab::up(&Topology::of(1)).unwrap();
    let settings = Settings { qemu: [Qemu::V10_0, Qemu::V7_2], ..Settings::default() };
    let site = Site::up(&lab, settings).unwrap();
    let (a, b) = (lab.host("a", 1), lab.host("b", 1));
    let disk = lab.folder().join("disk.img");
    std::fs::write(&disk, vec![0; 1 << 20]).unwrap();
    let with_disk = format!("machine = 'pc-q35-7.2'\n[[disk]]\npath = '{}'", disk.display());
    site.start_spec(a, "new", &spec("new", "machine = 'q35'")).unwrap();
    site.start_spec(a, "old", &spec("old", &with_disk)).unwrap();
    site.start_spec(b, "there", &spec("there", "")).unwrap();
    // All that an emulated CPU can do, which is more in 10.0.
    let most = "machine = 'pc-q35-7.2'\ncpu = 'max'";
    site.start_spec(a, "most", &spec("most", most)).unwrap();
    site.wait_listed(&["most", "new", "old", "there"]).unwrap();

    let (code, all) = ask(&site, &["check", "a", "--to", "b"]);
    assert_eq!(code, Some(3), "{all:#}");
    let (most, new, old) = (&all["vms"][0], &all["vms"][1], &all["vms"][2]);
    assert_eq!((&most["vm"], &most["can_move"]), (&"most".into(), &false.into()), "{all:#}");
    let findings = most["targets"][0]["findings"].as_array().unwrap();
    let lacks = findings.iter().find(|finding| finding["code"] == "cpu_features");
    let cause = lacks.unwrap()["cause"].as_str().unwrap();
    assert!(cause.contains("would lack") && cause.contains("cmpccxadd"), "{cause}");
    let (code, refused) = ask(&site, &["migrate", "most", "--to", "b-1"]);
    assert_eq!(code, Some(3), "{refused:#}");
    assert!(refused["error"].as_str().unwrap().contains("would lack"), "{refused:#}");
    assert_eq!((&new["vm"], &new["can_move"]), (&"new".into(), &false.into()), "{all:#}");
    let finding = &new["targets"][0]["findings"][0];
    assert_eq!(finding["code"], "machine_type");
    let cause = finding["cause"].as_str().unwrap();
    assert!(cause.contains("pc-q35-10.0") && cause.contains("7.2"), "{cause}");
    assert_eq!((&old["vm"], &old["can_move"]), (&"old".into(), &true.into()), "{all:#}");
    assert_eq!(old["targets"][0]["findings"][0]["code"], "qemu_older", "a warning: {all:#}");

    // Nothing moves if one of them cannot.
    let (code, refused) = ask(&site, &["evacuate", "a", "--to", "b", "--yes"]);
    assert_eq!(code, Some(3), "{refused:#}");
    assert!(refused["error"].as_str().unwrap().contains("pc-q35-10.0"), "{refused:#}");
    let (_, list) = ask(&site, &["vm", "list", "--rack", "a"]);
    assert!(list["vms"].as_array().unwrap().iter().all(|vm| vm["ownership"] == "stable"), "{list}");

    // The one that can does, until its disk is away: QEMU has it open, the target could not.
    std::fs::remove_file(&disk).unwrap();
    let (code, refused) = ask(&site, &["migrate", "old", "--to", "b-1"]);
    assert_eq!(code, Some(3), "{refused:#}");
    assert!(refused["error"].as_str().unwrap().contains("disk.img"), "{refused:#}");
    std::fs::write(&disk, vec![0; 1 << 20]).unwrap();
    let (code, moved) = ask(&site, &["migrate", "old", "--to", "b-1"]);
    assert_eq!((code, &moved["phase"]), (Some(0), &"done".into()), "{moved:#}");

    let (code, names) = ask(&site, &["check", "unknown"]);
    assert_eq!(code, Some(2), "{names:#}");
    site.destroy_vm(a, "most").unwrap();
    site.destroy_vm(a, "new").unwrap();
    site.destroy_vm(b, "old").unwrap();
    site.destroy_vm(b, "there").unwrap();
}
