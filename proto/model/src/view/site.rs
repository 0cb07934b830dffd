//! Hosts, VMs, links, the inventory, the cluster and problems as clients see them.

use serde::{Deserialize, Serialize};

use super::{Migration, Received};
use crate::{Condition, CopyRole, Listed, NodeRole, Ownership, ProblemCode, RunState};

/// A VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Vm {
    /// Its name.
    pub name: String,
    /// Its owner.
    pub host: String,
    /// The rack of that.
    pub rack: String,
    /// Guest memory.
    pub memory_bytes: u64,
    /// Of its ownership.
    pub generation: u64,
    /// How sure its ownership is.
    pub ownership: Received<Ownership>,
    /// What it does.
    pub condition: Received<Condition>,
    /// While it moves.
    pub migration_id: Option<String>,
    /// Its QEMU.
    pub qemu_version: String,
    /// Its machine type.
    pub machine_type: String,
}

/// A copy of a VM, or the place where one should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VmCopy {
    /// Its host.
    pub host: String,
    /// The rack of that.
    pub rack: String,
    /// Its part.
    pub role: Received<CopyRole>,
    /// The agent of its host is connected.
    pub connected: bool,
    /// What its QEMU does; none if that is not known, or its host has no copy.
    pub run_state: Option<RunState>,
    /// It is so at least since then.
    pub since_unix_ms: u64,
    /// Of the ownership that it has or would get; none: no ownership.
    pub generation: Option<u64>,
    /// The migration that its agent counts it to.
    pub migration_id: Option<String>,
    /// Guest memory.
    pub memory_bytes: u64,
    /// Its QEMU.
    pub qemu_version: String,
    /// Its machine type.
    pub machine_type: String,
    /// Its guest may have run on this host.
    pub may_have_run: bool,
}

/// A VM with every copy of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VmDetail {
    /// What is on record of it.
    #[serde(flatten)]
    pub vm: Vm,
    /// Its copies, the owner's first.
    pub copies: Vec<VmCopy>,
    /// The migration under way.
    pub migration: Option<Migration>,
    /// Its problems.
    pub problems: Vec<Problem>,
    /// How to start it.
    pub specs: VmSpecs,
}

/// How to start a VM, in TOML.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VmSpecs {
    /// What targets are given; none if no agent has reported one yet.
    pub registered_toml: Option<String>,
    /// What its owner's agent reports now; none if it does not list the VM, or does not know.
    pub reported_toml: Option<String>,
    /// The agent reports another one than the registered one.
    pub differ: bool,
}

/// A host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Its rack.
    pub rack: String,
    /// Its number in page frames.
    pub host_id: u32,
    /// Its page server.
    pub page_addr: String,
    /// Memory for guests.
    pub memory_bytes: u64,
    /// Of it, free.
    pub memory_free_bytes: u64,
    /// Its agent is connected.
    pub connected: bool,
    /// Its agent's version.
    pub agent_version: String,
    /// VMs it owns.
    pub vms: u32,
    /// Migrations that leave it.
    pub outgoing: u32,
    /// Migrations that reach it.
    pub incoming: u32,
    /// It takes no VMs.
    pub cordoned: bool,
    /// An operator has declared it dead.
    pub declared_dead: bool,
    /// Whether the inventory lists it; none without an inventory.
    pub listed: Option<Listed>,
    /// The inventory's rack, if it is another one.
    pub listed_rack: Option<String>,
}

/// A limit of a link: one of the two, or neither.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// The link.
    pub link: String,
    /// In each direction.
    pub bytes_per_second: Option<u64>,
    /// Of the link's rate.
    pub percent: Option<u32>,
}

/// One direction of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lane {
    /// Migrations that cross it.
    pub moves: u32,
    /// What their sources may send.
    pub allotted_bytes_per_second: u64,
}

/// A link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// A rack or a spine.
    pub a: String,
    /// A rack or a spine.
    pub b: String,
    /// The inventory has it.
    pub in_inventory: bool,
    /// Its rate in each direction.
    pub bytes_per_second: u64,
    /// What a route over it costs.
    pub cost: u32,
    /// Its limit.
    pub limit: Option<Limit>,
    /// From a to b.
    pub forth: Lane,
    /// From b to a.
    pub back: Lane,
}

/// How much is in an inventory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Racks.
    pub racks: u32,
    /// Hosts.
    pub hosts: u32,
    /// Spines.
    pub spines: u32,
    /// Links.
    pub links: u32,
    /// Policies.
    pub policies: u32,
    /// VMs with labels.
    pub vms: u32,
}

/// A rack of the inventory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rack {
    /// Its name.
    pub name: String,
    /// Its hosts.
    pub hosts: Vec<String>,
    /// Of them, those without an agent.
    pub away: Vec<String>,
}

/// The inventory, and what differs from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Inventory {
    /// When it was imported.
    pub imported_unix_ms: Option<u64>,
    /// How much is in it.
    pub summary: Option<Summary>,
    /// Its racks.
    pub racks: Vec<Rack>,
    /// Its links.
    pub links: Vec<Link>,
    /// Hosts that are not in it, or in another rack.
    pub strangers: Vec<Host>,
    /// The file.
    pub text: String,
}

/// A coordinator of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Its number.
    pub id: u64,
    /// Its address.
    pub addr: String,
    /// Its part.
    pub role: Received<NodeRole>,
    /// Its log up to here is the leader's; known to the leader alone.
    pub matched_index: Option<u64>,
}

/// The coordinators, as one of them sees them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cluster {
    /// The coordinator that answers.
    pub node_id: u64,
    /// The leader.
    pub leader_id: Option<u64>,
    /// Its address.
    pub leader_addr: String,
    /// The term.
    pub term: u64,
    /// Of the coordinator that answers.
    pub last_log_index: u64,
    /// Of the coordinator that answers.
    pub applied_index: u64,
    /// Of the coordinator that answers.
    pub snapshot_index: u64,
    /// The log begins after it.
    pub purged_index: u64,
    /// All coordinators.
    pub nodes: Vec<Node>,
}

/// A problem of the site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Its kind.
    pub code: Received<ProblemCode>,
    /// The host it is about.
    pub host: Option<String>,
    /// The VM it is about.
    pub vm: Option<String>,
    /// The cause.
    pub cause: String,
    /// The remedy.
    pub fix: String,
    /// `doctor --repair` removes it.
    pub repairable: bool,
}
