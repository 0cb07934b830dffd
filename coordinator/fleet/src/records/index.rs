//! What records are found by beside their keys. Kept by the store with every change, so that no turn costs more than
//! what it is about.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Crossing, EvacuationId, EvacuationRecord, HostName, HostRecord, MigrationId, MigrationRecord,
    RackName, Stage, VmName, VmRecord,
};

/// Moves at one end, those that wait behind those that have begun.
type Moves = BTreeSet<(bool, MigrationId)>;

/// What of a migration decides where it is found. The rest may change as it likes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    target: HostName,
    crossing: Crossing,
    active: bool,
    queued: bool,
}

impl Place {
    pub(crate) fn of(migration: &MigrationRecord) -> Self {
        Self {
            target: migration.target.clone(),
            crossing: migration.crossing,
            active: migration.is_active(),
            queued: migration.stage == Stage::Queued,
        }
    }
}

/// Every way to find a record.
#[derive(Debug, Default)]
pub(crate) struct Index {
    hosts_of_rack: BTreeMap<RackName, BTreeSet<HostName>>,
    vms_of_host: BTreeMap<HostName, BTreeSet<VmName>>,
    attempts_of_vm: BTreeMap<VmName, BTreeSet<MigrationId>>,
    begun: BTreeSet<MigrationId>,
    leaving: BTreeMap<HostName, Moves>,
    reaching: BTreeMap<HostName, Moves>,
    /// Hosts whose first begun move came, or whose last one went.
    receivers_changed: BTreeSet<HostName>,
    open: BTreeMap<Crossing, u32>,
    crossings: BTreeMap<(EvacuationId, RackName, RackName), Crossing>,
    moves_of_evacuation: BTreeMap<EvacuationId, BTreeSet<MigrationId>>,
    requests: BTreeMap<String, MigrationId>,
    evacuation_requests: BTreeMap<String, EvacuationId>,
    running: BTreeSet<EvacuationId>,
    ended_evacuations: BTreeSet<EvacuationId>,
    ended_singles: BTreeSet<MigrationId>,
}

impl Index {
    pub(crate) fn add_host(&mut self, host: &HostRecord) {
        self.hosts_of_rack.entry(host.rack.clone()).or_default().insert(host.name.clone());
    }

    pub(crate) fn remove_host(&mut self, host: &HostRecord) {
        take_out(&mut self.hosts_of_rack, &host.rack, &host.name);
    }

    pub(crate) fn add_vm(&mut self, vm: &VmRecord) {
        self.vms_of_host.entry(vm.owner.clone()).or_default().insert(vm.name.clone());
    }

    pub(crate) fn remove_vm(&mut self, name: &VmName, owner: &HostName) {
        take_out(&mut self.vms_of_host, owner, name);
    }

    pub(crate) fn add_migration(&mut self, migration: &MigrationRecord) {
        let id = migration.id;
        self.attempts_of_vm.entry(migration.vm.clone()).or_default().insert(id);
        if let Some(request) = migration.request.as_ref().filter(|request| !request.is_empty()) {
            self.requests.entry(request.clone()).or_insert(id);
        }
        self.place(migration, &Place::of(migration));
    }

    pub(crate) fn remove_migration(&mut self, migration: &MigrationRecord) {
        let id = migration.id;
        take_out(&mut self.attempts_of_vm, &migration.vm, &id);
        if let Some(request) = &migration.request
            && self.requests.get(request) == Some(&id)
        {
            self.requests.remove(request);
        }
        self.displace(migration, &Place::of(migration));
        self.ended_singles.remove(&id);
    }

    /// A migration has changed from what it was.
    pub(crate) fn move_migration(&mut self, was: &Place, migration: &MigrationRecord) {
        let is = Place::of(migration);
        if *was != is {
            self.displace(migration, was);
            self.place(migration, &is);
        }
    }

    fn place(&mut self, migration: &MigrationRecord, place: &Place) {
        let id = migration.id;
        if !place.active {
            if migration.evacuation.is_none() {
                self.ended_singles.insert(id);
            }
            return;
        }
        if !place.queued {
            self.begun.insert(id);
            self.receives_or_not(&place.target);
        }
        let key = (place.queued, id);
        self.leaving.entry(migration.source.clone()).or_default().insert(key);
        self.reaching.entry(place.target.clone()).or_default().insert(key);
        *self.open.entry(place.crossing).or_default() += 1;
        if let Some(evacuation) = migration.evacuation {
            self.moves_of_evacuation.entry(evacuation).or_default().insert(id);
        }
    }

    fn displace(&mut self, migration: &MigrationRecord, place: &Place) {
        if !place.active {
            return;
        }
        let id = migration.id;
        let key = (place.queued, id);
        self.begun.remove(&id);
        take_out(&mut self.leaving, &migration.source, &key);
        take_out(&mut self.reaching, &place.target, &key);
        if !place.queued {
            self.receives_or_not(&place.target);
        }
        if let Some(count) = self.open.get_mut(&place.crossing) {
            *count -= 1;
            if *count == 0 {
                self.open.remove(&place.crossing);
            }
        }
        if let Some(evacuation) = migration.evacuation {
            take_out(&mut self.moves_of_evacuation, &evacuation, &id);
        }
    }

    /// A move to a host begins or is over, and it is the only one that has begun.
    fn receives_or_not(&mut self, host: &HostName) {
        if begun(self.reaching.get(host)).next().is_none() {
            self.receivers_changed.insert(host.clone());
        }
    }

    /// Hosts whose first begun move came, or whose last one went, since this was asked last.
    pub(crate) fn take_receivers_changed(&mut self) -> BTreeSet<HostName> {
        std::mem::take(&mut self.receivers_changed)
    }

    pub(crate) fn add_evacuation(&mut self, evacuation: &EvacuationRecord) {
        if !evacuation.request.is_empty() {
            let id = self.evacuation_requests.entry(evacuation.request.clone());
            id.or_insert(evacuation.id);
        }
        self.place_evacuation(evacuation);
    }

    /// It may have ended.
    pub(crate) fn place_evacuation(&mut self, evacuation: &EvacuationRecord) {
        let (is, other) = match evacuation.ended {
            None => (&mut self.running, &mut self.ended_evacuations),
            Some(_) => (&mut self.ended_evacuations, &mut self.running),
        };
        is.insert(evacuation.id);
        other.remove(&evacuation.id);
    }

    pub(crate) fn remove_evacuation(&mut self, evacuation: &EvacuationRecord) {
        let id = evacuation.id;
        if self.evacuation_requests.get(&evacuation.request) == Some(&id) {
            self.evacuation_requests.remove(&evacuation.request);
        }
        self.running.remove(&id);
        self.ended_evacuations.remove(&id);
        self.crossings.retain(|(of, ..), _| *of != id);
    }

    /// Moves of an evacuation between two racks share a crossing, the first that one of them had.
    pub(crate) fn note_crossing(
        &mut self,
        evacuation: EvacuationId,
        (from, to): (RackName, RackName),
        crossing: Crossing,
    ) {
        self.crossings.entry((evacuation, from, to)).or_insert(crossing);
    }

    /// Hosts are in other racks now.
    pub(crate) fn forget_crossings(&mut self) {
        self.crossings.clear();
    }
}

/// Reading.
impl Index {
    /// Hosts of a rack, by name.
    pub(crate) fn hosts_of_rack(&self, rack: &RackName) -> impl Iterator<Item = &HostName> {
        self.hosts_of_rack.get(rack).into_iter().flatten()
    }

    /// VMs that a host owns, by name.
    pub(crate) fn vms_of_host(&self, host: &HostName) -> impl Iterator<Item = &VmName> {
        self.vms_of_host.get(host).into_iter().flatten()
    }

    /// How many VMs a host owns.
    pub(crate) fn vm_count(&self, host: &HostName) -> usize {
        self.vms_of_host.get(host).map_or(0, BTreeSet::len)
    }

    /// Every attempt to move a VM that is remembered, the oldest first.
    pub(crate) fn attempts_of_vm(
        &self,
        vm: &VmName,
    ) -> impl DoubleEndedIterator<Item = MigrationId> {
        self.attempts_of_vm.get(vm).into_iter().flatten().copied()
    }

    /// Active migrations that an agent was told of.
    pub(crate) fn begun(&self) -> impl Iterator<Item = MigrationId> {
        self.begun.iter().copied()
    }

    /// Queued migrations from a host.
    pub(crate) fn queued_from(&self, host: &HostName) -> impl Iterator<Item = MigrationId> {
        let waiting = |moves: &Moves| moves.range(WAITING..).map(|(_, id)| *id).collect::<Vec<_>>();
        self.leaving.get(host).map(waiting).unwrap_or_default().into_iter()
    }

    /// Migrations from a host that have begun.
    pub(crate) fn begun_from(&self, host: &HostName) -> impl Iterator<Item = MigrationId> {
        begun(self.leaving.get(host))
    }

    /// Active migrations to a host, those that have begun first.
    pub(crate) fn reaching(&self, host: &HostName) -> impl Iterator<Item = MigrationId> {
        self.reaching.get(host).into_iter().flatten().map(|(_, id)| *id)
    }

    /// Migrations to a host that have begun.
    pub(crate) fn begun_to(&self, host: &HostName) -> impl Iterator<Item = MigrationId> {
        begun(self.reaching.get(host))
    }

    /// Crossings that are not over.
    pub(crate) fn open_crossings(&self) -> impl Iterator<Item = Crossing> {
        self.open.keys().copied()
    }

    /// A crossing is not over.
    pub(crate) fn is_open(&self, crossing: Crossing) -> bool {
        self.open.contains_key(&crossing)
    }

    /// The crossing that moves of an evacuation between two racks share, if one had it.
    pub(crate) fn crossing(
        &self,
        evacuation: EvacuationId,
        from: RackName,
        to: RackName,
    ) -> Option<Crossing> {
        self.crossings.get(&(evacuation, from, to)).copied()
    }

    /// Active migrations of an evacuation.
    pub(crate) fn moves_of_evacuation(
        &self,
        evacuation: EvacuationId,
    ) -> impl Iterator<Item = MigrationId> {
        self.moves_of_evacuation.get(&evacuation).into_iter().flatten().copied()
    }

    pub(crate) fn migration_of_request(&self, request: &str) -> Option<MigrationId> {
        self.requests.get(request).copied()
    }

    pub(crate) fn evacuation_of_request(&self, request: &str) -> Option<EvacuationId> {
        self.evacuation_requests.get(request).copied()
    }

    /// Evacuations that have not ended.
    pub(crate) fn running(&self) -> impl Iterator<Item = EvacuationId> {
        self.running.iter().copied()
    }

    /// The oldest evacuations that have ended, beyond those that are kept.
    pub(crate) fn stale_evacuations(&self, keep: usize) -> Vec<EvacuationId> {
        oldest(&self.ended_evacuations, keep)
    }

    /// The oldest single moves that have ended, beyond those that are kept.
    pub(crate) fn stale_singles(&self, keep: usize) -> Vec<MigrationId> {
        oldest(&self.ended_singles, keep)
    }
}

/// The first key of moves that wait.
const WAITING: (bool, MigrationId) = (true, MigrationId(0));

fn begun(moves: Option<&Moves>) -> impl Iterator<Item = MigrationId> {
    moves.into_iter().flat_map(|moves| moves.range(..WAITING)).map(|(_, id)| *id)
}

fn oldest<T: Copy>(ended: &BTreeSet<T>, keep: usize) -> Vec<T> {
    ended.iter().take(ended.len().saturating_sub(keep)).copied().collect()
}

fn take_out<K: Ord, V: Ord>(index: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(values) = index.get_mut(key) {
        values.remove(value);
        if values.is_empty() {
            index.remove(key);
        }
    }
}
