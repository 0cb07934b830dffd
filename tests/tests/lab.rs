//! The lab tests itself with stock QEMU: what it measures must be right before it judges anything else.

use std::time::Duration;

use rackferry_tests::rate::Rate;
use rackferry_tests::vm::VmDef;
use rackferry_tests::{Lab, Topology};

const BOOT: Duration = Duration::from_secs(120);

#[test]
fn guests_boot_beat_and_check_their_memory() {
    if !rackferry_tests::runs_here("guests_boot_beat_and_check_their_memory") {
        return;
    }
    let lab = Lab::up(&Topology { hosts_per_rack: 2 }).unwrap();
    lab.core().shape(Rate::gbit(1)).unwrap();
    let defs = [VmDef::named("web-1"), VmDef::named("web-2")];
    let places = [lab.host("a", 1).clone(), lab.host("b", 2).clone()];
    let vms: Vec<_> = places.into_iter().zip(defs).collect();
    let vms = lab.boot(&vms, 2, BOOT).unwrap();
    lab.heartbeats().wait_beat("web-2", Duration::from_secs(5)).unwrap();
    lab.heartbeats().check(&["web-1", "web-2"], Duration::from_secs(60)).unwrap();
    assert_eq!(lab.heartbeats().host_of("web-2").as_deref(), Some("b-2"));
    drop(vms);
}
