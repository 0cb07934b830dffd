//! Rackferry moves real guests: every page arrives, nobody is lost.

use std::time::Duration;

use rackferry_tests::rate::Rate;
use rackferry_tests::site::{Settings, Site};
use rackferry_tests::vm::VmDef;
use rackferry_tests::{Lab, Topology, runs_here};

const BOOT: Duration = Duration::from_secs(120);
const CHECK: Duration = Duration::from_secs(60);

#[test]
fn two_guests_move_byte_for_byte() {
    if !runs_here("two_guests_move_byte_for_byte") {
        return;
    }
    let lab = Lab::up(&Topology { hosts_per_rack: 2 }).unwrap();
    lab.core().shape(Rate::gbit(1)).unwrap();
    let site = Site::up(&lab, Settings::default()).unwrap();
    let names = ["web-1", "web-2"];
    let places: Vec<_> = lab.rack("a").cloned().zip(names.map(VmDef::named)).collect();
    site.boot(&places, 2, BOOT).unwrap();

    let result = site.cli_json(&["evacuate", "a", "--to", "b", "--verify", "--yes"]).unwrap();

    println!("{result:#}");
    println!("{:?}", lab.core().bytes().unwrap());
    lab.heartbeats().check(&names, CHECK).unwrap();
    for vm in names {
        assert!(lab.heartbeats().host_of(vm).unwrap().starts_with("b-"));
        assert!(lab.heartbeats().log(vm).two_copies().is_none());
    }
}
