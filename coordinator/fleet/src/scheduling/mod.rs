//! When moves start and how fast they go: the queue, what hosts and links can take, slots, retries and holds.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    EvacuationId, HostName, MigrationId, RackName, Route, Stage, Standing, queue::Blocker,
    store::Store,
};
use {queue::Queue, slots::Slots};

mod begin;
mod capacity;
mod cordon;
mod dispatch;
mod force;
pub(crate) mod links;
mod pause;
pub(crate) mod queue;
mod retry;
mod shares;
pub(crate) mod slots;
mod switchover;

/// What waits, and what must be divided anew. Others say what has changed; only this room decides.
#[derive(Debug)]
pub(crate) struct Scheduling {
    /// What is queued, and what it waits for.
    queue: Queue,
    /// More may start than was looked at in this turn.
    more: bool,
    slots: Slots,
    /// A move may get a switchover slot.
    slots_due: bool,
    /// Something changed that may change what a source may send.
    rates_due: bool,
    /// What lies between racks, as far as it was asked for.
    routes: BTreeMap<(RackName, RackName), Route>,
    /// Running evacuations whose deadline has passed, as was told.
    overdue: BTreeSet<EvacuationId>,
}

impl Scheduling {
    /// As records say.
    pub(crate) fn new(store: &Store) -> Self {
        let mut queue = Queue::default();
        let queued = store.migrations().values().filter(|one| one.stage == Stage::Queued);
        queued.for_each(|one| queue.look_at(one.id));
        let mut slots = Slots::default();
        // Committed, their VMs are paused, whichever leader granted that.
        for vm in store.vms().values() {
            if let Standing::Committed { migration, .. } = vm.standing {
                slots.seize(migration);
            }
        }
        Self {
            queue,
            more: false,
            slots,
            slots_due: true,
            rates_due: true,
            routes: BTreeMap::new(),
            overdue: BTreeSet::new(),
        }
    }

    /// More may start than was looked at: another turn is worth while, whatever comes.
    pub(crate) const fn has_more(&self) -> bool {
        self.more
    }

    /// Slots and rates are divided anew at the end of the turn.
    pub(crate) const fn review(&mut self) {
        self.slots_due = true;
        self.rates_due = true;
    }

    /// Rates are divided anew at the end of the turn.
    pub(crate) const fn review_rates(&mut self) {
        self.rates_due = true;
    }

    /// A move is queued.
    pub(crate) fn look_at(&mut self, id: MigrationId) {
        self.queue.look_at(id);
    }

    /// A move that waits is looked at again.
    pub(crate) fn look_again(&mut self, id: MigrationId) {
        self.queue.look_again(id);
    }

    /// What a host's agent or list was in the way of is looked at.
    pub(crate) fn release_host(&mut self, host: &HostName) {
        self.queue.release(&Blocker::Host(host.clone()));
    }

    /// Asks for a switchover slot. True if it is held already.
    pub(crate) fn ask_slot(&mut self, id: MigrationId) -> bool {
        self.review();
        self.slots.ask(id)
    }

    /// Takes a slot without asking: the VM is paused already.
    pub(crate) fn seize_slot(&mut self, id: MigrationId) {
        self.slots.seize(id);
        self.slots_due = true;
    }

    pub(crate) fn holds_slot(&self, id: MigrationId) -> bool {
        self.slots.holds(id)
    }

    /// Gives back a slot, or the place in the queue for one.
    pub(crate) fn free_slot(&mut self, id: MigrationId) {
        self.slots.free(id);
    }

    /// A move has ended.
    pub(crate) fn forget(&mut self, id: MigrationId) {
        self.slots.free(id);
        self.queue.remove(id);
    }
}
