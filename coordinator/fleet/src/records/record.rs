//! What must outlive the coordinator: records that replace each other by key.
//!
//! A record is written before anything that depends on it leaves the fleet. A replicated log carries the
//! same [`Change`]s.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    BootId, Counters, Crossing, End, EvacuationId, EventId, EventRecord, Generation, HostId,
    HostName, Installation, LinkLimit, LinkName, MigrationId, Moment, MoveOptions, RackName,
    Remains, SpecText, StayingVm, Topology, VmName,
};

/// One change of the durable state; changes of one batch are committed together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// Writes a record in place of the one with the same key.
    Put(Record),
    /// Removes a record.
    Remove(Key),
}

/// A durable record. Serialised with its version so that old logs stay readable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Record {
    /// The numbers handed out so far.
    #[serde(rename = "numbers.v1")]
    Numbers(Numbers),
    /// A host.
    #[serde(rename = "host.v1")]
    Host(HostRecord),
    /// A VM and its owner.
    #[serde(rename = "vm.v1")]
    Vm(VmRecord),
    /// A migration.
    #[serde(rename = "migration.v1")]
    Migration(Box<MigrationRecord>),
    /// An evacuation.
    #[serde(rename = "evacuation.v1")]
    Evacuation(Box<EvacuationRecord>),
    /// The inventory that was imported.
    #[serde(rename = "inventory.v1")]
    Inventory(Box<InventoryRecord>),
    /// What a link may carry.
    #[serde(rename = "limit.v1")]
    Limit(LimitRecord),
    /// What lets a host in.
    #[serde(rename = "token.v1")]
    Token(TokenRecord),
    /// What was done, or has happened.
    #[serde(rename = "event.v1")]
    Event(Box<EventRecord>),
    /// A certificate that is expelled.
    #[serde(rename = "expelled.v1")]
    Expelled(ExpelledRecord),
}

/// What a record is found by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Key {
    /// The one [`Record::Numbers`].
    Numbers,
    /// A host.
    Host(HostName),
    /// A VM.
    Vm(VmName),
    /// A migration.
    Migration(MigrationId),
    /// An evacuation.
    Evacuation(EvacuationId),
    /// The one [`Record::Inventory`].
    Inventory,
    /// The limit of a link.
    Limit(LinkName),
    /// The token of a host.
    Token(HostName),
    /// An event.
    Event(EventId),
    /// A name that is expelled, or one certificate of it, by its serial number.
    Expelled(String, Option<String>),
}

impl Record {
    /// What this record is found by.
    pub fn key(&self) -> Key {
        match self {
            Self::Numbers(_) => Key::Numbers,
            Self::Host(host) => Key::Host(host.name.clone()),
            Self::Vm(vm) => Key::Vm(vm.name.clone()),
            Self::Migration(migration) => Key::Migration(migration.id),
            Self::Evacuation(evacuation) => Key::Evacuation(evacuation.id),
            Self::Inventory(_) => Key::Inventory,
            Self::Limit(limit) => Key::Limit(limit.link.clone()),
            Self::Token(token) => Key::Token(token.host.clone()),
            Self::Event(event) => Key::Event(event.id),
            Self::Expelled(one) => Key::Expelled(one.name.clone(), one.serial.clone()),
        }
    }
}

/// The last number handed out of each kind; none is ever used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbers {
    /// Of hosts.
    pub host: HostId,
    /// Of migrations.
    pub migration: MigrationId,
    /// Of evacuations.
    pub evacuation: EvacuationId,
    /// Of crossings.
    pub crossing: Crossing,
    /// Of generations: one counter for all VMs, so that a VM known again after it was forgotten gets a
    /// higher one.
    pub generation: Generation,
    /// Of rack views.
    pub epoch: u64,
    /// Of the cluster of coordinators: it rises when one begins anew from a log that may miss something. Agents refuse
    /// coordinators of a lower one.
    #[serde(default)]
    pub incarnation: u64,
}

/// Far more than a cluster hands out between a backup and its end.
const JUMP: u64 = 1_000_000_000;
/// The same of hosts.
const HOSTS_JUMP: u32 = 1_000_000;

impl Numbers {
    /// Jumps over every number that may have been handed out by a cluster whose end is not known.
    pub fn jump(&mut self, incarnation: u64) {
        self.host.0 = self.host.0.saturating_add(HOSTS_JUMP);
        let all = [
            &mut self.migration.0,
            &mut self.evacuation.0,
            &mut self.crossing.0,
            &mut self.generation.0,
            &mut self.epoch,
        ];
        for number in all {
            *number = number.saturating_add(JUMP);
        }
        self.incarnation = incarnation;
    }

    /// The next number of a kind.
    pub(crate) fn next<T: Numbered>(&mut self) -> T {
        let last = T::last(self);
        *last = last.successor();
        *last
    }
}

/// A number [`Numbers`] hands out.
pub(crate) trait Numbered: Copy {
    fn last(numbers: &mut Numbers) -> &mut Self;
    fn successor(self) -> Self;
}

macro_rules! numbered {
    ($($kind:ty, $field:ident;)*) => {$(
        impl Numbered for $kind {
            fn last(numbers: &mut Numbers) -> &mut Self {
                &mut numbers.$field
            }
            fn successor(self) -> Self {
                Self(self.0 + 1)
            }
        }
    )*};
}

numbered! {
    HostId, host;
    MigrationId, migration;
    EvacuationId, evacuation;
    Crossing, crossing;
    Generation, generation;
}

/// A host that has been connected at least once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRecord {
    /// Its name.
    pub name: HostName,
    /// Its number in page frames.
    pub id: HostId,
    /// The rack it was last in.
    pub rack: RackName,
    /// Its whole memory.
    pub memory_bytes: u64,
    /// It takes no more VMs.
    #[serde(default)]
    pub cordoned: bool,
    /// The evacuation that has cordoned it; none: an operator.
    #[serde(default)]
    pub cordoned_by: Option<EvacuationId>,
    /// The installation of an agent that speaks for it; none until one has said which it is.
    #[serde(default)]
    pub installation: Option<Installation>,
    /// An operator has declared it dead for good.
    #[serde(default)]
    pub declared_dead: bool,
    /// What it owned with generations up to this one may have run on an installation that is dead: that a later one does
    /// not list it proves nothing.
    #[serde(default)]
    pub lost_up_to: Generation,
}

impl HostRecord {
    /// A host that has just been heard of.
    pub fn new(name: HostName, id: HostId, rack: RackName, memory_bytes: u64) -> Self {
        Self {
            name,
            id,
            rack,
            memory_bytes,
            cordoned: false,
            cordoned_by: None,
            installation: None,
            declared_dead: false,
            lost_up_to: Generation::default(),
        }
    }
}

/// A VM and its ownership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmRecord {
    /// Its name.
    pub name: VmName,
    /// Guest memory.
    pub memory_bytes: u64,
    /// The host that owns it.
    pub owner: HostName,
    /// The generation it owns it with.
    pub generation: Generation,
    /// Whether another host is about to own it, or has just come to.
    pub standing: Standing,
    /// How to start it, as registered; none in records of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<SpecText>,
}

/// How sure ownership is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// Only the owner may run it, and no other host ever can with what it was told so far.
    Stable,
    /// The owner runs it; a copy for the target of this migration may exist and must not run.
    Moving(MigrationId),
    /// The owner is the target of this migration. It may run once the source is attested stopped.
    Committed {
        /// The migration.
        migration: MigrationId,
        /// The source attested that it cannot run the VM any more.
        source_stopped: bool,
    },
}

/// One attempt to move a VM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MigrationRecord {
    /// Its number, also the session's in page frames.
    pub id: MigrationId,
    /// The VM.
    pub vm: VmName,
    /// Guest memory.
    pub memory_bytes: u64,
    /// Source host.
    pub source: HostName,
    /// Target host.
    pub target: HostName,
    /// The evacuation it belongs to, if any.
    pub evacuation: Option<EvacuationId>,
    /// The client's id of the request, for a single move.
    pub request: Option<String>,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// It must not begin before.
    #[serde(default)]
    pub not_before: Option<Moment>,
    /// What claims are kept for.
    pub crossing: Crossing,
    /// How to move.
    pub options: MoveOptions,
    /// The generation the target owns the VM with, if it commits; 0 while queued.
    pub generation: Generation,
    /// How far it is.
    pub stage: Stage,
    /// Asked to stop by a client.
    pub cancelled: bool,
    /// Its VM may be stopped for as long as it takes, a client said.
    #[serde(default)]
    pub forced: bool,
    /// When it was asked for.
    pub created: Moment,
    /// When the target was told to prepare.
    pub started: Option<Moment>,
    /// Its figures, filled in when it ends.
    pub result: MigrationResult,
}

/// How far a migration is, as far as the log must know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// No agent was told anything.
    Queued,
    /// The target was told to prepare.
    Preparing {
        /// The agent process that was told.
        target_boot: BootId,
    },
    /// The source was told to start. Whether ownership has passed is the VM's [`Standing`].
    Started {
        /// The agent process at the source that was told.
        source_boot: BootId,
        /// The one at the target.
        target_boot: BootId,
    },
    /// The VM runs at the target, the source was not yet heard of.
    Settling,
    /// It is over.
    Ended {
        /// How.
        end: End,
        /// Why, for people; empty when moved.
        reason: String,
        /// When.
        at: Moment,
    },
}

/// Figures of a migration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationResult {
    /// What was transferred.
    pub counters: Counters,
    /// QEMU's own figure.
    pub qemu_downtime_ms: u32,
    /// From the stop at the source until the target answers that it runs.
    pub blackout_ms: u32,
    /// Digest of the whole guest memory at the source (verify mode).
    pub source_digest: String,
    /// Digest of the whole guest memory at the target (verify mode).
    pub target_digest: String,
}

/// Racks or hosts being emptied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvacuationRecord {
    /// Its number.
    pub id: EvacuationId,
    /// The client's id of the request.
    pub request: String,
    /// Racks or hosts, as asked.
    pub sources: Vec<String>,
    /// Racks or hosts, as asked.
    pub targets: Vec<String>,
    /// The hosts the sources were resolved to.
    pub source_hosts: Vec<HostName>,
    /// The hosts the targets were resolved to.
    pub target_hosts: Vec<HostName>,
    /// How to move.
    pub options: MoveOptions,
    /// What its moves may put on links, all together.
    #[serde(default)]
    pub link_limits: BTreeMap<LinkName, LinkLimit>,
    /// When it should have ended.
    #[serde(default)]
    pub deadline: Option<Moment>,
    /// A client asked to stop.
    pub cancelled: bool,
    /// No move of it starts for now.
    #[serde(default)]
    pub paused: bool,
    /// When it was asked for.
    pub created: Moment,
    /// When its last migration ended.
    pub ended: Option<Moment>,
    /// Every VM's attempts, the latest last.
    pub vms: BTreeMap<VmName, Vec<MigrationId>>,
    /// The evacuation whose VMs it brings back.
    #[serde(default)]
    pub restores: Option<EvacuationId>,
    /// VMs that stay, as asked.
    #[serde(default)]
    pub exclude: BTreeSet<VmName>,
    /// VMs that could not move stay, as asked.
    #[serde(default)]
    pub skip_blocked: bool,
    /// VMs of the sources that it does not move.
    #[serde(default)]
    pub left_out: Vec<StayingVm>,
    /// It does not cordon its sources, as asked.
    #[serde(default)]
    pub no_cordon: bool,
    /// What was on its sources when it ended.
    #[serde(default)]
    pub remains: Remains,
}

/// The inventory as it was imported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryRecord {
    /// The file.
    pub text: String,
    /// What the fleet decides by.
    pub topology: Topology,
    /// When it was imported.
    pub imported: Moment,
}

/// What moves may put on a link, in each direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitRecord {
    /// The link.
    pub link: LinkName,
    /// How much.
    pub limit: LinkLimit,
}

/// What lets a host in, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// The host.
    pub host: HostName,
    /// A digest of the token's secret.
    pub digest: String,
    /// When it is no longer good.
    pub expires: Moment,
}

/// A name, of whichever role, whose certificates are good no more; or one certificate of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpelledRecord {
    /// The name that the certificates state.
    pub name: String,
    /// The serial number, hexadecimal; none: every certificate of the name.
    pub serial: Option<String>,
    /// The certificate that asked for it; empty without TLS.
    pub by: String,
    /// When.
    pub at: Moment,
}

impl Standing {
    /// The migration it stands in.
    pub const fn migration(self) -> Option<MigrationId> {
        match self {
            Self::Stable => None,
            Self::Moving(migration) | Self::Committed { migration, .. } => Some(migration),
        }
    }
}

impl MigrationRecord {
    /// It is not over.
    pub const fn is_active(&self) -> bool {
        !matches!(self.stage, Stage::Ended { .. })
    }

    /// An agent was told of it, and ownership is not yet stable.
    pub const fn is_ordered(&self) -> bool {
        matches!(self.stage, Stage::Preparing { .. } | Stage::Started { .. })
    }
}
