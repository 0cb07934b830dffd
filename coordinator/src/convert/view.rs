//! What clients see.

use rackferry_fleet::{
    CopyView, EvacuationId, EvacuationRequest, EvacuationView, Fleet, HostView, Listed,
    MigrationView, Move, MoveOptions, Phase, Plan, Problem, Stage, Standing, StayingVm, Totals,
    VmDetail, VmView, Wait,
};
use rackferry_model::ResultCode;
use rackferry_proto::v1;

use super::limit::limit;

/// A migration as its message.
pub fn migration(view: &MigrationView<'_>) -> v1::Migration {
    let record = view.record;
    let (end, ended_unix_ms) = match record.stage {
        Stage::Ended { end, at, .. } => (end.into(), at.unix_ms()),
        _ => (v1::MigrationEnd::Unspecified, 0),
    };
    v1::Migration {
        id: record.id.to_string(),
        vm: record.vm.to_string(),
        evacuation_id: record.evacuation.map(|id| id.to_string()).unwrap_or_default(),
        source_host: record.source.to_string(),
        source_rack: view.source_rack.to_string(),
        target_host: record.target.to_string(),
        target_rack: view.target_rack.to_string(),
        memory_bytes: record.memory_bytes,
        generation: record.generation.0,
        attempt: record.attempt,
        phase: v1::Phase::from(view.phase).into(),
        pass1_ratio: if view.phase == Phase::Done { 1.0 } else { view.progress.pass1_ratio },
        round: view.progress.round,
        remaining_bytes: view.progress.remaining_bytes,
        dirty_bytes_per_second: view.progress.dirty_bytes_per_second,
        send_bytes_per_second: view.progress.send_bytes_per_second,
        counters: Some(view.counters().into()),
        wait_reason: view.wait.as_ref().map(wait),
        reason: view.reason.to_owned(),
        created_unix_ms: record.created.unix_ms(),
        started_unix_ms: record.started.map_or(0, |at| at.unix_ms()),
        ended_unix_ms,
        qemu_downtime_ms: record.result.qemu_downtime_ms,
        blackout_ms: record.result.blackout_ms,
        source_memory_digest: record.result.source_digest.clone(),
        target_memory_digest: record.result.target_digest.clone(),
        predicted_stop_ms: view.progress.predicted_stop_ms,
        stop_limit_ms: view.progress.stop_limit_ms,
        forced: record.forced,
        end: end.into(),
        not_before_unix_ms: record.not_before.map_or(0, |at| at.unix_ms()),
    }
}

fn wait(wait: &Wait) -> v1::WaitReason {
    let Wait { code, detail, limit, used } = wait.clone();
    v1::WaitReason { code: v1::WaitCode::from(code).into(), detail, limit, used }
}

/// An evacuation as its message.
pub fn evacuation(view: &EvacuationView<'_>) -> v1::Evacuation {
    let record = view.record;
    let uncertain = record.ended.is_some() && view.totals.uncertain > 0;
    let result = if uncertain { ResultCode::OperatorNeeded } else { view.state.result() };
    v1::Evacuation {
        id: record.id.to_string(),
        sources: record.sources.clone(),
        targets: record.targets.clone(),
        options: Some(record.options.into()),
        state: v1::EvacuationState::from(view.state).into(),
        created_unix_ms: record.created.unix_ms(),
        ended_unix_ms: record.ended.map_or(0, |at| at.unix_ms()),
        migrations: view.migrations.iter().map(migration).collect(),
        totals: Some(totals(&view.totals)),
        result_code: result as u32,
        link_limits: record.link_limits.iter().map(|(link, of)| limit(link, *of)).collect(),
        deadline_unix_ms: record.deadline.map_or(0, |at| at.unix_ms()),
        overdue: view.overdue,
        restores: record.restores.map(|id| id.to_string()).unwrap_or_default(),
        left_out: record.left_out.iter().cloned().map(staying).collect(),
        remaining: record.remains.vms.iter().cloned().map(staying).collect(),
        silent_hosts: record.remains.silent.iter().map(ToString::to_string).collect(),
        no_cordon: record.no_cordon,
    }
}

fn totals(totals: &Totals) -> v1::EvacuationTotals {
    v1::EvacuationTotals {
        vms: totals.vms,
        queued: totals.queued,
        copying: totals.copying,
        switching: totals.switching,
        done: totals.done,
        failed: totals.failed,
        uncertain: totals.uncertain,
        memory_bytes: totals.memory_bytes,
        memory_done_bytes: totals.memory_done_bytes,
        counters: Some(totals.counters.into()),
    }
}

/// A plan as the evacuation it would become, without ids.
pub fn plan(fleet: &Fleet, request: EvacuationRequest, plan: Plan) -> v1::Evacuation {
    v1::Evacuation {
        sources: request.sources,
        targets: request.targets,
        options: Some(request.options.into()),
        link_limits: request.link_limits.iter().map(|(link, of)| limit(link, *of)).collect(),
        left_out: plan.left_out.into_iter().map(staying).collect(),
        no_cordon: request.no_cordon,
        ..planned(fleet, &plan.moves)
    }
}

/// The way back of an evacuation's VMs as the evacuation it would become, without ids.
pub fn restore_plan(
    fleet: &Fleet,
    id: EvacuationId,
    options: MoveOptions,
    moves: &[Move],
) -> v1::Evacuation {
    let names = |host: fn(&Move) -> &rackferry_fleet::HostName| -> Vec<String> {
        let names: std::collections::BTreeSet<_> = moves.iter().map(host).collect();
        names.into_iter().map(ToString::to_string).collect()
    };
    v1::Evacuation {
        sources: names(|step| &step.source),
        targets: names(|step| &step.target),
        options: Some(options.into()),
        restores: id.to_string(),
        ..planned(fleet, moves)
    }
}

/// A VM that stays where it is.
pub fn staying(one: StayingVm) -> v1::StayingVm {
    let StayingVm { vm, host, why } = one;
    let host = host.map(|host| host.to_string()).unwrap_or_default();
    v1::StayingVm { vm: vm.to_string(), host, reason: why }
}

/// Moves as they would be.
fn planned(fleet: &Fleet, moves: &[Move]) -> v1::Evacuation {
    let migrations = moves.iter().map(|step| v1::Migration {
        vm: step.vm.to_string(),
        source_host: step.source.to_string(),
        source_rack: fleet.rack_of(&step.source).to_string(),
        target_host: step.target.to_string(),
        target_rack: fleet.rack_of(&step.target).to_string(),
        memory_bytes: step.memory_bytes,
        phase: v1::Phase::Queued.into(),
        ..v1::Migration::default()
    });
    let vms = moves.len() as u32;
    let totals = v1::EvacuationTotals {
        vms,
        queued: vms,
        memory_bytes: moves.iter().map(|step| step.memory_bytes).sum(),
        ..v1::EvacuationTotals::default()
    };
    v1::Evacuation {
        migrations: migrations.collect(),
        totals: Some(totals),
        ..v1::Evacuation::default()
    }
}

/// A host as its message.
pub fn host(view: HostView) -> v1::Host {
    let (listed, listed_rack) = match view.listed {
        Listed::NoInventory => (v1::Listed::Unspecified, String::new()),
        Listed::Yes => (v1::Listed::Yes, String::new()),
        Listed::No => (v1::Listed::No, String::new()),
        Listed::Elsewhere(rack) => (v1::Listed::Elsewhere, rack.to_string()),
    };
    v1::Host {
        name: view.name.to_string(),
        rack: view.rack.to_string(),
        host_id: view.id.0,
        page_addr: view.page_addr,
        memory_bytes: view.memory_bytes,
        memory_free_bytes: view.memory_free_bytes,
        connected: view.connection.is_some(),
        agent_version: view.agent_version,
        vms: view.vms,
        outgoing: view.outgoing,
        incoming: view.incoming,
        cordoned: view.cordoned,
        listed: listed.into(),
        listed_rack,
        declared_dead: view.declared_dead,
        installation_id: view.installation.map(|it| it.to_string()).unwrap_or_default(),
    }
}

/// A problem as its message.
pub fn problem(problem: Problem) -> v1::Problem {
    let Problem { kind, host, vm, cause, fix, repairable } = problem;
    let code = v1::ProblemCode::from(kind);
    let vm = vm.map(|vm| vm.to_string()).unwrap_or_default();
    v1::Problem { code: code.into(), host: host.to_string(), vm, cause, fix, repairable }
}

/// A VM with every copy of it as its message.
pub fn vm_detail(detail: VmDetail<'_>) -> v1::GetVmResponse {
    let VmDetail { vm: view, copies, migration: moves, problems, specs } = detail;
    v1::GetVmResponse {
        vm: Some(vm(view)),
        copies: copies.into_iter().map(copy).collect(),
        migration: moves.as_ref().map(migration),
        problems: problems.into_iter().map(problem).collect(),
        specs: Some(v1::VmSpecs {
            registered_toml: specs.registered.map(String::from).unwrap_or_default(),
            reported_toml: specs.reported.unwrap_or_default(),
        }),
    }
}

fn copy(view: CopyView) -> v1::VmCopy {
    let here = v1::VmCopy {
        host: view.host.to_string(),
        rack: view.rack.to_string(),
        role: v1::CopyRole::from(view.role).into(),
        connected: view.connected,
        since_unix_ms: view.since.unix_ms(),
        generation: view.generation.map_or(0, |generation| generation.0),
        ..v1::VmCopy::default()
    };
    let Some(listed) = view.listed else { return here };
    v1::VmCopy {
        run_state: v1::RunState::from(listed.run_state).into(),
        migration_id: listed.migration.map(|id| id.to_string()).unwrap_or_default(),
        memory_bytes: listed.memory_bytes,
        qemu_version: listed.qemu_version,
        machine_type: listed.machine_type,
        may_have_run: listed.may_have_run,
        ..here
    }
}

/// A VM as its message.
pub fn vm(view: VmView) -> v1::Vm {
    let ownership = match view.standing {
        Standing::Stable => v1::Ownership::Stable,
        Standing::Moving(_) => v1::Ownership::Moving,
        Standing::Committed { .. } => v1::Ownership::Committed,
    };
    let condition = v1::VmCondition::from(view.condition);
    v1::Vm {
        name: view.name.to_string(),
        host: view.owner.to_string(),
        rack: view.rack.to_string(),
        memory_bytes: view.memory_bytes,
        generation: view.generation.0,
        ownership: ownership.into(),
        condition: condition.into(),
        migration_id: view.migration.map(|id| id.to_string()).unwrap_or_default(),
        qemu_version: view.qemu_version,
        machine_type: view.machine_type,
    }
}
