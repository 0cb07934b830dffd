//! Where VMs go: requests, plans, and what they are compared with before they start.

pub(crate) mod anti_affinity;
pub(crate) mod candidate;
pub(crate) mod evacuate;
pub(crate) mod left_out;
pub mod placement;
pub(crate) mod planned;
pub(crate) mod remains;
pub(crate) mod restore;
pub(crate) mod topology;

use std::collections::BTreeSet;

use crate::{EvacuationId, HostName, store::Store};
use anti_affinity::{Groups, groups};
use placement::{Demand, Placer, Room, Spread};

/// What plans are made with.
pub(crate) struct Planning {
    placer: Box<dyn Placer>,
    /// VMs that never share a host.
    groups: Groups,
    /// Evacuations whose last move may have ended.
    closing: BTreeSet<EvacuationId>,
}

impl Planning {
    /// As records say, with spread-by-memory.
    pub(crate) fn new(store: &Store) -> Self {
        let closing = store.index().running().collect();
        Self { placer: Box::new(Spread), groups: groups(store), closing }
    }

    pub(crate) fn set_placer(&mut self, placer: Box<dyn Placer>) {
        self.placer = placer;
    }

    /// The inventory has changed.
    pub(crate) fn learn_groups(&mut self, store: &Store) {
        self.groups = groups(store);
    }

    /// The last move of an evacuation may have ended.
    pub(crate) fn may_close(&mut self, evacuation: Option<EvacuationId>) {
        self.closing.extend(evacuation);
    }

    /// Evacuations to look at; each is named again if it must be looked at again.
    pub(crate) fn take_closing(&mut self) -> BTreeSet<EvacuationId> {
        std::mem::take(&mut self.closing)
    }

    /// A place for one VM, if there is one.
    pub(crate) fn place_one(&self, demand: Demand, rooms: &[Room]) -> Option<HostName> {
        self.placer.place(&[demand], rooms).ok()?.pop()
    }
}
