//! The orders of one migration, carried out: preparing, both sessions, and what is left to do after them.

use std::sync::Arc;

use rackferry_migrator::conn::{self, Framed};
use rackferry_migrator::memory::{GuestMemory, RAM_BLOCK};
use rackferry_migrator::rack::Rack;
use rackferry_migrator::source::{self, Notice, SourceParts, SourceReport, SourceSpec};
use rackferry_migrator::target::{self, Placed, TargetOutcome, TargetParts, TargetSpec};
use rackferry_migrator_protocol::session::source::Outcome;
use rackferry_proto::v1;
use rackferry_proto::v1::connect_request::Message as Up;
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::agent::{Agent, Expected};
use crate::checks;
use crate::metrics::{self, Meter};
use crate::vm::{MigrationMark, Role, Side, Vm, VmRunState, VmSpec};
use crate::wire;

/// Commands and notices of one session that wait; there are never more than a handful.
const SESSION_QUEUE: usize = 32;

/// Makes memory and an incoming QEMU ready, and says so.
pub async fn prepare_target(agent: Agent, order: v1::PrepareTarget) {
    let id = order.migration_id.clone();
    match prepare(&agent, &order).await {
        Ok(()) => {
            // Its source has called already: nobody else will.
            if !agent.receives(&id) {
                agent.expect(Expected { order });
            }
            agent.tell(Up::TargetReady(v1::TargetReady { migration_id: id }));
        }
        Err(error) => {
            warn!(%id, %error, "target not prepared");
            metrics::migration_ended(Side::Target, "not_begun");
            let outcome = v1::Outcome::RolledBack;
            agent.tell(Up::Ended(wire::ended(&id, v1::Side::Target, outcome, error.to_string())));
        }
    }
}

async fn prepare(agent: &Agent, order: &v1::PrepareTarget) -> anyhow::Result<()> {
    let spec = VmSpec::parse(&order.spec_toml)?;
    anyhow::ensure!(
        agent.rack().is_some(),
        "this agent has not been welcomed by the coordinator yet"
    );
    // A second order for the same migration (the coordinator was restarted) finds its work done.
    if let Ok(vm) = agent.vms().get(&order.vm) {
        let status = vm.status();
        let same = status.migration.as_ref().is_some_and(|m| m.id == order.migration_id);
        if status.role == Role::Incoming && same && !vm.is_dead() {
            return Ok(());
        }
    }
    // QEMU would fail too, in words that help nobody.
    if let Some(blocker) = checks::blockers(agent, &spec).await.first() {
        anyhow::bail!("{}: {}", blocker.cause, blocker.fix);
    }
    let vm = agent.vms().prepare_incoming(spec, &order.migration_id, order.generation).await?;
    watch_memory(agent, &vm);
    Ok(())
}

/// A VM's memory is a place of contents only as long as its QEMU lives; after that nothing may keep its bytes.
fn watch_memory(agent: &Agent, vm: &Arc<Vm>) {
    let (agent, vm) = (agent.clone(), vm.clone());
    tokio::spawn(async move {
        vm.died().await;
        agent.memory_gone(vm.name());
    });
}

/// The source of an expected VM has called.
pub async fn receive(agent: Agent, rack: Arc<Rack>, expected: Expected, framed: Framed) {
    let order = expected.order;
    let id = order.migration_id.clone();
    let vm = match agent.vms().get(&order.vm) {
        Ok(vm) => vm,
        Err(error) => {
            warn!(%id, %error, "the VM to receive is gone");
            return;
        }
    };
    let (commands, queue) = mpsc::channel(SESSION_QUEUE);
    agent.target_begins(&id, commands);
    let (reader, mut writer) = framed;
    rack.session_opened(order.session);
    if conn::accept(&mut writer, rack.own_host).await.is_err() {
        rack.session_closed(order.session);
        agent.target_ends(&id);
        discard(agent, id).await;
        return;
    }
    let spec = TargetSpec {
        session: order.session,
        migration_id: id.clone(),
        verify: order.options.as_ref().is_some_and(|o| o.verify),
        socket: vm.migrate_socket(),
        placed: placed(&agent, &rack, &vm),
    };
    let parts = TargetParts { qmp: vm.qmp(), rack };
    let watched = vm.clone();
    let died = async move { watched.died().await };
    let mut meter = Meter::new(Side::Target);
    let report = target::run(spec, parts, (reader, writer), died, queue).await;
    meter.read(&report.totals);
    metrics::migration_ended(Side::Target, target_word(&report.outcome));
    agent.target_ends(&id);
    info!(%id, figures = ?report.totals.fields(), "received");
    match report.outcome {
        TargetOutcome::Running => now_owned(&agent, &vm, &id, order.generation).await,
        TargetOutcome::Discard(why) => {
            discard(agent.clone(), id.clone()).await;
            agent.tell(Up::Ended(wire::ended(&id, v1::Side::Target, v1::Outcome::RolledBack, why)));
        }
        // The coordinator sees LOADED in the next report and says what becomes of it.
        TargetOutcome::LeftLoaded => {}
        TargetOutcome::Stuck(why) => {
            agent.tell(Up::Ended(wire::ended(&id, v1::Side::Target, v1::Outcome::Stopped, why)));
        }
    }
}

fn target_word(outcome: &TargetOutcome) -> &'static str {
    match outcome {
        TargetOutcome::Running => "running",
        TargetOutcome::Discard(_) => "discarded",
        TargetOutcome::LeftLoaded => "left_loaded",
        TargetOutcome::Stuck(_) => "stuck",
    }
}

fn placed(agent: &Agent, rack: &Rack, vm: &Vm) -> Vec<Placed> {
    let Some(memory) = vm.memory() else { return Vec::new() };
    let id = rack.store.add_memory(memory.clone());
    agent.memory_added(vm.name(), id);
    vec![Placed { block: RAM_BLOCK.to_owned(), memory, id }]
}

async fn now_owned(agent: &Agent, vm: &Arc<Vm>, id: &str, generation: u64) {
    if let Err(error) = vm.set_owned(generation).await {
        warn!(%id, %error, "the VM runs, but that could not be written down");
    }
    agent.tell(Up::TargetRunning(v1::TargetRunning { migration_id: id.to_owned(), generation }));
}

/// Kills what was to arrive by a migration. Says so also if there is nothing: that is what is asked.
pub async fn discard(agent: Agent, migration_id: String) {
    agent.forget_expected(&migration_id);
    let vms = agent.vms().list().await;
    let arriving = vms.into_iter().find(|vm| {
        vm.role == Role::Incoming && vm.migration.as_ref().is_some_and(|m| m.id == migration_id)
    });
    if let Some(vm) = arriving {
        agent.memory_gone(&vm.name);
        if let Err(error) = agent.vms().discard_incoming(&vm.name, &migration_id).await {
            warn!(id = %migration_id, %error, "not discarded");
            return;
        }
    }
    // A repeated order to prepare may have come in between.
    agent.forget_expected(&migration_id);
    agent.tell(Up::TargetDiscarded(v1::TargetDiscarded { migration_id }));
}

/// The coordinator's log says that a loaded VM, whose session is over, runs here.
pub async fn resume_loaded(agent: Agent, order: v1::ResumeTarget) {
    let id = order.migration_id;
    for summary in agent.vms().list().await {
        if summary.migration.as_ref().is_none_or(|m| m.id != id || m.side != Side::Target) {
            continue;
        }
        let Ok(vm) = agent.vms().get(&summary.name) else { continue };
        let ran = match summary.run_state {
            VmRunState::Running => Ok(()),
            VmRunState::Loaded | VmRunState::Paused => vm.qmp().cont().await,
            state => {
                warn!(%id, %state, "told to run a VM that is not loaded");
                continue;
            }
        };
        match ran {
            Ok(()) => {
                now_owned(&agent, &vm, &id, order.generation).await;
                let _ = vm.qmp().announce_self().await;
            }
            Err(error) => warn!(%id, %error, "cont"),
        }
    }
}

/// Moves a VM away.
pub async fn start_source(agent: Agent, order: v1::StartSource) {
    let id = order.migration_id.clone();
    let (commands, queue) = mpsc::channel(SESSION_QUEUE);
    if !agent.source_begins(&id, commands) {
        return;
    }
    match source_session(&agent, &order, queue).await {
        Ok((vm, report)) => source_over(&agent, &order, &vm, report).await,
        Err(error) => {
            warn!(%id, %error, "the move did not begin");
            metrics::migration_ended(Side::Source, "not_begun");
            let outcome = v1::Outcome::RolledBack;
            agent.tell(Up::Ended(wire::ended(&id, v1::Side::Source, outcome, error.to_string())));
        }
    }
    agent.source_ends(&id);
}

async fn source_session(
    agent: &Agent,
    order: &v1::StartSource,
    queue: mpsc::Receiver<source::Command>,
) -> anyhow::Result<(Arc<Vm>, SourceReport)> {
    let id = order.migration_id.clone();
    let rack =
        agent.rack().ok_or_else(|| anyhow::anyhow!("not welcomed by the coordinator yet"))?.clone();
    let vm = agent.vms().get(&order.vm)?;
    let options = order.options.unwrap_or_default();
    let mark = MigrationMark { id: id.clone(), generation: order.generation, side: Side::Source };
    vm.set_migration(Some(mark)).await?;
    let spec = SourceSpec {
        session: order.session,
        migration_id: id.clone(),
        generation: order.generation,
        crossing: order.crossing,
        target_host: order.target_host_id,
        target_name: order.target_host.clone(),
        target_addr: order.target_page_addr.clone(),
        dedup: wire::dedup(&options),
        compress: wire::compress(&options),
        max_downtime_ms: wire::max_downtime_ms(&options),
        disruption: wire::disruption(&options),
        verify: options.verify,
        socket: vm.migrate_socket(),
    };
    let memory: Option<Arc<GuestMemory>> = vm.memory();
    let parts = SourceParts { qmp: vm.qmp(), memory, rack, pace: agent.pace_of(&id) };
    let (notices, notice_queue) = mpsc::channel(SESSION_QUEUE);
    let notices_done =
        tokio::spawn(pass_notices(agent.clone(), id, order.generation, notice_queue));
    let watched = vm.clone();
    let report =
        source::run(spec, parts, async move { watched.died().await }, queue, notices).await;
    if let Ok(mut meter) = notices_done.await {
        meter.read(&report.totals);
    }
    metrics::migration_ended(Side::Source, source_word(&report.outcome));
    Ok((vm, report))
}

fn source_word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Moved => "moved",
        Outcome::RolledBack(_) => "rolled_back",
        Outcome::VmLost(_) => "vm_lost",
        Outcome::Stopped(_) => "stopped",
    }
}

/// What a source session wants the coordinator to know. Its figures go to the metrics as well.
async fn pass_notices(
    agent: Agent,
    id: String,
    generation: u64,
    mut notices: mpsc::Receiver<Notice>,
) -> Meter {
    let mut meter = Meter::new(Side::Source);
    while let Some(notice) = notices.recv().await {
        let migration_id = id.clone();
        match notice {
            Notice::AskSlot { predicted_ms: predicted_stop_ms } => {
                let request = v1::SwitchoverRequest { migration_id, predicted_stop_ms };
                agent.ask(&id, Up::SwitchoverRequest(request));
            }
            Notice::AskCommit => {
                agent.ask(&id, Up::CommitRequest(v1::CommitRequest { migration_id, generation }));
            }
            Notice::SourceStopped => {
                agent.tell(Up::SourceStopped(v1::SourceStopped { migration_id, generation }));
            }
            Notice::Progress(p) => {
                meter.read(&p.totals);
                agent.tell(Up::Progress(wire::progress(&migration_id, &p)));
            }
        }
    }
    meter
}

async fn source_over(agent: &Agent, order: &v1::StartSource, vm: &Arc<Vm>, report: SourceReport) {
    let id = &order.migration_id;
    info!(%id, figures = ?report.totals.fields(), "sent");
    let (outcome, reason) = match report.outcome {
        Outcome::Moved => {
            agent.memory_gone(vm.name());
            release(agent, vm.name()).await;
            (v1::Outcome::Moved, String::new())
        }
        Outcome::RolledBack(why) => {
            if let Err(error) = vm.set_migration(None).await {
                warn!(%id, %error, "the end of the move could not be written down");
            }
            (v1::Outcome::RolledBack, why)
        }
        Outcome::VmLost(why) => {
            release(agent, vm.name()).await;
            (v1::Outcome::VmLost, why)
        }
        Outcome::Stopped(why) => (v1::Outcome::Stopped, why),
    };
    agent.tell(Up::Ended(v1::MigrationEnded {
        counters: Some(wire::counters(&report.totals)),
        qemu_downtime_ms: report.qemu_downtime_ms.unwrap_or_default() as u32,
        blackout_ms: report.blackout.map_or(0, |b| b.as_millis() as u32),
        memory_digest: report.digest.map(|d| hex(&d)).unwrap_or_default(),
        not_converged: report.not_converged,
        ..wire::ended(id, v1::Side::Source, outcome, reason)
    }));
}

async fn release(agent: &Agent, vm: &str) {
    if let Err(error) = agent.vms().release(vm).await {
        warn!(vm, %error, "the old QEMU could not be ended");
    }
}

/// The coordinator's log says what becomes of a VM that left.
pub async fn release_source(agent: Agent, order: v1::ReleaseSource) {
    for summary in agent.vms().list().await {
        if summary
            .migration
            .as_ref()
            .is_none_or(|m| m.id != order.migration_id || m.side != Side::Source)
        {
            continue;
        }
        if !order.resume {
            agent.memory_gone(&summary.name);
            release(&agent, &summary.name).await;
            continue;
        }
        let Ok(vm) = agent.vms().get(&summary.name) else { continue };
        match vm.qmp().cont().await {
            Ok(()) => {
                if let Err(error) = vm.set_owned(order.generation).await {
                    warn!(vm = summary.name, %error, "the VM runs, but that could not be written down");
                }
            }
            Err(error) => warn!(vm = summary.name, %error, "cont"),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
