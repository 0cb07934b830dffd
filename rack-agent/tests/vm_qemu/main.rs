//! The VMs of a host with real QEMU, of both versions where they are installed.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests as well")]

mod disk;
mod host;
#[path = "../qemus/mod.rs"]
mod qemus;
mod user;

use std::time::Duration;

use disk::Image;
use host::{Host, eventually, guest_pages, spec};
use qemus::qemus;
use rackferry_agent::vm::{
    Act, Mark, MigrationId, Role, Side, Standing, VmError, VmSpec, VmState, VmSummary, What,
    Writing,
};
use rackferry_migrator::memory::MemoryDigest;
use rackferry_migrator::qmp::{Event, Qmp, QmpError, Rest, SourceCaps, Valve};
use rustix::process::Signal;

const LIMIT: Duration = Duration::from_secs(30);
const KEY: [u8; 32] = [3; 32];

fn discard(migration: u64) -> Act {
    Act { migration: MigrationId(migration), what: What::Discard }
}

fn release(migration: u64) -> Act {
    Act { migration: MigrationId(migration), what: What::Release }
}

fn leaves(migration: u64, generation: u64) -> Mark {
    Mark { migration: MigrationId(migration), generation, side: Side::Source }
}

#[tokio::test]
async fn a_vm_starts_is_listed_and_its_death_is_told() {
    for (version, qemu) in qemus() {
        let host = Host::open(&qemu, 100 << 20).await;
        let vms = &host.vms;
        let vm = vms.start(spec("a", ""), 7).await.unwrap();
        let listed = vms.list().await.remove(0);
        assert!(listed.qemu_version.starts_with(version), "{}", listed.qemu_version);
        assert_eq!((listed.run_state, listed.standing.generation), (VmState::Running, 7));
        assert_eq!(listed.memory_bytes, 64 << 20);
        assert!(listed.machine.starts_with(&format!("pc-q35-{version}")), "{}", listed.machine);
        assert!(VmSpec::parse(&listed.spec_toml).unwrap().machine() == listed.machine);
        assert_eq!(vms.memory_free_bytes(), 36 << 20);
        let pid = vm.process().unwrap().id().pid;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert!(status.contains("Seccomp:\t2\n"), "it is confined: {status}");
        // As a QEMU in foreign hands would, to kill its agent.
        let shorter = rustix::fs::ftruncate(vm.memory().unwrap(), 1 << 20);
        assert_eq!(shorter, Err(rustix::io::Errno::PERM), "its memory's size is sealed");
        assert!(matches!(vms.start(spec("a", ""), 1).await, Err(VmError::Exists { .. })));
        let full = vms.start(spec("b", ""), 1).await;
        assert!(matches!(full, Err(VmError::NoMemory { free, .. }) if free == 36 << 20));
        vm.write(Writing::Marked(leaves(1, 8))).await.unwrap();
        let refused = vms.act(&release(1)).await;
        assert!(matches!(refused, Err(VmError::Refused(_))), "it runs: {refused:?}");
        assert!(!vms.act(&discard(1)).await.unwrap(), "it does not arrive");
        assert!(!vms.act(&release(2)).await.unwrap(), "it leaves with another migration");

        let mut changes = vms.changes();
        changes.mark_unchanged();
        host.kill_9(vm.process().unwrap().id().pid);
        tokio::time::timeout(LIMIT, vm.died()).await.unwrap();
        changes.changed().await.unwrap();
        assert_eq!(vms.list().await[0].run_state, VmState::Dead);
        assert_eq!(vms.memory_free_bytes(), 100 << 20);
        tokio::time::timeout(LIMIT, vm.qmp().closed()).await.unwrap();
        assert!(vms.act(&release(1)).await.unwrap());
        assert!(!vms.act(&release(1)).await.unwrap());
        assert!(vms.list().await.is_empty());
        assert!(!vm.dir().path().exists());
    }
}

/// Writes to the power management of q35 as ACPI's `_S5` says: a boot sector that switches the machine off.
const POWERS_OFF: [u8; 10] = [0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef, 0xf4, 0xeb, 0xfd];

#[tokio::test]
async fn a_guest_that_powers_itself_off_is_told_from_a_qemu_that_dies() {
    for (_, qemu) in qemus() {
        let host = Host::open(&qemu, 1 << 30).await;
        let disk = host.path().join("off.img");
        let mut sector = vec![0; 1 << 20];
        sector[..POWERS_OFF.len()].copy_from_slice(&POWERS_OFF);
        sector[510..512].copy_from_slice(&[0x55, 0xaa]);
        std::fs::write(&disk, sector).unwrap();
        let text = format!("[[disk]]\npath = {disk:?}");
        let off = host.vms.start(spec("off", &text), 1).await.unwrap();
        let dies = host.vms.start(spec("dies", ""), 1).await.unwrap();
        tokio::time::timeout(LIMIT, off.died()).await.unwrap();
        host.kill_9(dies.process().unwrap().id().pid);
        tokio::time::timeout(LIMIT, dies.died()).await.unwrap();
        assert_eq!((off.powered_off(), dies.powered_off()), (true, false));
        let listed = host.vms.list().await;
        let told: Vec<_> = listed.iter().map(|vm| (vm.run_state, vm.powered_off)).collect();
        assert_eq!(told, [(VmState::Dead, false), (VmState::Dead, true)]);
    }
}

#[tokio::test]
async fn a_qemu_that_does_not_start_leaves_nothing() {
    for (_, qemu) in qemus() {
        let host = Host::open(&qemu, 1 << 30).await;
        let bad = spec("bad", "extra_args = ['-device', 'no-such-device']");
        match host.vms.start(bad, 1).await {
            Err(VmError::EndedAtOnce { log, .. }) => {
                assert!(log.contains("no-such-device"), "{log}")
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(host.vms.memory_free_bytes(), 1 << 30);
        assert!(host.leftovers().is_empty(), "{:?}", host.leftovers());
        host.vms.start(spec("bad", ""), 1).await.unwrap();
    }
}

/// After its host lost its power: what never ran may go on at its source, what may have run must not.
#[tokio::test]
async fn what_died_says_whether_it_may_have_run() {
    for (_, qemu) in qemus() {
        let mut host = Host::open(&qemu, 1 << 30).await;
        let installation = host.vms.installation().to_owned();
        let came = host.vms.prepare_incoming(spec("came", ""), MigrationId(1), 9).await.unwrap();
        let comes = host.vms.prepare_incoming(spec("comes", ""), MigrationId(2), 9).await.unwrap();
        came.write(Writing::AboutToRun).await.unwrap();
        let seen = |list: Vec<VmSummary>| {
            let one = |vm: VmSummary| (vm.name, vm.run_state, vm.may_have_run);
            list.into_iter().map(one).collect::<Vec<_>>()
        };
        let listed =
            |state, ran| vec![("came".to_owned(), state, ran), ("comes".to_owned(), state, false)];
        // This agent knows that it has let neither run.
        assert_eq!(seen(host.vms.list().await), listed(VmState::Incoming, false));
        let pids = [&came, &comes].map(|vm| vm.process().unwrap().id().pid);
        drop((came, comes));
        host.close().await;
        pids.iter().for_each(|&pid| host.kill_9(pid));

        assert_eq!(host.reopen().await.dead.len(), 2);
        assert_eq!(host.vms.installation(), installation);
        assert_eq!(seen(host.vms.list().await), listed(VmState::Dead, true));
        assert!(matches!(host.vms.forget("came").await, Err(VmError::NotDead { .. })));
        let keep = Act { migration: MigrationId(1), what: What::KeepDead(9) };
        assert!(host.vms.act(&keep).await.unwrap());
        assert_eq!(host.vms.list().await[0].standing, Standing::owned(9));
        assert!(host.vms.act(&discard(2)).await.unwrap());
        host.vms.forget("came").await.unwrap();
        assert!(host.vms.list().await.is_empty());
        assert_eq!(host.vms.memory_free_bytes(), 1 << 30);
    }
}

#[tokio::test]
async fn vms_survive_the_agent_and_are_adopted() {
    for (_, qemu) in qemus() {
        let mut host = Host::open(&qemu, 1 << 30).await;
        let running = host.vms.start(spec("running", ""), 5).await.unwrap();
        let arriving =
            host.vms.prepare_incoming(spec("arriving", ""), MigrationId(1), 9).await.unwrap();
        let doomed = host.vms.start(spec("doomed", ""), 1).await.unwrap();
        let mark = leaves(2, 6);
        running.write(Writing::Marked(mark)).await.unwrap();
        running.memory().unwrap().write_page(9000, &[9; 4096]).unwrap();
        let pid = running.process().unwrap().id().clone();
        let doomed_pid = doomed.process().unwrap().id().pid;
        drop((running, arriving, doomed));
        host.close().await;
        host.kill_9(doomed_pid);

        let adoption = host.reopen().await;
        let mut adopted = adoption.adopted;
        adopted.sort();
        assert_eq!(adopted, ["arriving", "running"]);
        assert_eq!(adoption.dead.len(), 1);
        assert_eq!(adoption.dead[0].name, "doomed");
        assert!(adoption.unreachable.is_empty(), "{:?}", adoption.unreachable);
        let list = host.vms.list().await;
        assert_eq!(list[0].run_state, VmState::Incoming);
        let dead = (list[1].name.as_str(), list[1].run_state, list[1].spec_toml.is_empty());
        assert_eq!(dead, ("doomed", VmState::Dead, false));
        assert_eq!(list[2].run_state, VmState::Running);
        let standing = Standing { mark: Some(mark), ..Standing::owned(5) };
        assert_eq!(list[2].standing, standing);
        assert_eq!(host.vms.memory_free_bytes(), (1 << 30) - (128 << 20));
        let running = host.vms.get("running").unwrap();
        assert_eq!(*running.process().unwrap().id(), pid);
        let mut page = [0; 4096];
        running.memory().unwrap().read_page(9000, &mut page).unwrap();
        assert_eq!(page, [9; 4096]);

        // QEMU's monitor has one client.
        drop(running);

        // What died is its operator's to start again, or to remove.
        let restarted = host.vms.start(spec("doomed", ""), 1).await.unwrap();
        assert_eq!(restarted.run_state().await, VmState::Running);
        drop(restarted);
        host.vms.destroy("doomed", false).await.unwrap();
        // The coordinator is to hear of it, also from the next agent.
        host.vms.destroy("doomed", false).await.unwrap();
        host.close().await;
        host.reopen().await;
        let list = host.vms.list().await;
        let dead = (list[1].name.as_str(), list[1].run_state, list[1].standing.destroyed);
        assert_eq!(dead, ("doomed", VmState::Dead, true));
        assert!(list[1].may_have_run);
        host.vms.forget("doomed").await.unwrap();
        assert_eq!(host.vms.list().await.len(), 2);

        assert!(!host.vms.act(&discard(0)).await.unwrap());
        let again = host.vms.prepare_incoming(spec("arriving", ""), MigrationId(1), 9).await;
        assert!(again.is_ok(), "it is there already: {again:?}");
        let other = host.vms.prepare_incoming(spec("arriving", ""), MigrationId(3), 9).await;
        assert!(matches!(other, Err(VmError::Exists { .. })), "{other:?}");
        assert!(host.vms.act(&discard(1)).await.unwrap());
        assert!(!host.vms.act(&discard(1)).await.unwrap());
        let refused = host.vms.destroy("running", false).await;
        assert!(matches!(refused, Err(VmError::InMigration { .. })), "{refused:?}");
        host.vms.destroy("running", true).await.unwrap();
        assert!(host.leftovers().is_empty(), "{:?}", host.leftovers());
    }
}

/// The agent was killed after it started QEMU and before it wrote the pid down.
#[tokio::test]
async fn a_qemu_nobody_wrote_down_is_found() {
    for (_, qemu) in qemus() {
        let mut host = Host::open(&qemu, 1 << 30).await;
        let vm = host.vms.start(spec("lost", ""), 1).await.unwrap();
        let pid = vm.process().unwrap().id().clone();
        vm.qmp().stop().await.unwrap();
        let mut status = vm.status();
        status.process = None;
        vm.dir().write_status(&status).unwrap();
        drop(vm);
        host.close().await;
        let adoption = host.reopen().await;
        assert_eq!(adoption.adopted, ["lost"]);
        let vm = host.vms.get("lost").unwrap();
        assert_eq!(*vm.process().unwrap().id(), pid);
        assert_eq!(vm.dir().read_status().unwrap().process, Some(pid));
        assert_eq!(vm.run_state().await, VmState::Paused);
        assert!(vm.memory().is_some());
    }
}

#[tokio::test]
async fn a_vm_of_somebody_else_is_attached_to() {
    for (version, qemu) in qemus() {
        let mut host = Host::open(&qemu, 1 << 30).await;
        let socket = host.path().join("other.sock");
        let other = host.foreign_qemu(&qemu, &socket).await;
        let text = format!("attach = {{ qmp = {socket:?} }}");
        let wrong = VmSpec::parse(&format!("name = 'o'\nmemory = '32MiB'\n{text}")).unwrap();
        let refused = host.vms.start(wrong, 1).await;
        assert!(
            matches!(refused, Err(VmError::MemoryDiffers { actual, .. }) if actual == 64 << 20)
        );
        let vm = host.vms.start(spec("other", &text), 2).await.unwrap();
        assert_eq!(vm.process().unwrap().id().pid, other);
        assert!(vm.memory().is_none());
        assert!(vm.spec().machine().contains(version));
        drop(vm);
        host.close().await;
        assert_eq!(host.reopen().await.adopted, ["other"]);
        let vm = host.vms.get("other").unwrap();
        assert_eq!(vm.run_state().await, VmState::Running);
        host.vms.destroy("other", false).await.unwrap();
        assert!(vm.is_dead() || eventually(|| vm.is_dead()).await);
    }
}

#[tokio::test]
async fn giving_up_on_a_command_leaves_the_monitor_usable() {
    for (_, qemu) in qemus() {
        let host = Host::open(&qemu, 1 << 30).await;
        let vm = host.vms.start(spec("a", ""), 1).await.unwrap();
        let qmp = vm.qmp();
        for _ in 0..20 {
            let hasty = qmp.within(Duration::from_nanos(1)).run_state().await;
            assert!(!matches!(hasty, Err(QmpError::Closed { .. })), "{hasty:?}");
        }
        let mut events = qmp.events();
        qmp.stop().await.unwrap();
        assert_eq!(events.recv().await.unwrap().event, Event::Stop);
        qmp.cont().await.unwrap();
        assert_eq!(events.recv().await.unwrap().event, Event::Resume);
        // Its monitor is held by us.
        let second = Qmp::connect_within(qmp.path(), Duration::from_millis(200)).await;
        assert!(matches!(second, Err(QmpError::NoGreeting { .. })), "{second:?}");
    }
}

/// A stock migration between two of our VMs, stream straight from QEMU to QEMU.
#[tokio::test]
async fn a_vm_moves_with_all_its_memory() {
    for (from, source_qemu) in qemus() {
        for (to, target_qemu) in qemus() {
            if from <= to || from == "7.2" {
                println!("{from} -> {to}");
                let source = Host::open(&source_qemu, 1 << 30).await;
                let mut target = Host::open(&target_qemu, 1 << 30).await;
                migrate(&source, &mut target).await;
            }
        }
    }
}

async fn migrate(source: &Host, target: &mut Host) {
    let shared = tempfile::tempdir().unwrap();
    let disks = Image::all(shared.path(), &[]);
    let more = disks.each_ref().map(Image::spec).concat();
    let mover = spec("mover", &format!("machine = 'pc-q35-7.2'\n{more}"));
    let vm = source.vms.start(mover, 1).await.unwrap();
    let qmp = vm.qmp();
    let facts = qmp.check_can_migrate().await.unwrap();
    assert_eq!(facts.memory_bytes, 64 << 20);
    assert_eq!(facts.machine, "pc-q35-7.2");
    let ack = facts.version.at_least(8, 1);
    assert_eq!(facts.valve == Valve::SwitchoverAck, ack);
    guest_pages(&vm.memory().unwrap());
    vm.write(Writing::Marked(leaves(4, 2))).await.unwrap();

    let arrival = target.vms.prepare_incoming(vm.spec().clone(), MigrationId(4), 2).await.unwrap();
    let caps = SourceCaps {
        valve: Valve::DowntimeLimit,
        rest: Rest::Millis(1),
        multifd_channels: None,
        auto_converge: false,
    };
    qmp.prepare_source(caps).await.unwrap();
    let mut events = qmp.events();
    let leaves = vm.departure_socket();
    let listener = leaves.listen().unwrap();
    qmp.migrate(&leaves.qemu_path).await.unwrap();
    // No QEMU reaches the folder of another one: what passes between them the agents carry.
    let arrives = arrival.arrival_socket();
    let carrier = tokio::spawn(async move {
        let (mut from, _) = listener.accept().await.unwrap();
        let mut to = arrives.connect().await.unwrap();
        // Each QEMU closes its end in its own way.
        let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
    });
    qmp.allow_rest(Rest::Millis(2000)).await.unwrap();
    arrival.qmp().wait_loaded(LIMIT).await.unwrap();
    qmp.wait_moved_out(LIMIT).await.unwrap();
    carrier.await.unwrap();
    assert_eq!(vm.run_state().await, VmState::MovedOut);
    assert_eq!(arrival.run_state().await, VmState::Loaded);
    let mut stopped = false;
    while let Ok(event) = events.try_recv() {
        stopped |= event.event == Event::Stop && event.sent_at_us > 0;
    }
    assert!(stopped, "no STOP event");
    let info = qmp.migration_status().await.unwrap();
    assert!(info.downtime.is_some() && info.ram.unwrap().transferred > 0);
    let digest = |vm: &rackferry_agent::vm::Vm| -> MemoryDigest {
        vm.memory().unwrap().digest_all(&KEY, 2).unwrap()
    };
    assert_eq!(digest(&vm), digest(&arrival));

    arrival.qmp().cont().await.unwrap();
    arrival.qmp().announce_self().await.unwrap();
    // The disks are the target's now.
    for disk in &disks {
        let taken = source.vms.start(spec("third", &disk.spec()), 1).await;
        assert!(matches!(taken, Err(VmError::EndedAtOnce { .. })), "{taken:?}");
    }
    // The agent is killed before it writes down that it owns the VM now.
    drop(arrival);
    target.close().await;
    assert_eq!(target.reopen().await.adopted, ["mover"]);
    assert!(source.vms.act(&release(4)).await.unwrap());
    assert!(source.leftovers().is_empty(), "{:?}", source.leftovers());
    let listed = target.vms.list().await.remove(0);
    let standing = Standing::owned(2);
    assert_eq!((listed.run_state, listed.standing), (VmState::Running, standing));
}

/// A QEMU that does not answer a new agent may run: it does not count as gone, and no order removes it.
#[tokio::test]
async fn a_vm_that_does_not_answer_is_unknown_until_it_does() {
    for (_, qemu) in qemus().into_iter().take(1) {
        let mut host = Host::open(&qemu, 1 << 30).await;
        let vm = host.vms.prepare_incoming(spec("deaf", ""), MigrationId(5), 3).await.unwrap();
        let pid = vm.process().unwrap().id().pid;
        drop(vm);
        host.close().await;
        host.signal(pid, Signal::STOP);
        let adoption = host.reopen().await;
        assert_eq!(adoption.unreachable.len(), 1, "{:?}", adoption.adopted);
        let listed = host.vms.list().await.remove(0);
        assert_eq!((listed.run_state, listed.standing.role), (VmState::Unknown, Role::Incoming));
        assert_eq!(listed.standing.mark.map(|mark| mark.migration), Some(MigrationId(5)));
        assert_eq!(host.vms.memory_free_bytes(), (1 << 30) - (64 << 20));
        let discarded = host.vms.act(&discard(5)).await;
        assert!(matches!(discarded, Err(VmError::Unreachable { .. })), "{discarded:?}");
        host.signal(pid, Signal::CONT);
        assert!(eventually(|| host.vms.get("deaf").is_ok()).await);
        assert_eq!(host.vms.list().await[0].run_state, VmState::Incoming);
        assert!(host.vms.act(&discard(5)).await.unwrap());
        assert!(host.leftovers().is_empty(), "{:?}", host.leftovers());
    }
}

/// The session that read the stream is gone: the VM must run on at its source, also for a new agent.
#[tokio::test]
async fn a_cut_migration_leaves_the_vm_running() {
    for (_, qemu) in qemus() {
        let mut host = Host::open(&qemu, 1 << 30).await;
        let vm = host.vms.start(spec("stays", ""), 1).await.unwrap();
        let socket = vm.departure_socket();
        let listener = socket.listen().unwrap();
        let caps = SourceCaps {
            valve: Valve::DowntimeLimit,
            rest: Rest::Millis(1),
            multifd_channels: None,
            auto_converge: false,
        };
        vm.qmp().prepare_source(caps).await.unwrap();
        vm.qmp().migrate(&socket.qemu_path).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let busy = vm.qmp().check_can_migrate().await;
        assert!(matches!(busy, Err(QmpError::Blocked { .. })), "{busy:?}");
        drop(vm);
        host.close().await;
        let reopened = tokio::spawn(async move {
            let adoption = host.reopen().await;
            (host, adoption)
        });
        drop((stream, listener));
        let (host, adoption) = reopened.await.unwrap();
        assert_eq!(adoption.adopted, ["stays"], "{:?}", adoption.unreachable);
        let vm = host.vms.get("stays").unwrap();
        assert_eq!(vm.run_state().await, VmState::Running);
        vm.qmp().check_can_migrate().await.unwrap();
    }
}
