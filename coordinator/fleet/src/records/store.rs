//! The durable records in memory, and which of them changed in this turn.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Change, EvacuationId, EvacuationRecord, EventId, ExpelledRecord, Generation, HostName,
    HostRecord, InventoryRecord, Key, LimitRecord, LinkLimit, LinkName, MigrationId,
    MigrationRecord, Numbers, RackName, Record, TokenRecord, VmName, VmRecord,
    event::History,
    index::{Index, Place},
    record::Numbered,
};

/// Every record. Each change marks its record, and keeps what it is found by.
#[derive(Debug, Default)]
pub(crate) struct Store {
    numbers: Numbers,
    hosts: BTreeMap<HostName, HostRecord>,
    vms: BTreeMap<VmName, VmRecord>,
    migrations: BTreeMap<MigrationId, MigrationRecord>,
    evacuations: BTreeMap<EvacuationId, EvacuationRecord>,
    inventory: Option<Box<InventoryRecord>>,
    limits: BTreeMap<LinkName, LinkLimit>,
    tokens: BTreeMap<HostName, TokenRecord>,
    events: History,
    expelled: BTreeMap<(String, Option<String>), ExpelledRecord>,
    index: Index,
    changed: BTreeSet<Key>,
}

impl Store {
    pub(crate) fn load(records: impl IntoIterator<Item = Record>) -> Self {
        let mut store = Self::default();
        for record in records {
            store.insert(record);
        }
        store.find_crossings();
        store
    }

    fn insert(&mut self, record: Record) {
        match record {
            Record::Numbers(numbers) => self.numbers = numbers,
            Record::Host(host) => {
                self.index.add_host(&host);
                if let Some(old) = self.hosts.insert(host.name.clone(), host)
                    && self.hosts.get(&old.name).is_some_and(|host| host.rack != old.rack)
                {
                    self.index.remove_host(&old);
                    self.find_crossings();
                }
            }
            Record::Vm(vm) => {
                if let Some(old) = self.vms.remove(&vm.name) {
                    self.index.remove_vm(&old.name, &old.owner);
                }
                self.index.add_vm(&vm);
                self.vms.insert(vm.name.clone(), vm);
            }
            Record::Migration(migration) => {
                if let Some(old) = self.migrations.remove(&migration.id) {
                    self.index.remove_migration(&old);
                }
                self.index.add_migration(&migration);
                self.migrations.insert(migration.id, *migration);
            }
            Record::Evacuation(evacuation) => {
                if let Some(old) = self.evacuations.remove(&evacuation.id) {
                    self.index.remove_evacuation(&old);
                }
                self.index.add_evacuation(&evacuation);
                self.evacuations.insert(evacuation.id, *evacuation);
            }
            Record::Inventory(inventory) => self.inventory = Some(inventory),
            Record::Limit(LimitRecord { link, limit }) => {
                self.limits.insert(link, limit);
            }
            Record::Expelled(one) => {
                self.expelled.insert((one.name.clone(), one.serial.clone()), one);
            }
            Record::Token(token) => {
                self.tokens.insert(token.host.clone(), token);
            }
            Record::Event(event) => self.events.insert(*event),
        }
    }

    /// Inserts or replaces a record.
    pub(crate) fn put(&mut self, record: Record) {
        let key = record.key();
        self.insert(record);
        if let Key::Migration(id) = key {
            self.note_crossing(id);
        }
        self.changed.insert(key);
    }

    pub(crate) fn remove_host(&mut self, name: &HostName) {
        if let Some(host) = self.hosts.remove(name) {
            self.index.remove_host(&host);
        }
        self.changed.insert(Key::Host(name.clone()));
    }

    pub(crate) fn remove_vm(&mut self, name: &VmName) {
        if let Some(vm) = self.vms.remove(name) {
            self.index.remove_vm(name, &vm.owner);
        }
        self.changed.insert(Key::Vm(name.clone()));
    }

    pub(crate) fn remove_migration(&mut self, id: MigrationId) {
        if let Some(migration) = self.migrations.remove(&id) {
            self.index.remove_migration(&migration);
        }
        self.changed.insert(Key::Migration(id));
    }

    pub(crate) fn remove_evacuation(&mut self, id: EvacuationId) {
        if let Some(evacuation) = self.evacuations.remove(&id) {
            self.index.remove_evacuation(&evacuation);
        }
        self.changed.insert(Key::Evacuation(id));
    }

    pub(crate) fn remove_limit(&mut self, link: &LinkName) {
        self.limits.remove(link);
        self.changed.insert(Key::Limit(link.clone()));
    }

    pub(crate) fn remove_expelled(&mut self, name: &str, serial: Option<&str>) -> bool {
        let key = (name.to_owned(), serial.map(str::to_owned));
        let removed = self.expelled.remove(&key).is_some();
        if removed {
            self.changed.insert(Key::Expelled(key.0, key.1));
        }
        removed
    }

    pub(crate) fn remove_token(&mut self, host: &HostName) {
        self.tokens.remove(host);
        self.changed.insert(Key::Token(host.clone()));
    }

    pub(crate) fn remove_event(&mut self, id: EventId) {
        self.events.remove(id);
        self.changed.insert(Key::Event(id));
    }

    /// A number that was never given before.
    pub(crate) fn next<T: Numbered>(&mut self) -> T {
        self.changed.insert(Key::Numbers);
        self.numbers.next()
    }

    /// What a host owned with this generation may have run on an installation of it that is dead.
    pub(crate) fn lost(&self, host: &HostName, generation: Generation) -> bool {
        self.hosts.get(host).is_some_and(|record| generation <= record.lost_up_to)
    }

    /// The last generation that was given.
    pub(crate) fn last_generation(&self) -> Generation {
        self.numbers.generation
    }

    /// An epoch that no rack view had before.
    pub(crate) fn next_epoch(&mut self) -> u64 {
        self.changed.insert(Key::Numbers);
        self.numbers.epoch += 1;
        self.numbers.epoch
    }

    pub(crate) fn hosts(&self) -> &BTreeMap<HostName, HostRecord> {
        &self.hosts
    }

    pub(crate) fn vms(&self) -> &BTreeMap<VmName, VmRecord> {
        &self.vms
    }

    pub(crate) fn migrations(&self) -> &BTreeMap<MigrationId, MigrationRecord> {
        &self.migrations
    }

    pub(crate) fn evacuations(&self) -> &BTreeMap<EvacuationId, EvacuationRecord> {
        &self.evacuations
    }

    pub(crate) fn inventory(&self) -> Option<&InventoryRecord> {
        self.inventory.as_deref()
    }

    pub(crate) fn limits(&self) -> &BTreeMap<LinkName, LinkLimit> {
        &self.limits
    }

    pub(crate) fn expelled(&self) -> &BTreeMap<(String, Option<String>), ExpelledRecord> {
        &self.expelled
    }

    pub(crate) fn tokens(&self) -> &BTreeMap<HostName, TokenRecord> {
        &self.tokens
    }

    pub(crate) fn events(&self) -> &History {
        &self.events
    }

    /// What records are found by.
    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    /// Hosts to which the first VM has begun to move, or the last one moves no more, since this was asked last.
    pub(crate) fn take_receivers_changed(&mut self) -> BTreeSet<HostName> {
        self.index.take_receivers_changed()
    }

    /// Changes a host, if it is known; not its rack.
    pub(crate) fn change_host(&mut self, name: &HostName, change: impl FnOnce(&mut HostRecord)) {
        if let Some(host) = self.hosts.get_mut(name) {
            change(host);
            self.changed.insert(Key::Host(name.clone()));
        }
    }

    /// Changes a VM, if it is known.
    pub(crate) fn change_vm(&mut self, name: &VmName, change: impl FnOnce(&mut VmRecord)) {
        let Some(vm) = self.vms.get_mut(name) else { return };
        let was = vm.owner.clone();
        change(vm);
        if vm.owner != was {
            self.index.remove_vm(name, &was);
            self.index.add_vm(vm);
        }
        self.changed.insert(Key::Vm(name.clone()));
    }

    /// Changes a migration, if it is known; neither its VM nor its source.
    pub(crate) fn change_migration(
        &mut self,
        id: MigrationId,
        change: impl FnOnce(&mut MigrationRecord),
    ) {
        let Some(migration) = self.migrations.get_mut(&id) else { return };
        let was = Place::of(migration);
        change(migration);
        self.index.move_migration(&was, migration);
        self.note_crossing(id);
        self.changed.insert(Key::Migration(id));
    }

    /// Changes an evacuation, if it is known.
    pub(crate) fn change_evacuation(
        &mut self,
        id: EvacuationId,
        change: impl FnOnce(&mut EvacuationRecord),
    ) {
        let Some(evacuation) = self.evacuations.get_mut(&id) else { return };
        change(evacuation);
        self.index.place_evacuation(evacuation);
        self.changed.insert(Key::Evacuation(id));
    }

    /// The rack a host was last in; empty if it is not known.
    pub(crate) fn rack_of(&self, host: &HostName) -> RackName {
        let record = self.hosts.get(host);
        record.map_or_else(|| RackName::new(""), |record| record.rack.clone())
    }

    fn note_crossing(&mut self, id: MigrationId) {
        let Some(migration) = self.migrations.get(&id) else { return };
        let Some(evacuation) = migration.evacuation else { return };
        let racks = (self.rack_of(&migration.source), self.rack_of(&migration.target));
        self.index.note_crossing(evacuation, racks, migration.crossing);
    }

    fn find_crossings(&mut self) {
        self.index.forget_crossings();
        let all: Vec<MigrationId> = self.migrations.keys().copied().collect();
        for id in all {
            self.note_crossing(id);
        }
    }

    /// A record is as it was last written.
    pub(crate) fn is_written(&self, key: &Key) -> bool {
        !self.changed.contains(key)
    }

    /// What changed since the last call.
    pub(crate) fn take_changes(&mut self) -> Vec<Change> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().map(|key| self.change(key)).collect()
    }

    fn change(&self, key: Key) -> Change {
        let record = match &key {
            Key::Numbers => Some(Record::Numbers(self.numbers)),
            Key::Host(name) => self.hosts.get(name).cloned().map(Record::Host),
            Key::Vm(name) => self.vms.get(name).cloned().map(Record::Vm),
            Key::Migration(id) => {
                self.migrations.get(id).cloned().map(|record| Record::Migration(Box::new(record)))
            }
            Key::Evacuation(id) => {
                self.evacuations.get(id).cloned().map(|record| Record::Evacuation(Box::new(record)))
            }
            Key::Inventory => self.inventory.clone().map(Record::Inventory),
            Key::Limit(link) => self
                .limits
                .get(link)
                .map(|&limit| Record::Limit(LimitRecord { link: link.clone(), limit })),
            Key::Expelled(name, serial) => {
                let one = self.expelled.get(&(name.clone(), serial.clone()));
                one.cloned().map(Record::Expelled)
            }
            Key::Token(host) => self.tokens.get(host).cloned().map(Record::Token),
            Key::Event(id) => {
                self.events.get(*id).cloned().map(|event| Record::Event(Box::new(event)))
            }
        };
        record.map_or(Change::Remove(key), Change::Put)
    }
}
