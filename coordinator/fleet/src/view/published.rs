//! What readers see: hosts, VMs and moves as of one turn. Lists, status and watches are made of it by the task of the
//! request, not by the task that decides.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
    sync::Arc,
};

use rackferry_model::NotAnId;

use crate::{
    Change, EvacuationId, EvacuationRecord, EvacuationView, EventId, EventRecord, Fleet, HostName,
    HostView, Key, MigrationId, MigrationRecord, MigrationView, Moment, Phase, Progress, RackName,
    Record, VmName, VmView, Wait, shown, view::rows::Rows,
};

/// A state of what is published. Those of two leaders are not comparable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Revision {
    /// The leader's term.
    pub term: u64,
    /// Rises with every change.
    pub number: u64,
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.number)
    }
}

impl FromStr for Revision {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let (term, number) = text.split_once('.').ok_or(NotAnId)?;
        let term = term.parse().map_err(|_| NotAnId)?;
        Ok(Self { term, number: number.parse().map_err(|_| NotAnId)? })
    }
}

/// A migration as it is shown.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MigrationRow {
    record: MigrationRecord,
    source_rack: RackName,
    target_rack: RackName,
    phase: Phase,
    progress: Progress,
    wait: Option<Wait>,
    reason: String,
}

impl MigrationRow {
    fn of(view: &MigrationView<'_>) -> Self {
        Self {
            record: view.record.clone(),
            source_rack: view.source_rack.clone(),
            target_rack: view.target_rack.clone(),
            phase: view.phase,
            progress: view.progress,
            wait: view.wait.clone(),
            reason: view.reason.to_owned(),
        }
    }

    fn view(&self) -> MigrationView<'_> {
        MigrationView {
            record: &self.record,
            source_rack: self.source_rack.clone(),
            target_rack: self.target_rack.clone(),
            phase: self.phase,
            progress: self.progress,
            wait: self.wait.clone(),
            reason: &self.reason,
        }
    }
}

/// Everything that is shown, as of one turn.
#[derive(Clone, Debug, Default)]
pub struct Published {
    revision: Revision,
    /// Since then nothing was forgotten; a reader that knows an older state starts anew.
    floor: u64,
    now: Moment,
    hosts: Rows<HostName, HostView>,
    vms: Rows<VmName, VmView>,
    migrations: Rows<MigrationId, MigrationRow>,
    evacuations: BTreeMap<EvacuationId, Arc<EvacuationRecord>>,
    events: Rows<EventId, EventRecord>,
}

impl Published {
    /// Which state it is.
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// Whether a reader that knows this state needs to be told changes only.
    pub const fn follows(&self, known: Revision) -> bool {
        known.term == self.revision.term
            && known.number >= self.floor
            && known.number <= self.revision.number
    }

    /// Every host, by name.
    pub fn hosts(&self) -> Vec<&HostView> {
        self.hosts.sorted().into_iter().map(|(_, host)| host).collect()
    }

    /// Every VM, by name.
    pub fn vms(&self) -> Vec<&VmView> {
        self.vms.sorted().into_iter().map(|(_, vm)| vm).collect()
    }

    /// A migration.
    pub fn migration(&self, id: MigrationId) -> Option<MigrationView<'_>> {
        self.migrations.get(&id).map(MigrationRow::view)
    }

    /// Every migration that is remembered, the oldest first.
    pub fn migrations(&self) -> Vec<MigrationView<'_>> {
        self.migrations.sorted().into_iter().map(|(_, row)| row.view()).collect()
    }

    /// Migrations that have changed since a state that this one follows, the oldest first.
    pub fn migrations_since(&self, known: Revision) -> Vec<MigrationView<'_>> {
        let mut changed: Vec<_> =
            self.migrations.since(known.number).map(MigrationRow::view).collect();
        changed.sort_by_key(|view| view.record.id);
        changed
    }

    /// An evacuation.
    pub fn evacuation(&self, id: EvacuationId) -> Option<EvacuationView<'_>> {
        let record = self.evacuations.get(&id)?;
        Some(shown::evacuation(record, self.now, |id| self.migration(id)))
    }

    /// What is durable of an evacuation.
    pub fn evacuation_record(&self, id: EvacuationId) -> Option<&EvacuationRecord> {
        self.evacuations.get(&id).map(|record| &**record)
    }

    /// The same of every one that is remembered, the oldest first.
    pub fn evacuation_records(&self) -> impl Iterator<Item = &EvacuationRecord> {
        self.evacuations.values().map(|record| &**record)
    }

    /// Events behind one, the oldest first. Costs what is taken.
    pub fn events_after(&self, id: EventId) -> impl Iterator<Item = &EventRecord> {
        self.events.after(id)
    }

    /// Events before one, the latest first; all of them without one. Costs what is taken.
    pub fn events_before(&self, id: Option<EventId>) -> impl Iterator<Item = &EventRecord> {
        self.events.before(id.unwrap_or(EventId(u64::MAX)))
    }

    /// How many rows there are: hosts, VMs, moves.
    pub fn len(&self) -> [usize; 3] {
        [self.hosts.len(), self.vms.len(), self.migrations.len()]
    }

    /// There is nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == [0; 3]
    }
}

/// What has changed since it was published last, more rather than less: rows that say the same are found out.
#[derive(Debug, Default)]
pub(crate) struct Unpublished {
    hosts: BTreeSet<HostName>,
    vms: BTreeSet<VmName>,
    migrations: BTreeSet<MigrationId>,
    evacuations: BTreeSet<EvacuationId>,
    events: BTreeSet<EventId>,
}

impl Unpublished {
    pub(super) fn host(&mut self, host: &HostName) {
        self.hosts.insert(host.clone());
    }

    pub(super) fn vm(&mut self, vm: &VmName) {
        self.vms.insert(vm.clone());
    }

    pub(super) fn migration(&mut self, id: MigrationId) {
        self.migrations.insert(id);
    }
}

impl Fleet {
    /// Says in which term it leads: revisions of several leaders are told apart by it.
    pub fn set_term(&mut self, term: u64) {
        Arc::make_mut(&mut self.view.published).revision.term = term;
    }

    /// Everything that is shown, up to date.
    pub fn published(&mut self) -> Arc<Published> {
        let Unpublished { hosts, vms, migrations, evacuations, events } =
            std::mem::take(&mut self.view.unpublished);
        let mut published = std::mem::take(&mut self.view.published);
        let rows = Arc::make_mut(&mut published);
        let number = rows.revision.number + 1;
        let mut news = false;
        for host in hosts {
            let view = self.store.hosts().get(&host).map(|record| self.view_host(record));
            news |= rows.hosts.set(host, view, number);
        }
        for vm in vms {
            let view = self.vm(&vm);
            news |= rows.vms.set(vm, view, number);
        }
        for id in migrations {
            let row = self.migration(id).map(|view| MigrationRow::of(&view));
            let is_gone = row.is_none();
            if rows.migrations.set(id, row, number) {
                news = true;
                // Changes do not tell what was forgotten.
                rows.floor = if is_gone { number } else { rows.floor };
            }
        }
        for id in evacuations {
            news = true;
            match self.store.evacuations().get(&id) {
                Some(record) => drop(rows.evacuations.insert(id, Arc::new(record.clone()))),
                None => drop(rows.evacuations.remove(&id)),
            }
        }
        for id in events {
            news |= rows.events.set(id, self.store.events().get(id).cloned(), number);
        }
        rows.now = self.now;
        if news {
            rows.revision.number = number;
        }
        self.view.published = published;
        self.view.published.clone()
    }

    /// Everything is published anew.
    pub(crate) fn republish(&mut self) {
        self.view.unpublished.hosts.extend(self.store.hosts().keys().cloned());
        self.view.unpublished.vms.extend(self.store.vms().keys().cloned());
        self.view.unpublished.migrations.extend(self.store.migrations().keys().copied());
        self.view.unpublished.evacuations.extend(self.store.evacuations().keys().copied());
        self.view.unpublished.events.extend(self.store.events().ids());
    }

    /// Records have changed, and with them what is shown.
    pub(crate) fn unpublish(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Put(Record::Host(host)) => self.view.unpublished.host(&host.name),
                Change::Put(Record::Vm(vm)) => {
                    self.view.unpublished.vm(&vm.name);
                    self.view.unpublished.host(&vm.owner);
                    self.view.unpublished.migrations.extend(self.move_of(&vm.name));
                }
                Change::Put(Record::Migration(migration)) => {
                    self.view.unpublished.migration(migration.id);
                    self.view.unpublished.vm(&migration.vm);
                    self.view.unpublished.host(&migration.source);
                    self.view.unpublished.host(&migration.target);
                }
                Change::Put(Record::Evacuation(one)) => {
                    self.view.unpublished.evacuations.insert(one.id);
                }
                Change::Put(Record::Inventory(_)) => self.republish(),
                Change::Put(Record::Event(event)) => {
                    self.view.unpublished.events.insert(event.id);
                }
                Change::Remove(Key::Event(id)) => {
                    self.view.unpublished.events.insert(*id);
                }
                Change::Remove(Key::Host(host)) => self.view.unpublished.host(host),
                Change::Remove(Key::Vm(vm)) => self.view.unpublished.vm(vm),
                Change::Remove(Key::Migration(id)) => self.view.unpublished.migration(*id),
                Change::Remove(Key::Evacuation(id)) => {
                    self.view.unpublished.evacuations.insert(*id);
                }
                Change::Put(
                    Record::Numbers(_) | Record::Limit(_) | Record::Token(_) | Record::Expelled(_),
                )
                | Change::Remove(
                    Key::Numbers
                    | Key::Inventory
                    | Key::Limit(_)
                    | Key::Token(_)
                    | Key::Expelled(..),
                ) => {}
            }
        }
    }

    /// An agent came, went or listed something else: all that depends on it is shown anew.
    pub(crate) fn unpublish_host(&mut self, host: &HostName) {
        self.view.unpublished.host(host);
        let index = self.store.index();
        self.view.unpublished.vms.extend(index.vms_of_host(host).cloned());
        let moves = index.begun_from(host).chain(index.begun_to(host));
        self.view.unpublished.migrations.extend(moves.chain(index.queued_from(host)));
    }
}
