//! Queued moves by what keeps them from starting. A move is looked at again when that is released, and not before.

use std::collections::{BTreeMap, BTreeSet};

use crate::{EvacuationId, HostName, MigrationId, Moment, RackName};

/// What keeps a queued move from starting.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Blocker {
    /// Its evacuation is paused.
    Paused(EvacuationId),
    /// A moment that must come first.
    Until(Moment),
    /// The agent of a host is away, or lists what is in the way.
    Host(HostName),
    /// As many moves are under way as may.
    Fleet,
    /// As many moves leave a host as may.
    Leaving(HostName),
    /// As many moves reach a host as may.
    Reaching(HostName),
    /// The one host it may go to takes no VM, or not this one.
    Room(HostName),
    /// No target of its evacuation takes it.
    Targets(EvacuationId),
    /// Links between two racks carry as many moves as may, of all or of an evacuation.
    Corridor(Option<EvacuationId>, RackName, RackName),
}

/// Queued moves: those to be looked at, and the others by their blockers.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// To be looked at.
    ready: BTreeSet<MigrationId>,
    waiting: BTreeMap<MigrationId, Blocker>,
    /// With the memory each needs.
    lists: BTreeMap<Blocker, BTreeMap<MigrationId, u64>>,
    /// Blockers that may have room for some, in the order of their lists.
    freed: BTreeSet<Blocker>,
    /// Hosts that may take what found no target.
    freed_hosts: BTreeSet<HostName>,
    /// Where the last round over [`Blocker::Targets`] ended.
    cursor: MigrationId,
}

impl Queue {
    /// A move is queued, or must be looked at whatever it waits for.
    pub(crate) fn look_at(&mut self, id: MigrationId) {
        self.leave_list(id);
        self.ready.insert(id);
    }

    /// A move must be looked at if it waits.
    pub(crate) fn look_again(&mut self, id: MigrationId) {
        if self.waiting.contains_key(&id) {
            self.look_at(id);
        }
    }

    /// A move waits for something.
    pub(crate) fn wait(&mut self, id: MigrationId, memory_bytes: u64, blocker: Blocker) {
        self.leave_list(id);
        self.ready.remove(&id);
        self.lists.entry(blocker.clone()).or_default().insert(id, memory_bytes);
        self.waiting.insert(id, blocker);
    }

    /// A move has started, or has ended.
    pub(crate) fn remove(&mut self, id: MigrationId) {
        self.leave_list(id);
        self.ready.remove(&id);
    }

    fn leave_list(&mut self, id: MigrationId) {
        let Some(blocker) = self.waiting.remove(&id) else { return };
        if let Some(list) = self.lists.get_mut(&blocker) {
            list.remove(&id);
            if list.is_empty() {
                self.lists.remove(&blocker);
            }
        }
    }

    /// What a blocker held back is looked at.
    pub(crate) fn release(&mut self, blocker: &Blocker) {
        self.release_if(blocker, |_, _| true);
    }

    /// What of it passes a test by its memory is looked at.
    pub(crate) fn release_if(
        &mut self,
        blocker: &Blocker,
        passes: impl Fn(MigrationId, u64) -> bool,
    ) {
        let Some(list) = self.lists.get(blocker) else { return };
        let passing = list.iter().filter(|(id, memory)| passes(**id, **memory));
        let passing: Vec<MigrationId> = passing.map(|(&id, _)| id).collect();
        passing.into_iter().for_each(|id| self.look_at(id));
    }

    /// Moments that have come release what waited for them.
    pub(crate) fn release_until(&mut self, now: Moment) {
        let due = self.lists.range(Blocker::Until(Moment(0))..=Blocker::Until(now));
        let due: Vec<Blocker> = due.map(|(blocker, _)| blocker.clone()).collect();
        due.iter().for_each(|blocker| self.release(blocker));
    }

    /// A blocker may have room for some of what it holds back.
    pub(crate) fn free(&mut self, blocker: Blocker) {
        if self.lists.contains_key(&blocker) {
            self.freed.insert(blocker);
        }
    }

    /// Links may have room for some of what they hold back.
    pub(crate) fn free_corridors(&mut self) {
        let corridors = self.lists.keys().filter(|one| matches!(one, Blocker::Corridor(..)));
        self.freed.extend(corridors.cloned());
    }

    /// A host may take what it did not take before.
    pub(crate) fn free_host(&mut self, host: &HostName) {
        let lists = self.lists.keys().any(|one| matches!(one, Blocker::Targets(_)));
        if lists {
            self.freed_hosts.insert(host.clone());
        }
    }

    /// A blocker has no room, whatever was said.
    pub(crate) fn is_full(&mut self, blocker: &Blocker) {
        self.freed.remove(blocker);
    }

    /// The oldest that must be looked at.
    pub(crate) fn ready(&self) -> Option<MigrationId> {
        self.ready.first().copied()
    }

    /// Blockers that may have room, each with the oldest it holds back.
    pub(crate) fn freed(&self) -> Vec<(MigrationId, Blocker)> {
        let oldest = |blocker: &Blocker| Some(*self.lists.get(blocker)?.first_key_value()?.0);
        let freed = self.freed.iter();
        freed.filter_map(|blocker| Some((oldest(blocker)?, blocker.clone()))).collect()
    }

    /// Forgets blockers that hold nothing back.
    pub(crate) fn forget_empty(&mut self) {
        self.freed.retain(|blocker| self.lists.contains_key(blocker));
    }

    /// A host that may take what found no target.
    pub(crate) fn take_freed_host(&mut self) -> Option<HostName> {
        self.freed_hosts.pop_first()
    }

    /// It comes to its turn later.
    pub(crate) fn keep_freed_host(&mut self, host: HostName) {
        self.freed_hosts.insert(host);
    }

    /// Evacuations with moves that found no target.
    pub(crate) fn without_targets(&self) -> Vec<EvacuationId> {
        let evacuations = self.lists.keys().filter_map(|blocker| match blocker {
            Blocker::Targets(evacuation) => Some(*evacuation),
            _ => None,
        });
        evacuations.collect()
    }

    /// What a blocker holds back, with the memory each needs.
    pub(crate) fn list(&self, blocker: &Blocker) -> Vec<(MigrationId, u64)> {
        let list = self.lists.get(blocker).into_iter().flatten();
        list.map(|(&id, &memory)| (id, memory)).collect()
    }

    /// What a move waits for.
    pub(crate) fn blocker(&self, id: MigrationId) -> Option<&Blocker> {
        self.waiting.get(&id)
    }

    /// Hosts that are waited for.
    pub(crate) fn hosts_waited_for(&self) -> Vec<HostName> {
        let hosts = self.lists.keys().filter_map(|blocker| match blocker {
            Blocker::Host(host) => Some(host.clone()),
            _ => None,
        });
        hosts.collect()
    }

    /// A few of those without target are looked at in turn: what may have changed for them is not known by host.
    pub(crate) fn rotate(&mut self, count: usize) {
        let all: BTreeSet<MigrationId> = self
            .lists
            .iter()
            .filter(|(blocker, _)| matches!(blocker, Blocker::Targets(_)))
            .flat_map(|(_, list)| list.keys().copied())
            .collect();
        let behind = all.iter().filter(|&&id| id > self.cursor);
        let next = behind.chain(all.iter().filter(|&&id| id <= self.cursor)).take(count);
        for &id in next.collect::<Vec<_>>() {
            self.cursor = id;
            self.look_at(id);
        }
    }

    /// There is something to look at.
    pub(crate) fn has_work(&self) -> bool {
        !self.ready.is_empty() || !self.freed.is_empty() || !self.freed_hosts.is_empty()
    }
}
