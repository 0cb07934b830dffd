//! What a source session is given, and what it tells.

use std::sync::Arc;
use std::time::Duration;

use rackferry_migrator_protocol::session::source::Outcome;
use rackferry_model::MoveOptions;

use super::Progress;
use crate::memory::GuestMemory;
use crate::pace::Pace;
use crate::qmp::Qmp;
use crate::rack::Rack;
use crate::socket::StreamSocket;
use crate::stats::Totals;

/// What a source session is to do.
#[derive(Debug, Clone)]
pub struct SourceSpec {
    /// The migration's number in frames and index entries.
    pub session: u64,
    /// Its name in the control plane.
    pub migration_id: String,
    /// Generation the target will own with.
    pub generation: u64,
    /// Source rack -> target rack of one evacuation.
    pub crossing: u64,
    /// Number of the target host.
    pub target_host: u32,
    /// Its name, as its certificate says it.
    pub target_name: String,
    /// `ip:port` of the target's page server.
    pub target_addr: String,
    /// How the VM is moved.
    pub options: MoveOptions,
    /// Where to listen for QEMU's stream; removed afterwards.
    pub socket: StreamSocket,
}

/// What a session tells the coordinator.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// A switchover slot is wanted.
    AskSlot,
    /// May ownership pass?
    AskCommit,
    /// The source QEMU cannot run any more.
    SourceStopped,
    /// How far it is.
    Progress(Progress),
}

/// How it went.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceReport {
    /// The end.
    pub outcome: Outcome,
    /// Bytes and times.
    pub totals: Totals,
    /// QEMU's own figure, milliseconds.
    pub qemu_downtime_ms: Option<u64>,
    /// From QEMU's STOP to the target's word that the VM runs.
    pub blackout: Option<Duration>,
    /// Digest of the memory at the pause, in verify mode.
    pub digest: Option<[u8; 32]>,
    /// The session rolled back because its VM does not converge.
    pub not_converged: bool,
}

/// The parts a session works with.
#[derive(Debug, Clone)]
pub struct SourceParts {
    /// QEMU's monitor.
    pub qmp: Qmp,
    /// The guest's memory, if the agent has it mapped; needed for verify mode only.
    pub memory: Option<Arc<GuestMemory>>,
    /// The rack.
    pub rack: Arc<Rack>,
    /// What it may put on the core link.
    pub pace: Arc<Pace>,
}

impl SourceReport {
    pub(super) fn nothing_happened(outcome: Outcome) -> Self {
        let totals = Totals::default();
        Self {
            outcome,
            totals,
            qemu_downtime_ms: None,
            blackout: None,
            digest: None,
            not_converged: false,
        }
    }
}
