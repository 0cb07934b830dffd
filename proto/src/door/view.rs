//! What clients see: messages become the model's views. Numbers and texts that stand for nothing become none here.

use rackferry_model::{ResultCode, view};

use super::{FromNumber, word};
use crate::v1::{self, link_limit};

fn received<T: FromNumber>(number: i32) -> view::Received<T> {
    view::Received(word(number))
}

/// An empty text is none.
fn text(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// Zero is not yet.
fn time(unix_ms: u64) -> Option<u64> {
    (unix_ms > 0).then_some(unix_ms)
}

/// Neither unknown nor without bound.
fn bounded(ms: u32) -> Option<u32> {
    (ms > 0 && ms < u32::MAX).then_some(ms)
}

fn all<T, U: From<T>>(messages: Vec<T>) -> Vec<U> {
    messages.into_iter().map(U::from).collect()
}

/// How long this takes at a rate, in milliseconds; none of nothing, or at no rate.
fn eta_ms(bytes: u64, bytes_per_second: u64) -> Option<u64> {
    let ms = (u128::from(bytes) * 1000).checked_div(bytes_per_second.into())?;
    (bytes > 0).then(|| u64::try_from(ms).unwrap_or(u64::MAX))
}

impl From<v1::Migration> for view::Migration {
    fn from(one: v1::Migration) -> Self {
        let goes_on = one.ended_unix_ms == 0;
        let eta_ms = eta_ms(one.remaining_bytes, one.send_bytes_per_second);
        Self {
            id: one.id,
            vm: one.vm,
            evacuation_id: text(one.evacuation_id),
            source_host: one.source_host,
            source_rack: one.source_rack,
            target_host: one.target_host,
            target_rack: one.target_rack,
            memory_bytes: one.memory_bytes,
            generation: one.generation,
            attempt: one.attempt,
            phase: received(one.phase),
            pass1_ratio: one.pass1_ratio,
            round: one.round,
            remaining_bytes: one.remaining_bytes,
            dirty_bytes_per_second: one.dirty_bytes_per_second,
            send_bytes_per_second: one.send_bytes_per_second,
            eta_ms: eta_ms.filter(|_| goes_on),
            wait_reason: one.wait_reason.map(Into::into),
            reason: one.reason,
            created_unix_ms: one.created_unix_ms,
            started_unix_ms: time(one.started_unix_ms),
            ended_unix_ms: time(one.ended_unix_ms),
            qemu_downtime_ms: one.qemu_downtime_ms,
            blackout_ms: one.blackout_ms,
            source_memory_digest: one.source_memory_digest,
            target_memory_digest: one.target_memory_digest,
            predicted_stop_ms: bounded(one.predicted_stop_ms),
            stop_limit_ms: bounded(one.stop_limit_ms),
            not_before_unix_ms: time(one.not_before_unix_ms),
            forced: one.forced,
            end: word(one.end),
            counters: one.counters.unwrap_or_default().into(),
        }
    }
}

impl From<v1::WaitReason> for view::WaitReason {
    fn from(wait: v1::WaitReason) -> Self {
        let v1::WaitReason { code, detail, limit, used } = wait;
        Self { code: received(code), detail, limit, used }
    }
}

impl From<v1::Evacuation> for view::Evacuation {
    fn from(one: v1::Evacuation) -> Self {
        Self {
            id: one.id,
            sources: one.sources,
            targets: one.targets,
            state: received(one.state),
            result_code: (one.ended_unix_ms > 0).then(|| ResultCode::from_number(one.result_code)),
            created_unix_ms: one.created_unix_ms,
            ended_unix_ms: time(one.ended_unix_ms),
            deadline_unix_ms: time(one.deadline_unix_ms),
            overdue: one.overdue,
            link_limits: all(one.link_limits),
            restores: text(one.restores),
            left_out: all(one.left_out),
            remaining: all(one.remaining),
            silent_hosts: one.silent_hosts,
            no_cordon: one.no_cordon,
            staying: Vec::new(),
            totals: one.totals.unwrap_or_default().into(),
            vms: all(one.migrations),
        }
    }
}

impl From<v1::StayingVm> for view::Staying {
    fn from(one: v1::StayingVm) -> Self {
        Self { vm: one.vm, host: text(one.host), reason: one.reason }
    }
}

impl From<view::Staying> for v1::StayingVm {
    fn from(one: view::Staying) -> Self {
        Self { vm: one.vm, host: one.host.unwrap_or_default(), reason: one.reason }
    }
}

impl From<v1::EvacuationTotals> for view::Totals {
    fn from(totals: v1::EvacuationTotals) -> Self {
        Self {
            vms: totals.vms,
            queued: totals.queued,
            copying: totals.copying,
            switching: totals.switching,
            done: totals.done,
            failed: totals.failed,
            uncertain: totals.uncertain,
            memory_bytes: totals.memory_bytes,
            memory_done_bytes: totals.memory_done_bytes,
            counters: totals.counters.unwrap_or_default().into(),
        }
    }
}

impl From<v1::Vm> for view::Vm {
    fn from(vm: v1::Vm) -> Self {
        Self {
            name: vm.name,
            host: vm.host,
            rack: vm.rack,
            memory_bytes: vm.memory_bytes,
            generation: vm.generation,
            ownership: received(vm.ownership),
            condition: received(vm.condition),
            migration_id: text(vm.migration_id),
            qemu_version: vm.qemu_version,
            machine_type: vm.machine_type,
        }
    }
}

impl From<v1::Host> for view::Host {
    fn from(host: v1::Host) -> Self {
        Self {
            name: host.name,
            rack: host.rack,
            host_id: host.host_id,
            page_addr: host.page_addr,
            memory_bytes: host.memory_bytes,
            memory_free_bytes: host.memory_free_bytes,
            connected: host.connected,
            agent_version: host.agent_version,
            vms: host.vms,
            outgoing: host.outgoing,
            incoming: host.incoming,
            cordoned: host.cordoned,
            declared_dead: host.declared_dead,
            listed: word(host.listed),
            listed_rack: text(host.listed_rack),
        }
    }
}

impl From<v1::LinkLimit> for view::Limit {
    fn from(limit: v1::LinkLimit) -> Self {
        let (bytes_per_second, percent) = match limit.limit {
            None => (None, None),
            Some(link_limit::Limit::BytesPerSecond(rate)) => (Some(rate), None),
            Some(link_limit::Limit::Percent(percent)) => (None, Some(percent)),
        };
        Self { link: limit.link, bytes_per_second, percent }
    }
}

impl From<view::Limit> for v1::LinkLimit {
    fn from(limit: view::Limit) -> Self {
        let view::Limit { link, bytes_per_second, percent } = limit;
        let rate = bytes_per_second.map(link_limit::Limit::BytesPerSecond);
        Self { link, limit: rate.or(percent.map(link_limit::Limit::Percent)) }
    }
}

impl From<v1::LaneStatus> for view::Lane {
    fn from(lane: v1::LaneStatus) -> Self {
        let v1::LaneStatus { moves, allotted_bytes_per_second } = lane;
        Self { moves, allotted_bytes_per_second }
    }
}

impl From<v1::LinkStatus> for view::Link {
    fn from(link: v1::LinkStatus) -> Self {
        Self {
            in_inventory: !link.a.is_empty(),
            name: link.name,
            a: link.a,
            b: link.b,
            bytes_per_second: link.bytes_per_second,
            cost: link.cost,
            limit: link.limit.map(Into::into),
            forth: link.forth.unwrap_or_default().into(),
            back: link.back.unwrap_or_default().into(),
        }
    }
}

impl From<v1::InventorySummary> for view::Summary {
    fn from(summary: v1::InventorySummary) -> Self {
        let v1::InventorySummary { racks, hosts, spines, links, policies, vms } = summary;
        Self { racks, hosts, spines, links, policies, vms }
    }
}

impl From<v1::InventoryRack> for view::Rack {
    fn from(rack: v1::InventoryRack) -> Self {
        let v1::InventoryRack { name, hosts, away } = rack;
        Self { name, hosts, away }
    }
}

impl From<v1::GetInventoryResponse> for view::Inventory {
    fn from(answer: v1::GetInventoryResponse) -> Self {
        Self {
            imported_unix_ms: time(answer.imported_unix_ms),
            summary: answer.summary.map(Into::into),
            racks: all(answer.racks),
            links: all(answer.links),
            strangers: all(answer.strangers),
            text: answer.text,
        }
    }
}

impl From<v1::ClusterNode> for view::Node {
    fn from(node: v1::ClusterNode) -> Self {
        let v1::ClusterNode { id, addr, role, matched_index } = node;
        Self { id, addr, role: received(role), matched_index }
    }
}

impl From<v1::Cluster> for view::Cluster {
    fn from(cluster: v1::Cluster) -> Self {
        Self {
            node_id: cluster.node_id,
            leader_id: (cluster.leader_id != 0).then_some(cluster.leader_id),
            leader_addr: cluster.leader_addr,
            term: cluster.term,
            last_log_index: cluster.last_log_index,
            applied_index: cluster.applied_index,
            snapshot_index: cluster.snapshot_index,
            purged_index: cluster.purged_index,
            nodes: all(cluster.nodes),
        }
    }
}

impl From<v1::VmCopy> for view::VmCopy {
    fn from(copy: v1::VmCopy) -> Self {
        Self {
            host: copy.host,
            rack: copy.rack,
            role: received(copy.role),
            connected: copy.connected,
            run_state: word(copy.run_state),
            since_unix_ms: copy.since_unix_ms,
            generation: Some(copy.generation).filter(|&generation| generation > 0),
            migration_id: text(copy.migration_id),
            memory_bytes: copy.memory_bytes,
            qemu_version: copy.qemu_version,
            machine_type: copy.machine_type,
            may_have_run: copy.may_have_run,
        }
    }
}

impl From<v1::GetVmResponse> for view::VmDetail {
    fn from(answer: v1::GetVmResponse) -> Self {
        let v1::GetVmResponse { vm, copies, migration, problems, specs } = answer;
        Self {
            vm: vm.unwrap_or_default().into(),
            copies: copies.into_iter().map(Into::into).collect(),
            migration: migration.map(Into::into),
            problems: problems.into_iter().map(Into::into).collect(),
            specs: specs.unwrap_or_default().into(),
        }
    }
}

impl From<v1::VmSpecs> for view::VmSpecs {
    fn from(specs: v1::VmSpecs) -> Self {
        let v1::VmSpecs { registered_toml, reported_toml } = specs;
        let (registered_toml, reported_toml) = (text(registered_toml), text(reported_toml));
        let differ = reported_toml.is_some() && reported_toml != registered_toml;
        Self { registered_toml, reported_toml, differ }
    }
}

impl From<v1::Event> for view::Event {
    fn from(event: v1::Event) -> Self {
        Self {
            id: event.id,
            first_unix_ms: event.first_unix_ms,
            last_unix_ms: event.last_unix_ms,
            count: event.count,
            name: text(event.name),
            role: event.role,
            address: text(event.address),
            action: event.action,
            subject: text(event.subject),
            outcome: received(event.outcome),
            reason: text(event.reason),
            detail: text(event.detail),
        }
    }
}

impl From<v1::Problem> for view::Problem {
    fn from(one: v1::Problem) -> Self {
        let v1::Problem { code, host, vm, cause, fix, repairable } = one;
        Self { code: received(code), host: text(host), vm: text(vm), cause, fix, repairable }
    }
}

impl From<v1::Finding> for view::Finding {
    fn from(finding: v1::Finding) -> Self {
        let v1::Finding { severity, code, cause, fix } = finding;
        Self { severity: received(severity), code: received(code), cause, fix }
    }
}

impl From<v1::TargetCheck> for view::TargetCheck {
    fn from(target: v1::TargetCheck) -> Self {
        let v1::TargetCheck { host, findings } = target;
        Self { host, findings: all(findings) }
    }
}

impl From<v1::VmCheck> for view::VmCheck {
    fn from(vm: v1::VmCheck) -> Self {
        let v1::VmCheck { vm, host, findings, targets, can_move } = vm;
        Self { vm, host, can_move, findings: all(findings), targets: all(targets) }
    }
}

impl From<v1::Migration> for view::PlannedMove {
    fn from(one: v1::Migration) -> Self {
        let v1::Migration { vm, source_host, target_host, memory_bytes, .. } = one;
        Self { vm, source_host, target_host, memory_bytes }
    }
}

impl From<view::PlannedMove> for v1::PlannedMove {
    fn from(step: view::PlannedMove) -> Self {
        let view::PlannedMove { vm, source_host, target_host, memory_bytes } = step;
        Self { vm, source_host, target_host, memory_bytes }
    }
}
