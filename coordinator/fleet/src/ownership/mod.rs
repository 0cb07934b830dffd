//! Which host owns a VM: what agents attest, the table that decides by it, and what follows.

use std::collections::{BTreeMap, BTreeSet};

use crate::{HostName, Installation, Moment, RackName, VmName, agents::Agents, store::Store};

mod adopt;
pub(crate) mod agents;
mod dead;
mod installation;
mod reconcile;
mod sessions;
mod spec;
mod table;

pub(crate) use reconcile::POWERED_OFF;
pub use spec::VmSpecs;
pub use table::*;

/// What agents have said, and what follows from it. Others read it.
#[derive(Debug)]
pub(crate) struct Ownership {
    agents: Agents,
    /// When this leader began: every host was silent then.
    began: Moment,
    /// Since when a host is without agent, as far as this process has seen.
    silent_since: BTreeMap<HostName, Moment>,
    /// VMs that run where they should not, and where that is.
    astray: BTreeMap<VmName, HostName>,
    /// Installations that wanted to speak for a host and were refused, and when they were last.
    refused_installations: BTreeMap<HostName, (Installation, Moment)>,
    /// Racks whose hosts must hear of each other again.
    racks_due: BTreeSet<RackName>,
}

impl Ownership {
    /// Every host is silent until its agent connects.
    pub(crate) fn new(store: &Store, now: Moment) -> Self {
        Self {
            agents: Agents::default(),
            began: now,
            silent_since: store.hosts().keys().map(|host| (host.clone(), now)).collect(),
            astray: BTreeMap::new(),
            refused_installations: BTreeMap::new(),
            racks_due: BTreeSet::new(),
        }
    }

    pub(crate) const fn agents(&self) -> &Agents {
        &self.agents
    }

    pub(crate) const fn astray(&self) -> &BTreeMap<VmName, HostName> {
        &self.astray
    }
}
