//! VMs that arrive: being prepared, expected, received, discarded.

use std::collections::BTreeMap;

use crate::{Carried, HostName, MigrationId};

/// A VM that is to arrive.
#[derive(Debug)]
pub(crate) struct Expected<C: Carried> {
    pub(crate) session: u64,
    /// The target will own with it.
    pub(crate) generation: u64,
    /// The host that it comes from.
    pub(crate) source: Option<HostName>,
    pub(crate) prepare: C::Prepare,
}

/// A VM whose QEMU is being made.
#[derive(Debug)]
struct Preparing<C: Carried> {
    expected: Expected<C>,
    /// It is to be removed as soon as it is made.
    unwanted: bool,
}

/// What became of a preparation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Prepared {
    /// Its source may call, or has called already.
    Ready,
    /// It is to be removed.
    Unwanted,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Targets<C: Carried> {
    preparing: BTreeMap<MigrationId, Preparing<C>>,
    expected: BTreeMap<MigrationId, Expected<C>>,
    /// Generations of those that are received.
    sessions: BTreeMap<MigrationId, u64>,
}

impl<C: Carried> Targets<C> {
    pub(crate) fn new() -> Self {
        let (preparing, expected, sessions) = Default::default();
        Self { preparing, expected, sessions }
    }

    /// A VM is to be prepared; false if it is being prepared already: that will be said of both orders.
    pub(crate) fn prepare(&mut self, migration: MigrationId, expected: Expected<C>) -> bool {
        let fresh = !self.preparing.contains_key(&migration);
        if fresh {
            self.preparing.insert(migration, Preparing { expected, unwanted: false });
        }
        fresh
    }

    /// The VM is ready. Its source is expected, unless it has called already: it will not call again.
    pub(crate) fn prepared(&mut self, migration: MigrationId) -> Option<Prepared> {
        let Preparing { expected, unwanted } = self.preparing.remove(&migration)?;
        if unwanted {
            return Some(Prepared::Unwanted);
        }
        if !self.sessions.contains_key(&migration) || planted!(ExpectsTheCalled) {
            self.expected.insert(migration, expected);
        }
        Some(Prepared::Ready)
    }

    /// It could not be prepared; true if it was to be removed anyway.
    pub(crate) fn not_prepared(&mut self, migration: MigrationId) -> bool {
        self.preparing.remove(&migration).is_some_and(|preparing| preparing.unwanted)
    }

    /// If it is being prepared, removes it as soon as it is there.
    pub(crate) fn unwanted(&mut self, migration: MigrationId) -> bool {
        let preparing = self.preparing.get_mut(&migration);
        preparing.map(|preparing| preparing.unwanted = true).is_some()
    }

    /// A source calls: a session begins if it is the one that is expected. Each is answered once. A certificate of
    /// another host is a stranger's, whatever it knows of the migration: it could bring a state of its own.
    pub(crate) fn called(
        &mut self,
        migration: MigrationId,
        session: u64,
        generation: u64,
        caller: Option<&HostName>,
    ) -> Option<Expected<C>> {
        let expected = self.expected.get(&migration)?;
        let known = expected.session == session && expected.generation == generation;
        let stranger = expected.source.as_ref().zip(caller).is_some_and(|(ours, it)| ours != it);
        if !known || stranger {
            return None;
        }
        self.sessions.insert(migration, expected.generation);
        self.expected.remove(&migration)
    }

    /// No source is expected for this migration any more.
    pub(crate) fn forget(&mut self, migration: MigrationId) {
        self.expected.remove(&migration);
    }

    /// A session is over; returns its generation.
    pub(crate) fn over(&mut self, migration: MigrationId) -> Option<u64> {
        self.sessions.remove(&migration)
    }

    pub(crate) fn receives(&self, migration: MigrationId) -> bool {
        self.sessions.contains_key(&migration)
    }

    pub(crate) fn expected(&self) -> impl Iterator<Item = MigrationId> {
        self.expected.keys().copied()
    }

    pub(crate) fn sessions(&self) -> impl Iterator<Item = MigrationId> {
        self.sessions.keys().copied()
    }
}
