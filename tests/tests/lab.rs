//! The lab tests itself with stock QEMU: what it measures must be right before it judges anything else.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use rackferry_tests::bench::baseline::{self, Options, Stock};
use rackferry_tests::image::Qemu;
use rackferry_tests::lab::rate::Rate;
use rackferry_tests::lab::vm::{Profile, VmDef};
use rackferry_tests::{Lab, Topology, leak, runs_here};

const BOOT: Duration = Duration::from_secs(300);
const BEAT: Duration = Duration::from_secs(5);
const CHECK: Duration = Duration::from_secs(60);

#[test]
fn guests_of_both_qemus_boot_beat_and_check_their_memory() {
    if !runs_here("guests_of_both_qemus_boot_beat_and_check_their_memory") {
        return;
    }
    let lab = Lab::up(&Topology::of(2)).unwrap();
    let old = VmDef { qemu: Qemu::V7_2, ..VmDef::named("old").uneven() };
    let new = VmDef::named("new").profile(Profile::Mixed);
    let places = [(lab.host("a", 1).clone(), old), (lab.host("b", 2).clone(), new)];
    let _vms = lab.boot(&places, 2, BOOT).unwrap();
    lab.heartbeats().wait_beat("new", BEAT).unwrap();
    lab.heartbeats().check(&["old", "new"], CHECK).unwrap();
    assert_eq!(lab.heartbeats().host_of("new").as_deref(), Some("b-2"));
}

#[test]
fn a_flipped_bit_in_guest_memory_is_heard_of() {
    if !runs_here("a_flipped_bit_in_guest_memory_is_heard_of") {
        return;
    }
    let lab = Lab::up(&Topology::of(1)).unwrap();
    let def = VmDef::named("frail").memory_mib(128).profile(Profile::Unique);
    let path = lab.folder().join("memory");
    let (size, path_text) = (def.memory_kib(), path.display());
    let memory =
        format!("memory-backend-file,id=pc.ram,share=on,size={size}K,mem-path={path_text}");
    let further = ["-object", &memory, "-machine", "memory-backend=pc.ram"];
    let _vm = lab.start_with(lab.host("a", 1), &def, &further).unwrap();
    lab.heartbeats().wait_ready(&["frail"], BOOT).unwrap();
    lab.heartbeats().check(&["frail"], CHECK).unwrap();

    // Most pages that look random are the guest's own; the rest is the kernel's packed image.
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let mut page = [0; 4096];
    let random = |page: &[u8; 4096]| page.iter().collect::<BTreeSet<_>>().len() == 256;
    let offsets = (0..128 << 20).step_by(4096).filter(|&offset| {
        file.read_exact_at(&mut page, offset).unwrap();
        random(&page)
    });
    let offsets: Vec<u64> = offsets.collect();
    assert!(offsets.len() > 10_000, "64 MiB are random: {} pages", offsets.len());
    for offset in offsets.iter().step_by(offsets.len() / 20) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset + 1000).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], offset + 1000).unwrap();
    }

    let error = lab.heartbeats().check(&["frail"], CHECK).unwrap_err().to_string();
    assert!(error.contains("frail: RF BAD init region 0 page"), "{error}");
}

#[test]
fn stock_qemu_moves_two_guests_over_a_shaped_core_and_nothing_is_left() {
    if !runs_here("stock_qemu_moves_two_guests_over_a_shaped_core_and_nothing_is_left") {
        return;
    }
    let lab = Lab::up(&Topology::of(2)).unwrap();
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
    assert!(sent > 256 << 20, "each guest holds 128 MiB of files: {sent}");
    assert!(outcome.core.forward > sent, "the link carries headers too: {outcome:?}");
    assert!(outcome.core.forward < sent + sent / 10, "and little else: {outcome:?}");
    let rate = outcome.core.forward as f64 * 8.0 / outcome.seconds;
    assert!(rate < 1.02e9, "the core is shaped to 1 Gbit/s: {rate}");
    lab.heartbeats().check(&names, CHECK).unwrap();

    let home = vms.into_iter().zip(lab.rack("a").cloned()).collect();
    let options = Options {
        to_qemu: Some(Qemu::V10_0),
        at_once: Some(1),
        ..Options::new(Stock::MultifdZstd { channels: 2 })
    };
    let (vms, packed) = baseline::evacuate(&lab, home, options).unwrap();
    packed.all_completed().unwrap();
    assert!(packed.core.backward < outcome.core.forward * 2 / 3, "zstd helps: {packed:?}");
    lab.heartbeats().check(&names, CHECK).unwrap();
    assert_eq!(lab.heartbeats().host_of("web-2").as_deref(), Some("a-2"));

    drop(vms);
    drop(lab);
    leak::assert_nothing_left(&prefix, &folder).unwrap();
}
