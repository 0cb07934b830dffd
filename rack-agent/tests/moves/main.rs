//! One VM moves between two agents with real QEMU; the coordinator is played by the test.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests as well")]

mod hung;
mod played;
#[path = "../qemus/mod.rs"]
mod qemus;

use played::{Host, Stream};
use qemus::qemus;
use rackferry_agent::vm::{Standing, VmSpec, VmState};
use rackferry_proto::v1;
use rackferry_proto::v1::connect_request::Message as Up;
use rackferry_proto::v1::connect_response::Message as Down;

const ID: &str = "mig-7";

fn id() -> String {
    ID.to_owned()
}

fn prepare(spec: &str) -> Down {
    Down::PrepareTarget(v1::PrepareTarget {
        migration_id: id(),
        session: 7,
        vm: "mover".to_owned(),
        generation: 2,
        spec_toml: spec.to_owned(),
        memory_bytes: 64 << 20,
        options: Some(options()),
        source_host: "source".to_owned(),
        cpu_properties: Vec::new(),
    })
}

fn options() -> v1::MigrationOptions {
    v1::MigrationOptions { verify: true, ..Default::default() }
}

fn start(target: &Host) -> Down {
    Down::StartSource(v1::StartSource {
        migration_id: id(),
        session: 7,
        vm: "mover".to_owned(),
        generation: 2,
        crossing: 1,
        target_host_id: 2,
        target_host: "target".to_owned(),
        target_page_addr: target.page_addr.clone(),
        options: Some(options()),
        bytes_per_second: 0,
    })
}

/// What there is on a host, by its own list.
async fn listed(host: &Host) -> Vec<(VmState, Standing)> {
    let vms = host.agent.vms().list().await;
    vms.into_iter().map(|vm| (vm.run_state, vm.standing)).collect()
}

/// Two hosts; the VM runs on the first, and the second waits for it.
async fn prepared() -> Option<(Host, Host, Stream, Stream)> {
    // QEMU 7.2 stops a VM that does nothing by itself, without a slot.
    let (_, qemu) = qemus().into_iter().find(|(version, _)| *version == "10.0")?;
    let (mut source, mut target) =
        (Host::start("source", &qemu).await, Host::start("target", &qemu).await);
    let (from, mut to) = (source.stream(1).await, target.stream(2).await);
    let spec = VmSpec::parse("name = 'mover'\nmemory = '64MiB'\n").unwrap();
    let vm = source.agent.vms().start(spec, 1).await.unwrap();
    to.order(prepare(vm.spec().text())).await;
    to.hears(|up| matches!(up, Up::TargetReady(ready) if ready.migration_id == ID)).await;
    from.order(start(&target)).await;
    // A session runs already.
    from.order(start(&target)).await;
    Some((source, target, from, to))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_vm_moves() {
    let Some((source, target, mut from, mut to)) = prepared().await else { return };
    from.hears(|up| matches!(up, Up::SwitchoverRequest(asked) if asked.migration_id == ID)).await;
    from.order(Down::SwitchoverGrant(v1::SwitchoverGrant { migration_id: id() })).await;
    from.hears(|up| matches!(up, Up::CommitRequest(asked) if asked.generation == 2)).await;
    let granted = v1::CommitDecision {
        migration_id: id(),
        generation: 2,
        granted: true,
        reason: String::new(),
    };
    from.order(Down::CommitDecision(granted)).await;
    from.hears(|up| matches!(up, Up::SourceStopped(_))).await;
    to.hears(|up| matches!(up, Up::TargetRunning(_))).await;
    let Up::Ended(end) = from.hears(|up| matches!(up, Up::Ended(_))).await else { unreachable!() };
    assert_eq!(end.outcome(), v1::Outcome::Moved, "{end:?}");
    assert!(end.counters.is_some_and(|counters| counters.logical_bytes >= 64 << 20));
    assert!(!end.memory_digest.is_empty());
    assert_eq!(listed(&source).await, []);
    let standing = Standing::owned(2);
    assert_eq!(listed(&target).await, [(VmState::Running, standing)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_move_that_is_cancelled_leaves_the_vm_where_it_is() {
    let Some((source, target, mut from, mut to)) = prepared().await else { return };
    from.hears(|up| matches!(up, Up::SwitchoverRequest(_))).await;
    let reason = "not today".to_owned();
    from.order(Down::Cancel(v1::CancelMigration { migration_id: id(), reason })).await;
    let Up::Ended(end) = from.hears(|up| matches!(up, Up::Ended(_))).await else { unreachable!() };
    assert_eq!(end.outcome(), v1::Outcome::RolledBack, "{end:?}");
    assert_eq!(end.reason, "not today");
    to.hears(|up| matches!(up, Up::TargetDiscarded(gone) if gone.migration_id == ID)).await;
    let discard = v1::DiscardTarget { migration_id: id(), reason: String::new() };
    to.order(Down::DiscardTarget(discard)).await;
    to.hears(|up| matches!(up, Up::TargetDiscarded(_))).await;
    assert_eq!(listed(&target).await, []);
    let standing = Standing::owned(1);
    assert_eq!(listed(&source).await, [(VmState::Running, standing)]);
}
