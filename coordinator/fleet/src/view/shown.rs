//! What clients see: plain values, made when asked for.

use crate::{
    Activity, BootId, Condition, Connection, Counters, End, EvacuationId, EvacuationRecord,
    EvacuationState, Fleet, Generation, HostId, HostName, Installation, MigrationId,
    MigrationRecord, Moment, Phase, Progress, RackName, RunState, Stage, Standing, VmName,
    WaitCode,
    ownership::{Source, Target},
};

/// Why something does not go on right now, with the numbers that decide it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// What kind of reason.
    pub code: WaitCode,
    /// The host, or what else it is about.
    pub detail: String,
    /// How many may.
    pub limit: u32,
    /// How many do.
    pub used: u32,
}

impl Wait {
    pub(crate) fn host(code: WaitCode, host: &HostName) -> Self {
        Self { code, detail: host.to_string(), limit: 0, used: 0 }
    }

    pub(crate) fn full(code: WaitCode, host: &HostName, limit: u32, used: u32) -> Self {
        Self { code, detail: host.to_string(), limit, used }
    }
}

/// A migration.
#[derive(Clone, Debug, PartialEq)]
pub struct MigrationView<'a> {
    /// What is durable of it.
    pub record: &'a MigrationRecord,
    /// Rack of the source.
    pub source_rack: RackName,
    /// Rack of the target.
    pub target_rack: RackName,
    /// How far it is.
    pub phase: Phase,
    /// What its source said last.
    pub progress: Progress,
    /// Why it waits.
    pub wait: Option<Wait>,
    /// Why it did not move its VM; empty if it did.
    pub reason: &'a str,
}

/// An evacuation.
#[derive(Clone, Debug, PartialEq)]
pub struct EvacuationView<'a> {
    /// What is durable of it.
    pub record: &'a EvacuationRecord,
    /// How far it is.
    pub state: EvacuationState,
    /// Its deadline passed before it ended.
    pub overdue: bool,
    /// The latest attempt of every VM, by name.
    pub migrations: Vec<MigrationView<'a>>,
    /// All together.
    pub totals: Totals,
}

/// VMs of an evacuation by what became of them, and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// All.
    pub vms: u32,
    /// Not begun.
    pub queued: u32,
    /// Begun.
    pub copying: u32,
    /// Switching.
    pub switching: u32,
    /// Moved.
    pub done: u32,
    /// Stayed with their sources.
    pub failed: u32,
    /// Lost, paused, or with an uncertain owner: an operator is needed.
    pub uncertain: u32,
    /// Guest memory of all.
    pub memory_bytes: u64,
    /// Guest memory of those moved.
    pub memory_done_bytes: u64,
    /// Of all attempts.
    pub counters: Counters,
}

/// A host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostView {
    /// Its name.
    pub name: HostName,
    /// Its rack.
    pub rack: RackName,
    /// Its number.
    pub id: HostId,
    /// Where its pages are served; empty without agent.
    pub page_addr: String,
    /// Its whole memory.
    pub memory_bytes: u64,
    /// What it can still take.
    pub memory_free_bytes: u64,
    /// The connection of its agent.
    pub connection: Option<Connection>,
    /// The start of its agent.
    pub boot: Option<BootId>,
    /// Version of its agent.
    pub agent_version: String,
    /// VMs it owns.
    pub vms: u32,
    /// Moves leaving it.
    pub outgoing: u32,
    /// Moves reaching it.
    pub incoming: u32,
    /// It takes no VMs.
    pub cordoned: bool,
    /// It was declared dead.
    pub declared_dead: bool,
    /// The installation that speaks for it.
    pub installation: Option<Installation>,
    /// What the inventory says of it.
    pub listed: Listed,
}

/// What the inventory says of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listed {
    /// There is no inventory.
    NoInventory,
    /// It is there.
    Yes,
    /// It is not there.
    No,
    /// It is there, in another rack than its agent says.
    Elsewhere(RackName),
}

/// A VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmView {
    /// Its name.
    pub name: VmName,
    /// The host that owns it.
    pub owner: HostName,
    /// The rack of that.
    pub rack: RackName,
    /// Guest memory.
    pub memory_bytes: u64,
    /// Of its ownership.
    pub generation: Generation,
    /// Of its ownership.
    pub standing: Standing,
    /// What it does.
    pub condition: Condition,
    /// The migration it takes part in.
    pub migration: Option<MigrationId>,
    /// Its QEMU.
    pub qemu_version: String,
    /// Its machine type.
    pub machine_type: String,
}

impl Fleet {
    /// An evacuation.
    pub fn evacuation(&self, id: EvacuationId) -> Option<EvacuationView<'_>> {
        self.store.evacuations().get(&id).map(|record| self.view_evacuation(record))
    }

    /// Every evacuation that is remembered, the oldest first.
    pub fn evacuations(&self) -> impl Iterator<Item = EvacuationView<'_>> {
        self.store.evacuations().values().map(|record| self.view_evacuation(record))
    }

    /// A migration.
    pub fn migration(&self, id: MigrationId) -> Option<MigrationView<'_>> {
        self.store.migrations().get(&id).map(|record| self.view_migration(record))
    }

    /// Every migration that is remembered, the oldest first.
    pub fn migrations(&self) -> impl Iterator<Item = MigrationView<'_>> {
        self.store.migrations().values().map(|record| self.view_migration(record))
    }

    /// The rack a host was last in; empty if it is not known.
    pub fn rack_of(&self, host: &HostName) -> RackName {
        self.store.rack_of(host)
    }

    /// Every host, by name.
    pub fn hosts(&self) -> Vec<HostView> {
        self.store.hosts().values().map(|record| self.view_host(record)).collect()
    }

    /// Every VM, by name.
    pub fn vms(&self) -> Vec<VmView> {
        self.store.vms().keys().filter_map(|name| self.vm(name)).collect()
    }

    fn view_evacuation<'a>(&'a self, record: &'a EvacuationRecord) -> EvacuationView<'a> {
        evacuation(record, self.now, |id| self.migration(id))
    }

    fn view_migration<'a>(&'a self, record: &'a MigrationRecord) -> MigrationView<'a> {
        let live = self.live.get(&record.id);
        let reason = match &record.stage {
            Stage::Ended { reason, .. } => reason.as_str(),
            _ => live.and_then(|live| live.call_off.why()).unwrap_or_default(),
        };
        MigrationView {
            record,
            source_rack: self.rack_of(&record.source),
            target_rack: self.rack_of(&record.target),
            phase: self.phase(record),
            progress: live.map(|live| live.progress).unwrap_or_default(),
            wait: live
                .and_then(|live| live.wait.clone())
                .map(|wait| self.counted(record, wait))
                .or_else(|| self.silence(record)),
            reason,
        }
    }

    /// A paused evacuation shows how many of its moves are still under way.
    fn counted(&self, record: &MigrationRecord, wait: Wait) -> Wait {
        match (wait.code, record.evacuation) {
            (WaitCode::EvacuationPaused, Some(id)) => {
                let begun = self.store.index().begun().filter(|&one| self.counts(one));
                let begun = begun.filter_map(|one| self.store.migrations().get(&one));
                let used = begun.filter(|one| one.evacuation == Some(id)).count() as u32;
                Wait { used, ..wait }
            }
            _ => wait,
        }
    }

    /// A move under way waits for a silent agent.
    fn silence(&self, record: &MigrationRecord) -> Option<Wait> {
        if !record.is_ordered() {
            return None;
        }
        if !self.ownership.agents().contains_key(&record.source) {
            return Some(Wait::host(WaitCode::SourceDisconnected, &record.source));
        }
        let silent = !self.ownership.agents().contains_key(&record.target);
        silent.then(|| Wait::host(WaitCode::TargetDisconnected, &record.target))
    }

    fn phase(&self, record: &MigrationRecord) -> Phase {
        let Some(live) = self.live.get(&record.id) else {
            return match &record.stage {
                Stage::Ended { end: End::Moved | End::Ended, .. } => Phase::Done,
                Stage::Ended { end: End::Lost, .. } => Phase::Failed,
                _ => Phase::RolledBack,
            };
        };
        if live.conflict {
            return Phase::OwnerUnknown;
        }
        let standing = self.store.vms().get(&record.vm).map(|vm| vm.standing);
        match (&record.stage, standing) {
            (Stage::Queued, _) => Phase::Queued,
            (Stage::Settling | Stage::Ended { .. }, _) => Phase::Announcing,
            (_, Some(Standing::Committed { source_stopped: true, .. })) => {
                if live.target == Target::Unknown
                    && !self.ownership.agents().contains_key(&record.target)
                {
                    Phase::PausedRecoverable
                } else {
                    Phase::Switching
                }
            }
            (_, Some(Standing::Committed { .. })) => {
                let silent = live.source == Source::Unknown
                    && !self.ownership.agents().contains_key(&record.source);
                if silent || live.source == Source::Died {
                    Phase::OwnerUnknown
                } else {
                    Phase::Switching
                }
            }
            _ if record.cancelled || live.call_off.why().is_some() => Phase::Cancelling,
            (Stage::Preparing { .. }, _) => Phase::Preparing,
            _ => match live.progress.activity {
                Activity::Copying => Phase::Copying,
                Activity::Verifying => Phase::Verifying,
                Activity::Switching => Phase::Switching,
            },
        }
    }

    pub(crate) fn view_host(&self, record: &crate::HostRecord) -> HostView {
        let agent = self.ownership.agents().get(&record.name);
        HostView {
            name: record.name.clone(),
            rack: record.rack.clone(),
            id: record.id,
            page_addr: agent.map(|agent| agent.page_addr.clone()).unwrap_or_default(),
            memory_bytes: record.memory_bytes,
            memory_free_bytes: self.free_bytes(&record.name, None),
            connection: agent.map(|agent| agent.connection),
            boot: agent.map(|agent| agent.boot.clone()),
            agent_version: agent.map(|agent| agent.version.clone()).unwrap_or_default(),
            vms: self.store.index().vm_count(&record.name) as u32,
            outgoing: self.busy_from(&record.name),
            incoming: self.busy_to(&record.name),
            cordoned: record.cordoned,
            declared_dead: record.declared_dead,
            installation: record.installation.clone(),
            listed: self.listed_as(record),
        }
    }

    fn listed_as(&self, record: &crate::HostRecord) -> Listed {
        let Some(inventory) = self.inventory() else { return Listed::NoInventory };
        match inventory.topology.rack_of(&record.name) {
            None => Listed::No,
            Some(rack) if *rack == record.rack => Listed::Yes,
            Some(rack) => Listed::Elsewhere(rack.clone()),
        }
    }

    /// A VM.
    pub fn vm(&self, name: &VmName) -> Option<VmView> {
        let record = self.store.vms().get(name)?;
        let listed = self.listed_vm(&record.owner, name);
        Some(VmView {
            name: name.clone(),
            owner: record.owner.clone(),
            rack: self.rack_of(&record.owner),
            memory_bytes: record.memory_bytes,
            generation: record.generation,
            standing: record.standing,
            condition: match listed {
                None if self.is_lost_with_its_host(record) => Condition::Dead,
                listed => condition(listed.map(|vm| vm.run_state)),
            },
            migration: self.move_of(name),
            qemu_version: listed.map(|vm| vm.qemu_version.clone()).unwrap_or_default(),
            machine_type: listed.map(|vm| vm.machine_type.clone()).unwrap_or_default(),
        })
    }

    /// Its host was declared dead, or has a new installation since, which does not have it.
    fn is_lost_with_its_host(&self, record: &crate::VmRecord) -> bool {
        let replaced = self.ownership.agents().contains_key(&record.owner)
            && self.store.lost(&record.owner, record.generation);
        self.is_declared_dead(&record.owner) || replaced
    }
}

/// An evacuation, with its moves as something shows them.
pub(crate) fn evacuation<'a>(
    record: &'a EvacuationRecord,
    now: Moment,
    migration: impl Fn(MigrationId) -> Option<MigrationView<'a>>,
) -> EvacuationView<'a> {
    let mut migrations = Vec::with_capacity(record.vms.len());
    let mut totals = Totals::default();
    for attempts in record.vms.values() {
        for view in attempts.iter().filter_map(|&id| migration(id)) {
            totals.counters += view.counters();
        }
        if let Some(view) = attempts.last().and_then(|&id| migration(id)) {
            totals.count(&view);
            migrations.push(view);
        }
    }
    let is_empty = record.left_out.is_empty() && record.remains.is_empty();
    let state = match (record.ended, record.cancelled) {
        (None, false) if record.paused => EvacuationState::Paused,
        (None, false) => EvacuationState::Running,
        (None, true) => EvacuationState::Cancelling,
        (Some(_), _) if totals.done == totals.vms && is_empty => EvacuationState::Done,
        (Some(_), true) => EvacuationState::Cancelled,
        (Some(_), false) => EvacuationState::Incomplete,
    };
    EvacuationView { record, state, overdue: is_overdue(record, now), migrations, totals }
}

/// The deadline of an evacuation passed before it ended.
pub(crate) fn is_overdue(evacuation: &EvacuationRecord, now: Moment) -> bool {
    let end = evacuation.ended.unwrap_or(now);
    evacuation.deadline.is_some_and(|deadline| deadline <= end)
}

fn condition(run_state: Option<RunState>) -> Condition {
    match run_state {
        Some(RunState::Running) => Condition::Running,
        Some(RunState::Paused) => Condition::Paused,
        Some(RunState::Incoming | RunState::Loaded | RunState::MovedOut) => Condition::Switching,
        Some(RunState::Dead) => Condition::Dead,
        Some(RunState::Unknown) | None => Condition::Unknown,
    }
}

impl MigrationView<'_> {
    /// What was transferred so far.
    pub fn counters(&self) -> Counters {
        if self.record.result.counters == Counters::default() {
            self.progress.counters
        } else {
            self.record.result.counters
        }
    }
}

impl Totals {
    fn count(&mut self, view: &MigrationView<'_>) {
        self.vms += 1;
        self.memory_bytes += view.record.memory_bytes;
        let of_its_kind = match view.phase {
            Phase::Queued => &mut self.queued,
            Phase::Preparing | Phase::Copying | Phase::Verifying | Phase::Cancelling => {
                &mut self.copying
            }
            Phase::Switching | Phase::Announcing => &mut self.switching,
            Phase::Done => {
                self.memory_done_bytes += view.record.memory_bytes;
                &mut self.done
            }
            Phase::RolledBack => &mut self.failed,
            Phase::Failed | Phase::PausedRecoverable | Phase::OwnerUnknown => &mut self.uncertain,
        };
        *of_its_kind += 1;
    }
}
