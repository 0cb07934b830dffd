//! Conversions between the agent's own types and those of `rackferry.v1`.

use std::collections::HashSet;

use rackferry_agent_core as core;
use rackferry_agent_core::{Carried, HostName, MigrationId, Order, Question, SourceWord, Word};
use rackferry_migrator::source::{Notice, Progress, SourceReport};
use rackferry_migrator::stats::Totals;
use rackferry_migrator::target::{self, TargetOutcome};
use rackferry_proto::v1;
use rackferry_proto::v1::connect_request::Message as Up;
use rackferry_proto::v1::connect_response::Message as Down;

use crate::vm::VmSummary;

/// The rules carry messages of `rackferry.v1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {}

impl Carried for Wire {
    type Prepare = v1::PrepareTarget;
    type Start = v1::StartSource;
    type Progress = v1::MigrationProgress;
    /// Without migration, outcome and reason.
    type Figures = v1::MigrationEnded;
    type Findings = v1::CheckReport;
}

/// An order about a migration; none if it names none.
pub fn order(order: Down) -> Option<Order<Wire>> {
    let rate = |bytes_per_second| Some(bytes_per_second).filter(|&rate| rate > 0);
    Some(match order {
        Down::PrepareTarget(o) => Order::PrepareTarget {
            migration: id(&o.migration_id)?,
            session: o.session,
            generation: o.generation,
            source: Some(o.source_host.as_str()).filter(|name| !name.is_empty()).map(HostName::new),
            prepare: o,
        },
        Down::StartSource(o) => Order::StartSource {
            migration: id(&o.migration_id)?,
            vm: o.vm.clone(),
            generation: o.generation,
            rate: rate(o.bytes_per_second),
            start: o,
        },
        Down::SetRate(o) => Order::SetRate(id(&o.migration_id)?, rate(o.bytes_per_second)),
        Down::SwitchoverGrant(o) => Order::SwitchoverGrant(id(&o.migration_id)?),
        Down::CommitDecision(o) => Order::CommitDecision {
            migration: id(&o.migration_id)?,
            granted: o.granted,
            reason: o.reason,
        },
        Down::Cancel(o) => Order::Cancel(id(&o.migration_id)?, o.reason),
        Down::ForceSwitchover(o) => Order::ForceSwitchover(id(&o.migration_id)?),
        Down::ResumeTarget(o) => Order::ResumeTarget(id(&o.migration_id)?, o.generation),
        Down::DiscardTarget(o) => Order::DiscardTarget(id(&o.migration_id)?, o.reason),
        Down::KeepDead(o) => Order::KeepDead(id(&o.migration_id)?, o.generation),
        Down::ForgetVm(o) => Order::Forget(o.vm),
        Down::ReleaseSource(o) => Order::ReleaseSource {
            migration: id(&o.migration_id)?,
            generation: o.generation,
            resume: o.resume,
        },
        Down::Welcome(_)
        | Down::RackView(_)
        | Down::Expelled(_)
        | Down::CheckSource(_)
        | Down::CheckTarget(_) => {
            return None;
        }
    })
}

/// Members that may fetch contents. A coordinator of before says it of none: then every member may, as it was.
pub fn receivers(view: &v1::RackView) -> HashSet<u32> {
    view.members.iter().filter(|m| m.receives != Some(false)).map(|m| m.host_id).collect()
}

/// Reads the id of a migration, as it is named on the wire.
pub fn id(text: &str) -> Option<MigrationId> {
    text.parse().ok()
}

/// The message that tells the coordinator this.
pub fn word(word: Word<Wire>) -> Up {
    match word {
        Word::TargetReady(id) => Up::TargetReady(v1::TargetReady { migration_id: id.to_string() }),
        Word::TargetRunning(id, _) => {
            Up::TargetRunning(v1::TargetRunning { migration_id: id.to_string() })
        }
        Word::TargetDiscarded(id) => {
            Up::TargetDiscarded(v1::TargetDiscarded { migration_id: id.to_string() })
        }
        Word::Asked(id, Question::Slot) => {
            Up::SwitchoverRequest(v1::SwitchoverRequest { migration_id: id.to_string() })
        }
        Word::Asked(id, Question::Commit { generation }) => {
            Up::CommitRequest(v1::CommitRequest { migration_id: id.to_string(), generation })
        }
        Word::SourceStopped(id, _) => {
            Up::SourceStopped(v1::SourceStopped { migration_id: id.to_string() })
        }
        Word::Progress(_, progress) => Up::Progress(progress),
        Word::Ended(id, end) => Up::Ended(ended(id, end)),
        Word::Findings(findings) => Up::CheckReport(findings),
    }
}

fn ended(id: MigrationId, end: core::End<Wire>) -> v1::MigrationEnded {
    v1::MigrationEnded {
        migration_id: id.to_string(),
        outcome: v1::Outcome::from(end.outcome).into(),
        reason: end.reason,
        ..end.figures.unwrap_or_default()
    }
}

/// Figures of a source session that is over.
pub fn figures(report: &SourceReport) -> v1::MigrationEnded {
    v1::MigrationEnded {
        counters: Some(counters(&report.totals)),
        qemu_downtime_ms: report.qemu_downtime_ms.unwrap_or_default() as u32,
        blackout_ms: report.blackout.map_or(0, |b| b.as_millis() as u32),
        memory_digest: report.digest.map(|d| hex(&d)).unwrap_or_default(),
        not_converged: report.not_converged,
        ..Default::default()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// What a source session tells, as the agent's rules take it.
pub fn notice(id: MigrationId, notice: Notice) -> SourceWord<Wire> {
    match notice {
        Notice::AskSlot => SourceWord::AskSlot,
        Notice::AskCommit => SourceWord::AskCommit,
        Notice::SourceStopped => SourceWord::Stopped,
        Notice::Progress(p) => SourceWord::Progress(progress(&id.to_string(), &p)),
    }
}

/// The command of the rules, as a target session takes it.
pub fn target_command(command: &core::TargetCommand) -> target::Command {
    match command {
        core::TargetCommand::Resume(_) => target::Command::Resume,
        core::TargetCommand::Discard(why) => target::Command::Discard(why.clone()),
    }
}

/// How a target session ended.
pub fn target_end(outcome: TargetOutcome) -> core::TargetEnd {
    match outcome {
        TargetOutcome::Running => core::TargetEnd::Running,
        TargetOutcome::Discard(why) => core::TargetEnd::Discard(why),
        TargetOutcome::LeftLoaded => core::TargetEnd::LeftLoaded,
        TargetOutcome::Stuck(why) => core::TargetEnd::Stuck(why),
    }
}

/// A VM as the coordinator wants to see it.
pub fn vm_state(vm: VmSummary) -> v1::VmState {
    let mark = vm.standing.mark;
    v1::VmState {
        name: vm.name,
        memory_bytes: vm.memory_bytes,
        run_state: v1::RunState::from(vm.run_state).into(),
        migration_id: mark.map(|mark| mark.migration.to_string()).unwrap_or_default(),
        qemu_version: vm.qemu_version,
        machine_type: vm.machine,
        spec_toml: vm.spec_toml,
        may_have_run: vm.may_have_run,
        destroyed: vm.standing.destroyed,
        powered_off: vm.powered_off,
        // The agent knows them.
        cpu_properties: Vec::new(),
    }
}

/// Byte counters of a session.
pub fn counters(t: &Totals) -> v1::TransferCounters {
    v1::TransferCounters {
        logical_bytes: t.zero_bytes + t.duplicate_bytes + t.raw_bytes,
        zero_bytes: t.zero_bytes,
        duplicate_bytes: t.duplicate_bytes,
        raw_bytes: t.raw_bytes,
        wire_bytes: t.wire_bytes,
        supplied_bytes: t.supplied_bytes,
    }
}

/// How far a session is.
pub fn progress(migration_id: &str, p: &Progress) -> v1::MigrationProgress {
    let phase = if p.switching { v1::Phase::Switching } else { v1::Phase::Copying };
    v1::MigrationProgress {
        migration_id: migration_id.to_owned(),
        phase: phase.into(),
        pass1_ratio: p.pass1_ratio,
        round: p.round,
        remaining_bytes: p.remaining_bytes,
        dirty_bytes_per_second: p.dirty_rate,
        send_bytes_per_second: p.send_rate,
        counters: Some(counters(&p.totals)),
        predicted_stop_ms: p.predicted_stop_ms,
        stop_limit_ms: p.limit_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_nothing_is_said_of_may_fetch() {
        let member = |host_id, receives| v1::RackMember { host_id, receives, ..Default::default() };
        let members = vec![member(1, None), member(2, Some(false)), member(3, Some(true))];
        let view = v1::RackView { members, ..Default::default() };
        assert_eq!(receivers(&view), [1, 3].into());
    }
}
