//! The replicated log: openraft over redb and gRPC.
//!
//! What is replicated is the map of the fleet's records, changed by [`Command`]s; what decides is the
//! [`Fleet`](rackferry_fleet::Fleet), and it runs at the leader only (see [`leadership`](crate::leadership)). One
//! coordinator by itself is a cluster of one: the same code, no network.
//!
//! * [`command`]: what an entry of the log says, with its version; [`packed`], if it says much.
//! * [`database`]: the files, and the rows all of them have in common.
//! * [`identity`]: which cluster this is.
//! * [`log`]: entries and the vote; one fsync for each append.
//! * [`state`]: the records, in memory; rebuilt from [`snapshot`] and log at a start. [`staged`]: parts of a write.
//! * [`backup`], [`offline`]: a copy of the records; a cluster that begins anew from one, or from one log.
//! * [`network`]: how coordinators call each other.
//! * [`node`]: starting one; [`runtime`]: how long its calls may take.
pub mod backup;
pub mod command;
mod database;
pub mod identity;
mod log;
mod network;
pub mod node;
pub mod offline;
mod packed;
mod runtime;
mod snapshot;
mod staged;
pub mod state;
#[cfg(test)]
mod suite;

use std::io::Cursor;

pub use command::Command;
pub use database::DatabaseError;
pub use identity::Identity;
pub use log::LogStore;
pub use network::Network;
pub use node::Node;
pub use state::Applied;

/// A coordinator's number among the coordinators of its site.
pub type NodeId = u64;

openraft::declare_raft_types!(
    /// What our Raft is made of.
    pub Types:
        D = Command,
        R = state::Verdict,
        NodeId = NodeId,
        Node = openraft::BasicNode,
        SnapshotData = Cursor<Vec<u8>>,
        AsyncRuntime = runtime::Runtime,
);

/// The replicated log.
pub type Raft = openraft::Raft<Types>;
/// What the replicated log shows of itself.
pub type Metrics = openraft::RaftMetrics<NodeId, openraft::BasicNode>;
type Entry = openraft::Entry<Types>;
type LogId = openraft::LogId<NodeId>;
type Vote = openraft::Vote<NodeId>;
type Membership = openraft::StoredMembership<NodeId, openraft::BasicNode>;
type SnapshotMeta = openraft::SnapshotMeta<NodeId, openraft::BasicNode>;
type StorageError = openraft::StorageError<NodeId>;
type StorageIoError = openraft::StorageIOError<NodeId>;

/// How messages between coordinators are written; see `raft.proto`.
pub const MESSAGE_VERSION: u32 = 1;
/// The largest message between coordinators. An entry is far below it, but for one that a member of an earlier
/// version must read: it holds what a few hundred inputs changed, at worst the first lists of as many large hosts.
pub const MESSAGE_LIMIT: usize = 128 << 20;
/// The largest snapshot: a KiB for each of 1,000,000 records.
pub const SNAPSHOT_LIMIT: u64 = 1 << 30;
