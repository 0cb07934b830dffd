//! What takes time in a move, carried out: preparing, both sessions, and acts on VMs. Each says how it went.

use std::sync::Arc;

use rackferry_agent_core::{Act, Event, MigrationId, Preparation, Refusal, What, preparation};
use rackferry_migrator::conn::{self, Framed};
use rackferry_migrator::memory::RAM_BLOCK;
use rackferry_migrator::pace::Pace;
use rackferry_migrator::rack::Rack;
use rackferry_migrator::source::{self, Notice, SourceParts, SourceSpec};
use rackferry_migrator::target::{self, Placed, TargetOutcome, TargetParts, TargetSpec};
use rackferry_migrator_protocol::session::source::Outcome;
use rackferry_model::MoveOptions;
use rackferry_proto::v1;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use crate::agent::Agent;
use crate::convert::{self, Wire};
use crate::metrics::{self, Meter};
use crate::preflight;
use crate::vm::{Side, Vm, VmError, VmSpec, Writing};

/// Commands and notices of one session that wait; there are never more than a handful.
pub const SESSION_QUEUE: usize = 32;

/// Makes memory and an incoming QEMU ready.
pub async fn prepare(agent: &Agent, id: MigrationId, order: &v1::PrepareTarget) -> Event<Wire> {
    let prepared = prepare_vm(agent, id, order).await.map_err(|error| {
        warn!(%id, %error, "target not prepared");
        metrics::migration_ended(Side::Target, "not_begun");
        error.to_string()
    });
    Event::Prepared(id, prepared)
}

async fn prepare_vm(
    agent: &Agent,
    id: MigrationId,
    order: &v1::PrepareTarget,
) -> anyhow::Result<()> {
    let spec = VmSpec::parse(&order.spec_toml)?;
    if let Ok(vm) = agent.vms().get(&order.vm)
        && preparation(Some(&vm.facts().await), id) == Preparation::Ready
    {
        return Ok(());
    }
    // QEMU would fail too, with a message that does not help the operator.
    if let Some(blocker) = preflight::blockers(agent, &spec).await.first() {
        anyhow::bail!("{}: {}", blocker.cause, blocker.fix);
    }
    if let Some(lack) = preflight::cpu_lacks(agent, &spec, &order.cpu_properties).await {
        anyhow::bail!("{}: {}", lack.cause, lack.fix);
    }
    let vm = agent.vms().prepare_incoming(spec, id, order.generation).await?;
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

/// Does something to a VM, if the rules allow it.
pub async fn act(agent: &Agent, act: Act) -> Event<Wire> {
    let vms = agent.vms();
    if matches!(act.what, What::Discard | What::Release)
        && let Some(name) = vms.concerned(&act)
    {
        agent.memory_gone(&name);
    }
    let acted = vms.act(&act).await;
    match &acted {
        // Orders may come more than once, and late: what this one asks for is done, or not wanted any more.
        Err(error @ VmError::Refused(Refusal::OtherMigration(..))) => {
            debug!(id = %act.migration, %error, "a late order to {}", act.what);
        }
        Err(error) => warn!(id = %act.migration, %error, "could not {}", act.what),
        Ok(_) => {}
    }
    if matches!(act.what, What::Leave { .. }) && !matches!(acted, Ok(true)) {
        metrics::migration_ended(Side::Source, "not_begun");
    }
    Event::Acted(act, acted.map_err(|error| error.to_string()))
}

/// Removes what is left of a dead VM, as the coordinator says.
pub async fn forget(agent: &Agent, vm: &str) {
    match agent.vms().forget(vm).await {
        Ok(()) => info!(vm, "forgotten"),
        Err(error) => warn!(vm, %error, "not forgotten"),
    }
}

/// The source of an expected VM has called: a target session, from its first frame to its last.
pub async fn receive(
    agent: &Agent,
    id: MigrationId,
    order: v1::PrepareTarget,
    framed: Framed,
    queue: mpsc::Receiver<target::Command>,
) -> Event<Wire> {
    let (rack, vm) = match (agent.rack(), agent.vms().get(&order.vm)) {
        (Some(rack), Ok(vm)) => (rack.clone(), vm),
        (_, vm) => {
            warn!(%id, error = ?vm.err(), "the VM to receive is gone");
            return Event::TargetOver(id, rackferry_agent_core::TargetEnd::NotBegun);
        }
    };
    let (reader, mut writer) = framed;
    rack.session_opened(order.session);
    if conn::accept(&mut writer, rack.own_host).await.is_err() {
        rack.session_closed(order.session);
        return Event::TargetOver(id, rackferry_agent_core::TargetEnd::NotBegun);
    }
    let spec = TargetSpec {
        session: order.session,
        migration_id: id.to_string(),
        verify: order.options.as_ref().is_some_and(|o| o.verify),
        socket: vm.arrival_socket(),
        placed: placed(agent, &rack, &vm),
    };
    let parts = TargetParts { qmp: vm.qmp(), rack, let_run: vm.let_run() };
    let watched = vm.clone();
    let died = async move { watched.died().await };
    let written = vm.clone();
    let about_to_run =
        async move { written.write(Writing::AboutToRun).await.map_err(|error| error.to_string()) };
    let mut meter = Meter::new(Side::Target);
    let report = target::run(spec, parts, (reader, writer), died, about_to_run, queue).await;
    meter.read(&report.totals);
    metrics::migration_ended(Side::Target, target_word(&report.outcome));
    info!(%id, figures = ?report.totals.fields(), "received");
    Event::TargetOver(id, convert::target_end(report.outcome))
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

/// Moves a VM away: a source session, from its call to its last frame.
pub async fn send(
    agent: &Agent,
    id: MigrationId,
    order: v1::StartSource,
    pace: Arc<Pace>,
    queue: mpsc::Receiver<source::Command>,
) -> Event<Wire> {
    let (rack, vm) = match (agent.rack(), agent.vms().get(&order.vm)) {
        (Some(rack), Ok(vm)) => (rack.clone(), vm),
        (_, vm) => {
            let why = vm.map_or_else(|error| error.to_string(), |_| "not welcomed".to_owned());
            warn!(%id, why, "the move did not begin");
            metrics::migration_ended(Side::Source, "not_begun");
            return Event::SourceOver(id, Outcome::RolledBack(why), None);
        }
    };
    let options = match MoveOptions::try_from(order.options.unwrap_or_default()) {
        Ok(options) => options,
        Err(invalid) => {
            // Of a later coordinator: what it wants is not known here.
            let why = format!("this agent does not know {}", invalid.0);
            warn!(%id, why, "the move did not begin");
            metrics::migration_ended(Side::Source, "not_begun");
            return Event::SourceOver(id, Outcome::RolledBack(why), None);
        }
    };
    let spec = SourceSpec {
        session: order.session,
        migration_id: id.to_string(),
        generation: order.generation,
        crossing: order.crossing,
        target_host: order.target_host_id,
        target_name: order.target_host,
        target_addr: order.target_page_addr,
        options,
        socket: vm.departure_socket(),
    };
    let parts = SourceParts { qmp: vm.qmp(), memory: vm.memory(), rack, pace };
    let (notices, notice_queue) = mpsc::channel(SESSION_QUEUE);
    let passed = tokio::spawn(pass_notices(agent.clone(), id, notice_queue));
    let watched = vm.clone();
    let report =
        source::run(spec, parts, async move { watched.died().await }, queue, notices).await;
    // What it has said comes before its end.
    if let Ok(mut meter) = passed.await {
        meter.read(&report.totals);
    }
    metrics::migration_ended(Side::Source, source_word(&report.outcome));
    info!(%id, figures = ?report.totals.fields(), "sent");
    let powered_off = vm.is_dead() && vm.powered_off();
    let figures = v1::MigrationEnded { powered_off, ..convert::figures(&report) };
    Event::SourceOver(id, report.outcome, Some(figures))
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
async fn pass_notices(agent: Agent, id: MigrationId, mut notices: mpsc::Receiver<Notice>) -> Meter {
    let mut meter = Meter::new(Side::Source);
    while let Some(notice) = notices.recv().await {
        if let Notice::Progress(progress) = &notice {
            meter.read(&progress.totals);
        }
        agent.happened(Event::SourceSaid(id, convert::notice(id, notice))).await;
    }
    meter
}
