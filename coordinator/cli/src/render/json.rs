//! Answers for programs: the same fields as the tables, and `result_code`.

use rackferry_proto::v1;
use serde::Serialize;

use super::word;
use crate::exit::{Code, Failure};

#[derive(Serialize)]
struct Evacuation<'a> {
    id: &'a str,
    sources: &'a [String],
    targets: &'a [String],
    state: String,
    result_code: u32,
    created_unix_ms: u64,
    ended_unix_ms: Option<u64>,
    deadline_unix_ms: Option<u64>,
    overdue: bool,
    link_limits: Vec<super::json_site::Limit<'a>>,
    restores: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    staying: Vec<Staying<'a>>,
    totals: Totals,
    vms: Vec<Migration<'a>>,
}

/// A VM that is not brought back.
#[derive(Serialize)]
struct Staying<'a> {
    vm: &'a str,
    host: Option<&'a str>,
    reason: &'a str,
}

#[derive(Serialize)]
struct Totals {
    vms: u32,
    queued: u32,
    copying: u32,
    switching: u32,
    done: u32,
    failed: u32,
    uncertain: u32,
    memory_bytes: u64,
    memory_done_bytes: u64,
    #[serde(flatten)]
    counters: Counters,
}

#[derive(Serialize)]
struct Counters {
    logical_bytes: u64,
    zero_bytes: u64,
    duplicate_bytes: u64,
    unique_bytes: u64,
    wire_bytes: u64,
    supplied_bytes: u64,
}

#[derive(Serialize)]
struct Migration<'a> {
    id: &'a str,
    vm: &'a str,
    source_host: &'a str,
    source_rack: &'a str,
    target_host: &'a str,
    target_rack: &'a str,
    memory_bytes: u64,
    generation: u64,
    attempt: u32,
    phase: String,
    pass1_ratio: f64,
    round: u32,
    remaining_bytes: u64,
    dirty_bytes_per_second: u64,
    send_bytes_per_second: u64,
    wait_reason: Option<WaitReason<'a>>,
    reason: &'a str,
    created_unix_ms: u64,
    started_unix_ms: Option<u64>,
    ended_unix_ms: Option<u64>,
    qemu_downtime_ms: u32,
    blackout_ms: u32,
    source_memory_digest: &'a str,
    target_memory_digest: &'a str,
    predicted_stop_ms: Option<u32>,
    stop_limit_ms: Option<u32>,
    not_before_unix_ms: Option<u64>,
    forced: bool,
    #[serde(flatten)]
    counters: Counters,
}

#[derive(Serialize)]
struct WaitReason<'a> {
    code: String,
    detail: &'a str,
    limit: u32,
    used: u32,
}

#[derive(Serialize)]
struct Vm<'a> {
    name: &'a str,
    host: &'a str,
    rack: &'a str,
    memory_bytes: u64,
    generation: u64,
    ownership: String,
    condition: String,
    migration_id: Option<&'a str>,
    qemu_version: &'a str,
    machine_type: &'a str,
}

#[derive(Serialize)]
pub(super) struct Host<'a> {
    name: &'a str,
    rack: &'a str,
    host_id: u32,
    page_addr: &'a str,
    memory_bytes: u64,
    memory_free_bytes: u64,
    connected: bool,
    agent_version: &'a str,
    vms: u32,
    outgoing: u32,
    incoming: u32,
    cordoned: bool,
    listed: Option<String>,
    listed_rack: Option<&'a str>,
}

/// A value with the result beside it.
#[derive(Serialize)]
pub(super) struct Resulting<T> {
    pub(super) result_code: u32,
    #[serde(flatten)]
    pub(super) value: T,
}

pub(super) fn text(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("values of plain structs can be written")
}

/// A value as one line. Strings in JSON hold no ends of lines.
pub fn line(text: &str) -> String {
    text.lines().map(str::trim_start).collect()
}

/// Zero is not yet.
fn known(unix_ms: u64) -> Option<u64> {
    (unix_ms > 0).then_some(unix_ms)
}

/// Neither unknown nor without bound.
fn bounded(ms: u32) -> Option<u32> {
    (ms > 0 && ms < u32::MAX).then_some(ms)
}

impl From<Option<v1::TransferCounters>> for Counters {
    fn from(counters: Option<v1::TransferCounters>) -> Self {
        let counters = counters.unwrap_or_default();
        Self {
            logical_bytes: counters.logical_bytes,
            zero_bytes: counters.zero_bytes,
            duplicate_bytes: counters.duplicate_bytes,
            unique_bytes: counters.raw_bytes,
            wire_bytes: counters.wire_bytes,
            supplied_bytes: counters.supplied_bytes,
        }
    }
}

impl From<v1::EvacuationTotals> for Totals {
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
            counters: totals.counters.into(),
        }
    }
}

impl<'a> From<&'a v1::Migration> for Migration<'a> {
    fn from(one: &'a v1::Migration) -> Self {
        let wait_reason = one.wait_reason.as_ref().map(|wait| WaitReason {
            code: word::wait_code(wait.code()),
            detail: &wait.detail,
            limit: wait.limit,
            used: wait.used,
        });
        Self {
            id: &one.id,
            vm: &one.vm,
            source_host: &one.source_host,
            source_rack: &one.source_rack,
            target_host: &one.target_host,
            target_rack: &one.target_rack,
            memory_bytes: one.memory_bytes,
            generation: one.generation,
            attempt: one.attempt,
            phase: word::phase(one.phase()),
            pass1_ratio: one.pass1_ratio,
            round: one.round,
            remaining_bytes: one.remaining_bytes,
            dirty_bytes_per_second: one.dirty_bytes_per_second,
            send_bytes_per_second: one.send_bytes_per_second,
            wait_reason,
            reason: &one.reason,
            created_unix_ms: one.created_unix_ms,
            started_unix_ms: known(one.started_unix_ms),
            ended_unix_ms: known(one.ended_unix_ms),
            qemu_downtime_ms: one.qemu_downtime_ms,
            blackout_ms: one.blackout_ms,
            source_memory_digest: &one.source_memory_digest,
            target_memory_digest: &one.target_memory_digest,
            predicted_stop_ms: bounded(one.predicted_stop_ms),
            stop_limit_ms: bounded(one.stop_limit_ms),
            not_before_unix_ms: known(one.not_before_unix_ms),
            forced: one.forced,
            counters: one.counters.into(),
        }
    }
}

impl<'a> From<&'a v1::Evacuation> for Evacuation<'a> {
    fn from(one: &'a v1::Evacuation) -> Self {
        Self {
            id: &one.id,
            sources: &one.sources,
            targets: &one.targets,
            state: word::state(one.state()),
            result_code: one.result_code,
            created_unix_ms: one.created_unix_ms,
            ended_unix_ms: known(one.ended_unix_ms),
            deadline_unix_ms: known(one.deadline_unix_ms),
            overdue: one.overdue,
            link_limits: one.link_limits.iter().map(Into::into).collect(),
            restores: (!one.restores.is_empty()).then_some(&one.restores),
            staying: Vec::new(),
            totals: one.totals.unwrap_or_default().into(),
            vms: one.migrations.iter().map(Migration::from).collect(),
        }
    }
}

/// One evacuation; its own result. `staying` were left out of it.
pub fn evacuation(one: &v1::Evacuation, staying: &[v1::StayingVm]) -> String {
    let staying = staying.iter().map(|vm| Staying {
        vm: &vm.vm,
        host: (!vm.host.is_empty()).then_some(&vm.host),
        reason: &vm.reason,
    });
    text(&Evacuation { staying: staying.collect(), ..Evacuation::from(one) })
}

/// One evacuation nobody waits for any more.
pub fn unfinished(one: &v1::Evacuation) -> String {
    let result_code = Code::StillRunning as u32;
    text(&Evacuation { result_code, ..Evacuation::from(one) })
}

/// All evacuations.
pub fn evacuations(all: &[v1::Evacuation]) -> String {
    #[derive(Serialize)]
    struct All<'a> {
        evacuations: Vec<Evacuation<'a>>,
    }
    let value = All { evacuations: all.iter().map(Evacuation::from).collect() };
    text(&Resulting { result_code: Code::Done as u32, value })
}

/// One move.
pub fn migration(one: &v1::Migration, code: Code) -> String {
    text(&Resulting { result_code: code as u32, value: Migration::from(one) })
}

/// The coordinators.
pub fn cluster(cluster: &v1::Cluster) -> String {
    #[derive(Serialize)]
    struct Node<'a> {
        id: u64,
        addr: &'a str,
        role: String,
        matched_index: Option<u64>,
    }
    #[derive(Serialize)]
    struct Cluster<'a> {
        node_id: u64,
        leader_id: Option<u64>,
        leader_addr: &'a str,
        term: u64,
        last_log_index: u64,
        applied_index: u64,
        snapshot_index: u64,
        purged_index: u64,
        nodes: Vec<Node<'a>>,
    }
    let nodes = cluster.nodes.iter().map(|node| Node {
        id: node.id,
        addr: &node.addr,
        role: word::role(node.role()),
        matched_index: node.matched_index,
    });
    let value = Cluster {
        node_id: cluster.node_id,
        leader_id: (cluster.leader_id != 0).then_some(cluster.leader_id),
        leader_addr: &cluster.leader_addr,
        term: cluster.term,
        last_log_index: cluster.last_log_index,
        applied_index: cluster.applied_index,
        snapshot_index: cluster.snapshot_index,
        purged_index: cluster.purged_index,
        nodes: nodes.collect(),
    };
    text(&Resulting { result_code: Code::Done as u32, value })
}

/// VMs.
pub fn vms(all: &[v1::Vm]) -> String {
    #[derive(Serialize)]
    struct All<'a> {
        vms: Vec<Vm<'a>>,
    }
    let vms = all.iter().map(|vm| Vm {
        name: &vm.name,
        host: &vm.host,
        rack: &vm.rack,
        memory_bytes: vm.memory_bytes,
        generation: vm.generation,
        ownership: word::ownership(vm.ownership()),
        condition: word::condition(vm.condition()),
        migration_id: (!vm.migration_id.is_empty()).then_some(&vm.migration_id),
        qemu_version: &vm.qemu_version,
        machine_type: &vm.machine_type,
    });
    text(&Resulting { result_code: Code::Done as u32, value: All { vms: vms.collect() } })
}

/// Hosts.
pub fn hosts(all: &[v1::Host]) -> String {
    #[derive(Serialize)]
    struct All<'a> {
        hosts: Vec<Host<'a>>,
    }
    let value = All { hosts: all.iter().map(Host::from).collect() };
    text(&Resulting { result_code: Code::Done as u32, value })
}

impl<'a> From<&'a v1::Host> for Host<'a> {
    fn from(host: &'a v1::Host) -> Self {
        let listed = host.listed();
        Self {
            name: &host.name,
            rack: &host.rack,
            host_id: host.host_id,
            page_addr: &host.page_addr,
            memory_bytes: host.memory_bytes,
            memory_free_bytes: host.memory_free_bytes,
            connected: host.connected,
            agent_version: &host.agent_version,
            vms: host.vms,
            outgoing: host.outgoing,
            incoming: host.incoming,
            cordoned: host.cordoned,
            listed: (listed != v1::Listed::Unspecified).then(|| word::listed(listed)),
            listed_rack: (!host.listed_rack.is_empty()).then_some(&host.listed_rack),
        }
    }
}

/// A token, and until when it is good.
pub fn token(created: &v1::CreateTokenResponse) -> String {
    #[derive(Serialize)]
    struct Token<'a> {
        token: &'a str,
        expires_unix_ms: u64,
    }
    let v1::CreateTokenResponse { token, expires_unix_ms } = created;
    let value = Token { token, expires_unix_ms: *expires_unix_ms };
    text(&Resulting { result_code: Code::Done as u32, value })
}

/// Why a command failed.
pub fn failure(failure: &Failure) -> String {
    #[derive(Serialize)]
    struct Error {
        error: String,
        reason: Option<&'static str>,
    }
    let reason = failure.reason().map(|reason| reason.as_str());
    let value = Error { error: failure.text(), reason };
    text(&Resulting { result_code: failure.code() as u32, value })
}
