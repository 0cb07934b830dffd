//! Switchover slots: how many VMs may be paused for their switchover at once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::MigrationId;

/// Which migrations hold a slot and which wait for one, first come first served.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    held: BTreeSet<MigrationId>,
    waiting: VecDeque<MigrationId>,
}

/// Why a migration gets no slot now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full {
    pub(crate) limit: u32,
    pub(crate) used: u32,
}

impl Slots {
    /// Asks for a slot. True if it is held already.
    pub(crate) fn ask(&mut self, id: MigrationId) -> bool {
        if self.held.contains(&id) {
            return true;
        }
        if !self.waiting.contains(&id) {
            self.waiting.push_back(id);
        }
        false
    }

    /// Takes a slot without asking: the VM is paused already.
    pub(crate) fn seize(&mut self, id: MigrationId) {
        self.waiting.retain(|&waiting| waiting != id);
        self.held.insert(id);
    }

    /// Gives back a slot, or the place in the queue.
    pub(crate) fn free(&mut self, id: MigrationId) {
        self.held.remove(&id);
        self.waiting.retain(|&waiting| waiting != id);
    }

    pub(crate) fn holds(&self, id: MigrationId) -> bool {
        self.held.contains(&id)
    }

    pub(crate) fn waiting(&self) -> impl Iterator<Item = MigrationId> {
        self.waiting.iter().copied()
    }

    pub(crate) fn held(&self) -> impl Iterator<Item = MigrationId> {
        self.held.iter().copied()
    }
}

/// Slots in use, in total and by host.
#[derive(Debug)]
pub(crate) struct Usage<H> {
    total: Full,
    per_host_limit: u32,
    hosts: BTreeMap<H, u32>,
}

impl<H: Ord + Clone> Usage<H> {
    pub(crate) fn new(total_limit: u32, per_host_limit: u32) -> Self {
        let total = Full { limit: total_limit, used: 0 };
        Self { total, per_host_limit, hosts: BTreeMap::new() }
    }

    /// Counts one switchover between two hosts.
    pub(crate) fn count(&mut self, source: &H, target: &H) {
        self.total.used += 1;
        for host in [source, target] {
            *self.hosts.entry(host.clone()).or_default() += 1;
        }
    }

    /// Whether one more may start between two hosts; if not, the limit and, if it is a host's, which.
    pub(crate) fn room(&self, source: &H, target: &H) -> Result<(), (Full, Option<H>)> {
        if self.total.used >= self.total.limit {
            return Err((self.total, None));
        }
        for host in [source, target] {
            let used = self.hosts.get(host).copied().unwrap_or(0);
            if used >= self.per_host_limit {
                return Err((Full { limit: self.per_host_limit, used }, Some(host.clone())));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asking_twice_queues_once() {
        let mut slots = Slots::default();
        assert!(!slots.ask(MigrationId(1)));
        assert!(!slots.ask(MigrationId(1)));
        assert_eq!(slots.waiting().count(), 1);
        slots.seize(MigrationId(1));
        assert_eq!(slots.waiting().count(), 0);
        assert!(slots.ask(MigrationId(1)));
        slots.free(MigrationId(1));
        assert!(!slots.holds(MigrationId(1)));
    }

    #[test]
    fn each_limit_is_kept() {
        let mut usage = Usage::new(2, 1);
        usage.count(&"a", &"x");
        assert_eq!(usage.room(&"b", &"x"), Err((Full { limit: 1, used: 1 }, Some("x"))));
        assert_eq!(usage.room(&"b", &"y"), Ok(()));
        usage.count(&"b", &"y");
        assert_eq!(usage.room(&"c", &"z"), Err((Full { limit: 2, used: 2 }, None)));
    }
}
