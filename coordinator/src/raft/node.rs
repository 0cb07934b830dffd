//! One coordinator's part in the log: opened, started, initialised.

use std::{path::Path, sync::Arc, time::Duration};

use openraft::{
    BasicNode, Config, SnapshotPolicy,
    error::{Fatal, InitializeError, RaftError},
};
use rackferry_fleet::Record;
use rackferry_tls::Tls;
use thiserror::Error;

use super::{
    Applied, DatabaseError, Identity, LogStore, NodeId, Raft,
    network::Network,
    offline::{self, OfflineError},
    snapshot::SnapshotError,
    state::StateMachine,
};
use crate::config::Members;

/// How often a leader is heard. How long one of its calls may take is [`APPEND_WITHIN`](super::runtime::APPEND_WITHIN).
pub const HEARTBEAT: Duration = Duration::from_millis(250);
/// A leader not heard of for so long may be followed by another; until then no other is voted for. Another
/// random time between the two, and a follower stands for election.
pub const LEASE: Duration = Duration::from_millis(1500);
/// See [`LEASE`].
pub const ELECTION_MIN: Duration = Duration::from_millis(750);
/// How long a part of a snapshot may take, writing the whole included.
const SNAPSHOT_WITHIN: Duration = Duration::from_secs(20);
/// A part of a snapshot.
const SNAPSHOT_PART: u64 = 1 << 20;
/// Entries sent in one message.
const ENTRIES: u64 = 128;
/// Entries kept although a snapshot has them, for a follower that is a little behind.
const KEPT: u64 = 1000;

/// A coordinator cannot take part in the log.
#[derive(Debug, Error)]
pub enum NodeError {
    /// The coordinator's log cannot be used.
    #[error("the log")]
    Log(#[from] DatabaseError),
    /// The coordinator's snapshot cannot be used.
    #[error("the snapshot")]
    Snapshot(#[from] SnapshotError),
    /// The files were being replaced when the program ended.
    #[error(transparent)]
    Offline(#[from] OfflineError),
    /// The settings contradict each other.
    #[error("the settings of the log")]
    Config(#[from] Box<openraft::ConfigError>),
    /// The replicated log has stopped.
    #[error("the log stopped")]
    Fatal(#[from] Fatal<NodeId>),
    /// The first members are refused.
    #[error("the first members of the cluster")]
    Initialize(#[source] Box<InitializeError<NodeId, BasicNode>>),
}

/// A coordinator that takes part in the log.
pub struct Node {
    /// The coordinator's number.
    pub id: NodeId,
    /// Where the other coordinators reach this one.
    pub addr: String,
    /// The replicated log.
    pub raft: Raft,
    /// The way to the others.
    pub network: Network,
    /// The cluster that the coordinator is in.
    pub identity: Identity,
    /// What the log has come to.
    pub applied: Applied,
    /// The file of the log.
    pub log: LogStore,
    /// Records of a coordinator before Raft, not yet in the log.
    pub unconverted: Option<Vec<Record>>,
}

impl Node {
    /// Opens the files in a folder and starts. A first start forms the cluster of the settings (more than
    /// one node may do so: they say the same), or waits to be added. Other coordinators are called over `tls`.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn start(
        dir: &Path,
        members: &Members,
        snapshot_entries: u64,
        tls: Option<Tls>,
    ) -> Result<Self, NodeError> {
        let Members { id, addr, peers, join } = members;
        offline::check_finished(dir)?;
        let log = LogStore::open(&dir.join("coordinator.redb"), *id)?;
        let unconverted = log.unconverted()?;
        if unconverted.is_some() && (*join || peers.len() > 1) {
            return Err(DatabaseError::Unconverted.into());
        }
        if unconverted.is_none() {
            log.close_records().await?;
        }
        let state = StateMachine::open(&dir.join("snapshot.redb"))?;
        let applied = state.applied();
        let identity = Identity::open(&log)?;
        if !join {
            identity.form(peers).await?;
        }
        let config = Arc::new(config(snapshot_entries)?);
        let network = Network::new(identity.clone(), tls);
        let raft = Raft::new(*id, config, network.clone(), log.clone(), state).await?;
        if !join && !raft.is_initialized().await? {
            let nodes = peers.iter().map(|(id, addr)| (*id, BasicNode::new(addr)));
            let nodes: std::collections::BTreeMap<_, _> = nodes.collect();
            match raft.initialize(nodes).await {
                // Another coordinator was quicker.
                Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
                Err(RaftError::APIError(error)) => {
                    return Err(NodeError::Initialize(Box::new(error)));
                }
                Err(RaftError::Fatal(fatal)) => return Err(fatal.into()),
            }
        }
        Ok(Self { id: *id, addr: addr.clone(), raft, network, identity, applied, log, unconverted })
    }
}

fn config(snapshot_entries: u64) -> Result<Config, Box<openraft::ConfigError>> {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let snapshot_entries = snapshot_entries.max(1);
    let kept = KEPT.min(snapshot_entries);
    let config = Config {
        cluster_name: "rackferry".to_owned(),
        heartbeat_interval: ms(HEARTBEAT),
        election_timeout_min: ms(ELECTION_MIN),
        election_timeout_max: ms(LEASE),
        install_snapshot_timeout: ms(SNAPSHOT_WITHIN),
        snapshot_max_chunk_size: SNAPSHOT_PART,
        max_payload_entries: ENTRIES,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(snapshot_entries),
        max_in_snapshot_log_to_keep: kept,
        replication_lag_threshold: snapshot_entries + kept,
        ..Config::default()
    };
    config.validate().map_err(Box::new)
}
