//! The durable records in memory, and which of them changed in this turn.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Change, EvacuationId, EvacuationRecord, HostName, HostRecord, InventoryRecord, Key,
    LimitRecord, LinkLimit, LinkName, MigrationId, MigrationRecord, Numbers, Record, TokenRecord,
    VmName, VmRecord, record::Numbered,
};

/// Every record; whoever takes one to change it marks it as changed.
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
    changed: BTreeSet<Key>,
}

impl Store {
    pub(crate) fn load(records: impl IntoIterator<Item = Record>) -> Self {
        let mut store = Self::default();
        for record in records {
            store.insert(record);
        }
        store
    }

    fn insert(&mut self, record: Record) {
        match record {
            Record::Numbers(numbers) => self.numbers = numbers,
            Record::Host(host) => {
                self.hosts.insert(host.name.clone(), host);
            }
            Record::Vm(vm) => {
                self.vms.insert(vm.name.clone(), vm);
            }
            Record::Migration(migration) => {
                self.migrations.insert(migration.id, *migration);
            }
            Record::Evacuation(evacuation) => {
                self.evacuations.insert(evacuation.id, *evacuation);
            }
            Record::Inventory(inventory) => self.inventory = Some(inventory),
            Record::Limit(LimitRecord { link, limit }) => {
                self.limits.insert(link, limit);
            }
            Record::Token(token) => {
                self.tokens.insert(token.host.clone(), token);
            }
        }
    }

    /// Inserts or replaces a record.
    pub(crate) fn put(&mut self, record: Record) {
        self.changed.insert(record.key());
        self.insert(record);
    }

    pub(crate) fn remove_vm(&mut self, name: &VmName) {
        self.vms.remove(name);
        self.changed.insert(Key::Vm(name.clone()));
    }

    pub(crate) fn remove_migration(&mut self, id: MigrationId) {
        self.migrations.remove(&id);
        self.changed.insert(Key::Migration(id));
    }

    pub(crate) fn remove_evacuation(&mut self, id: EvacuationId) {
        self.evacuations.remove(&id);
        self.changed.insert(Key::Evacuation(id));
    }

    pub(crate) fn remove_limit(&mut self, link: &LinkName) {
        self.limits.remove(link);
        self.changed.insert(Key::Limit(link.clone()));
    }

    pub(crate) fn remove_token(&mut self, host: &HostName) {
        self.tokens.remove(host);
        self.changed.insert(Key::Token(host.clone()));
    }

    /// A number nobody had before.
    pub(crate) fn next<T: Numbered>(&mut self) -> T {
        self.changed.insert(Key::Numbers);
        self.numbers.next()
    }

    /// An epoch of rack views nobody had before.
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

    pub(crate) fn host_mut(&mut self, name: &HostName) -> Option<&mut HostRecord> {
        let host = self.hosts.get_mut(name)?;
        self.changed.insert(Key::Host(name.clone()));
        Some(host)
    }

    pub(crate) fn tokens(&self) -> &BTreeMap<HostName, TokenRecord> {
        &self.tokens
    }

    pub(crate) fn vm_mut(&mut self, name: &VmName) -> Option<&mut VmRecord> {
        let vm = self.vms.get_mut(name)?;
        self.changed.insert(Key::Vm(name.clone()));
        Some(vm)
    }

    pub(crate) fn migration_mut(&mut self, id: MigrationId) -> Option<&mut MigrationRecord> {
        let migration = self.migrations.get_mut(&id)?;
        self.changed.insert(Key::Migration(id));
        Some(migration)
    }

    pub(crate) fn evacuation_mut(&mut self, id: EvacuationId) -> Option<&mut EvacuationRecord> {
        let evacuation = self.evacuations.get_mut(&id)?;
        self.changed.insert(Key::Evacuation(id));
        Some(evacuation)
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
            Key::Token(host) => self.tokens.get(host).cloned().map(Record::Token),
        };
        record.map_or(Change::Remove(key), Change::Put)
    }
}
