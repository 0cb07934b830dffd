//! Between the agent's own types and those of `rackferry.v1`.

use rackferry_migrator::source::{Dedup, Progress};
use rackferry_migrator::stats::Totals;
use rackferry_migrator_protocol::session::patience::Disruption;
use rackferry_proto::v1;

use crate::vm::{Side, VmRunState, VmSummary};

/// A VM as the coordinator wants to see it.
pub fn vm_state(vm: VmSummary) -> v1::VmState {
    let run_state = match vm.run_state {
        VmRunState::Running => v1::RunState::Running,
        VmRunState::Paused => v1::RunState::Paused,
        VmRunState::Incoming => v1::RunState::Incoming,
        VmRunState::Loaded => v1::RunState::Loaded,
        VmRunState::MovedOut => v1::RunState::MovedOut,
        VmRunState::Dead => v1::RunState::Dead,
        VmRunState::Unknown => v1::RunState::Unknown,
    };
    let side = vm.migration.as_ref().map_or(v1::Side::Unspecified, |m| match m.side {
        Side::Source => v1::Side::Source,
        Side::Target => v1::Side::Target,
    });
    v1::VmState {
        name: vm.name,
        memory_bytes: vm.memory_bytes,
        run_state: run_state.into(),
        generation: vm.generation,
        migration_id: vm.migration.map(|m| m.id).unwrap_or_default(),
        side: side.into(),
        qemu_version: vm.qemu_version,
        machine_type: vm.machine,
        spec_toml: vm.spec_toml,
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

/// The end of a migration without figures.
pub fn ended(
    migration_id: &str,
    side: v1::Side,
    outcome: v1::Outcome,
    reason: impl Into<String>,
) -> v1::MigrationEnded {
    v1::MigrationEnded {
        migration_id: migration_id.to_owned(),
        side: side.into(),
        outcome: outcome.into(),
        reason: reason.into(),
        ..Default::default()
    }
}

/// Which copies are found, by the operator's choice.
pub fn dedup(options: &v1::MigrationOptions) -> Dedup {
    match options.dedup() {
        v1::DedupMode::Off => Dedup::Off,
        v1::DedupMode::Host => Dedup::Host,
        v1::DedupMode::Rack | v1::DedupMode::Unspecified => Dedup::Rack,
    }
}

/// Content is compressed unless the operator said no.
pub fn compress(options: &v1::MigrationOptions) -> bool {
    options.compress() != v1::CompressMode::Off
}

/// The VM's limit, milliseconds.
pub fn max_downtime_ms(options: &v1::MigrationOptions) -> u32 {
    match options.max_downtime_ms {
        0 => 300,
        ms => ms,
    }
}

/// What may be done to a VM that does not converge; who says nothing, an older coordinator, means the default.
pub fn disruption(options: &v1::MigrationOptions) -> Disruption {
    match options.disruption() {
        v1::Disruption::None => Disruption::None,
        v1::Disruption::Brief | v1::Disruption::Unspecified => Disruption::Brief,
        v1::Disruption::Allow => Disruption::Allow,
    }
}
