//! The lab tests itself with stock QEMU: what it measures must be right before it judges anything else.

use std::time::{Duration, Instant};

use rackferry_tests::baseline::{self, Options, Stock};
use rackferry_tests::rate::Rate;
use rackferry_tests::vm::VmDef;
use rackferry_tests::{Lab, Topology, leak, runs_here};

const BOOT: Duration = Duration::from_secs(120);
const BEAT: Duration = Duration::from_secs(5);
const CHECK: Duration = Duration::from_secs(60);

#[test]
fn guests_boot_beat_and_check_their_memory() {
    if !runs_here("guests_boot_beat_and_check_their_memory") {
        return;
    }
    let lab = Lab::up(&Topology { hosts_per_rack: 2 }).unwrap();
    lab.core().shape(Rate::gbit(1)).unwrap();
    let defs = [VmDef::named("web-1"), VmDef::named("web-2")];
    let places = [lab.host("a", 1).clone(), lab.host("b", 2).clone()];
    let vms: Vec<_> = places.into_iter().zip(defs).collect();
    let vms = lab.boot(&vms, 2, BOOT).unwrap();
    lab.heartbeats().wait_beat("web-2", BEAT).unwrap();
    lab.heartbeats().check(&["web-1", "web-2"], CHECK).unwrap();
    assert_eq!(lab.heartbeats().host_of("web-2").as_deref(), Some("b-2"));
    drop(vms);
}

#[test]
fn stock_qemu_moves_two_guests_over_a_shaped_core_and_nothing_is_left() {
    if !runs_here("stock_qemu_moves_two_guests_over_a_shaped_core_and_nothing_is_left") {
        return;
    }
    let lab = Lab::up(&Topology { hosts_per_rack: 2 }).unwrap();
    lab.core().shape(Rate::gbit(1)).unwrap();
    let (prefix, folder) = (lab.prefix().to_string(), lab.folder().to_path_buf());
    let names = ["web-1", "web-2"];
    let places: Vec<_> = lab.rack("a").cloned().zip(names.map(VmDef::named)).collect();
    let vms = lab.boot(&places, 2, BOOT).unwrap();
    let moves = vms.into_iter().zip(lab.rack("b").cloned()).collect();
    let start = Instant::now();

    let (vms, outcome) = baseline::evacuate(&lab, moves, Options::new(Stock::Precopy)).unwrap();

    outcome.all_completed().unwrap();
    for (vm, host) in names.iter().zip(["b-1", "b-2"]) {
        lab.heartbeats().wait_beat(vm, BEAT).unwrap();
        let log = lab.heartbeats().log(vm);
        let [handover] = log.handovers()[..] else { panic!("{vm} changed QEMUs once") };
        assert_eq!(lab.heartbeats().host(handover.first), host);
        assert!(handover.last.number < handover.first.number);
        assert!(log.longest_gap(start) >= handover.blackout(Duration::ZERO));
    }
    let sent: u64 = outcome.moves.iter().map(|vm| vm.transferred).sum();
    assert!(sent > 2 * 128 << 20, "each guest holds 128 MiB of files: {sent}");
    assert!(outcome.core.forward > sent, "the link carries headers too: {outcome:?}");
    assert!(outcome.core.forward < sent + sent / 10, "and little else: {outcome:?}");
    let rate = outcome.core.forward as f64 * 8.0 / outcome.seconds;
    assert!(rate < 1.02e9, "the core is shaped to 1 Gbit/s: {rate}");
    lab.heartbeats().check(&names, CHECK).unwrap();

    drop(vms);
    drop(lab);
    leak::assert_nothing_left(&prefix, &folder).unwrap();
}
