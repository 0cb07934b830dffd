//! Between the fleet's types and those of the agent's rules, as the coordinator and the agent convert them.

use rackferry_agent_core::{self as core, Carried, Order, Question, Word};
use rackferry_fleet::{self as fleet, Counters, Generation, Said, SessionEnd, VmName};

use super::Host;
use super::chores::Start;

/// What the rules carry in the simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Simulated {}

/// What a source session says at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// It was given up because the VM did not converge.
    pub not_converged: bool,
    /// The guest powered itself off.
    pub powered_off: bool,
}

impl Carried for Simulated {
    /// The VM and its generation.
    type Prepare = (usize, u64);
    type Start = Start;
    type Progress = fleet::Progress;
    type Figures = Figures;
    type Findings = ();
}

/// The number of a VM.
fn vm_number(name: &VmName) -> Option<usize> {
    name.as_str().strip_prefix('v')?.parse().ok()
}

/// An order about a migration.
pub(super) fn order(order: fleet::Order, hosts: &[Host]) -> Option<Order<Simulated>> {
    Some(match order {
        fleet::Order::Welcome(_) | fleet::Order::RackView { .. } => return None,
        fleet::Order::KeepDead(migration, generation) => Order::KeepDead(migration, generation.0),
        fleet::Order::ForgetVm(vm) => Order::Forget(vm.as_str().to_owned()),
        fleet::Order::PrepareTarget { migration, vm, generation, source, .. } => {
            Order::PrepareTarget {
                migration,
                session: migration.0,
                generation: generation.0,
                source: Some(source),
                prepare: (vm_number(&vm)?, generation.0),
            }
        }
        fleet::Order::StartSource { migration, vm, generation, target, options, rate, .. } => {
            let target = hosts.iter().position(|host| host.name == target.host)?;
            let disruption = options.disruption;
            let number = vm_number(&vm)?;
            let start = Start { vm: number, generation: generation.0, target, disruption };
            let (vm, generation) = (vm.as_str().to_owned(), generation.0);
            Order::StartSource { migration, vm, generation, rate, start }
        }
        fleet::Order::SetRate(migration, rate) => Order::SetRate(migration, rate),
        fleet::Order::ForceSwitchover(migration) => Order::ForceSwitchover(migration),
        fleet::Order::SwitchoverGrant(migration) => Order::SwitchoverGrant(migration),
        fleet::Order::CommitDecision { migration, refusal, .. } => Order::CommitDecision {
            migration,
            granted: refusal.is_none(),
            reason: refusal.unwrap_or_default(),
        },
        fleet::Order::Cancel(migration, why) => Order::Cancel(migration, why),
        fleet::Order::ResumeTarget(migration, generation) => {
            Order::ResumeTarget(migration, generation.0)
        }
        fleet::Order::DiscardTarget(migration, why) => Order::DiscardTarget(migration, why),
        fleet::Order::ReleaseSource { migration, generation, resume } => {
            Order::ReleaseSource { migration, generation: generation.0, resume }
        }
    })
}

/// What a coordinator hears of it.
pub(super) fn said(word: Word<Simulated>) -> Said {
    match word {
        Word::TargetReady(migration) => Said::TargetReady(migration),
        Word::TargetRunning(migration, _) => Said::TargetRunning(migration),
        Word::TargetDiscarded(migration) => Said::TargetDiscarded(migration),
        Word::Asked(migration, Question::Slot) => Said::SwitchoverRequest(migration),
        Word::Asked(migration, Question::Commit { generation }) => {
            Said::CommitRequest(migration, Generation(generation))
        }
        Word::SourceStopped(migration, _) => Said::SourceStopped(migration),
        Word::Progress(migration, progress) => Said::Progress(migration, progress),
        Word::Ended(migration, end) => Said::Ended(migration, ended(end)),
        // No check is ordered here.
        Word::Findings(()) => Said::Report { memory_free_bytes: 0, vms: Vec::new() },
    }
}

fn ended(end: core::End<Simulated>) -> SessionEnd {
    let figures = end.figures.unwrap_or_default();
    SessionEnd {
        outcome: end.outcome,
        reason: end.reason,
        counters: Counters::default(),
        qemu_downtime_ms: 0,
        blackout_ms: 0,
        memory_digest: String::new(),
        not_converged: figures.not_converged,
        powered_off: figures.powered_off,
    }
}
