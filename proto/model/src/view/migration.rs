//! Migrations and evacuations as clients see them.

use serde::{Deserialize, Serialize};

use super::{Limit, Received};
use crate::{Counters, End, EvacuationState, Phase, ResultCode, WaitCode};

/// A migration.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Migration {
    /// `mig-N`.
    pub id: String,
    /// The VM.
    pub vm: String,
    /// The evacuation it belongs to.
    pub evacuation_id: Option<String>,
    /// Its source.
    pub source_host: String,
    /// The rack of that.
    pub source_rack: String,
    /// Its target.
    pub target_host: String,
    /// The rack of that.
    pub target_rack: String,
    /// Guest memory.
    pub memory_bytes: u64,
    /// The generation that ownership gets when it passes.
    pub generation: u64,
    /// 1, 2, ... within its evacuation.
    pub attempt: u32,
    /// How far it is.
    pub phase: Received<Phase>,
    /// Of the first pass, 0 to 1; only rises.
    pub pass1_ratio: f64,
    /// The pass.
    pub round: u32,
    /// Left in this pass.
    pub remaining_bytes: u64,
    /// How fast the guest writes.
    pub dirty_bytes_per_second: u64,
    /// How fast pages leave.
    pub send_bytes_per_second: u64,
    /// How long the rest of this pass takes at that rate; none if it is not known, or the migration is over.
    pub eta_ms: Option<u64>,
    /// Why it waits.
    pub wait_reason: Option<WaitReason>,
    /// Why it did not move its VM, for people.
    pub reason: String,
    /// When it was asked for.
    pub created_unix_ms: u64,
    /// When it began.
    pub started_unix_ms: Option<u64>,
    /// When it ended.
    pub ended_unix_ms: Option<u64>,
    /// QEMU's figure.
    pub qemu_downtime_ms: u32,
    /// From the stop to the target's answer that the VM runs.
    pub blackout_ms: u32,
    /// In verify mode.
    pub source_memory_digest: String,
    /// In verify mode.
    pub target_memory_digest: String,
    /// How long the VM would be stopped now, if that is known.
    pub predicted_stop_ms: Option<u32>,
    /// How long it may be stopped, if that has a limit.
    pub stop_limit_ms: Option<u32>,
    /// It does not begin before.
    pub not_before_unix_ms: Option<u64>,
    /// Its switchover was forced.
    pub forced: bool,
    /// How it ended.
    #[serde(serialize_with = "super::word_or_none")]
    pub end: Option<End>,
    /// What it transferred.
    #[serde(flatten, serialize_with = "Counters::in_bytes")]
    pub counters: Counters,
}

/// Why something waits, with the numbers that decide it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WaitReason {
    /// The kind.
    pub code: Received<WaitCode>,
    /// The host, the link, the evacuation.
    pub detail: String,
    /// How many are allowed.
    pub limit: u32,
    /// How many there are.
    pub used: u32,
}

/// An evacuation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evacuation {
    /// `evac-N`.
    pub id: String,
    /// Racks or hosts, as asked.
    pub sources: Vec<String>,
    /// Racks or hosts, as asked.
    pub targets: Vec<String>,
    /// How far it is.
    pub state: Received<EvacuationState>,
    /// How it ended; none while it goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result_code: Option<ResultCode>,
    /// When it was asked for.
    pub created_unix_ms: u64,
    /// When it ended.
    pub ended_unix_ms: Option<u64>,
    /// When it should have ended.
    pub deadline_unix_ms: Option<u64>,
    /// The deadline passed before it ended.
    pub overdue: bool,
    /// How much its migrations together may send over links.
    pub link_limits: Vec<Limit>,
    /// The evacuation whose VMs it brings back.
    pub restores: Option<String>,
    /// VMs of the sources that it does not move.
    pub left_out: Vec<Staying>,
    /// VMs that are on its sources at its end, whatever they are.
    pub remaining: Vec<Staying>,
    /// Sources whose VMs are not known at its end.
    pub silent_hosts: Vec<String>,
    /// It does not cordon its sources.
    pub no_cordon: bool,
    /// VMs that are not brought back.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub staying: Vec<Staying>,
    /// All together.
    pub totals: Totals,
    /// The latest attempt of every VM.
    pub vms: Vec<Migration>,
}

/// A VM that stays where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Staying {
    /// The VM.
    pub vm: String,
    /// Where it is.
    pub host: Option<String>,
    /// Why it stays.
    pub reason: String,
}

/// VMs of an evacuation by what became of them, and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// All.
    pub vms: u32,
    /// Not begun.
    pub queued: u32,
    /// Begun.
    pub copying: u32,
    /// Switching over.
    pub switching: u32,
    /// Moved.
    pub done: u32,
    /// Stayed with their sources.
    pub failed: u32,
    /// Paused, lost, or of uncertain ownership.
    pub uncertain: u32,
    /// Guest memory of all.
    pub memory_bytes: u64,
    /// Guest memory of those that moved.
    pub memory_done_bytes: u64,
    /// Transferred by all attempts.
    #[serde(flatten, serialize_with = "Counters::in_bytes")]
    pub counters: Counters,
}
