//! How many there are of what, for metrics.

use std::collections::BTreeMap;

use crate::{End, Fleet, LinkView, Phase, ProblemCode};

/// How many there are of what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Migrations that have not ended, by phase.
    pub phases: BTreeMap<Phase, u32>,
    /// Hosts, by what is heard of them.
    pub hosts: BTreeMap<HostState, u32>,
    /// Hosts that take no VMs.
    pub cordoned: u32,
    /// VMs that have an owner.
    pub vms: u32,
    /// Problems, by kind.
    pub problems: BTreeMap<ProblemCode, u32>,
    /// What is on the links, and their limits.
    pub links: Vec<LinkFigures>,
}

/// What is heard of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostState {
    /// Its agent is connected.
    Connected,
    /// Its agent is not.
    Away,
    /// It was declared dead.
    Dead,
}

/// What is on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkFigures {
    /// The link, and from a to b and back.
    pub view: LinkView,
    /// What moves may put on it in each direction, bytes per second, if it has a limit.
    pub limit: Option<u64>,
}

impl Fleet {
    /// How many there are of what. `version` is the coordinator's.
    pub fn figures(&self, version: &str) -> Figures {
        let mut figures = Figures::default();
        for view in self.live.keys().filter_map(|&id| self.migration(id)) {
            *figures.phases.entry(view.phase).or_default() += 1;
        }
        for host in self.hosts() {
            let state = match host.connection {
                Some(_) => HostState::Connected,
                None if host.declared_dead => HostState::Dead,
                None => HostState::Away,
            };
            *figures.hosts.entry(state).or_default() += 1;
            figures.cordoned += u32::from(host.cordoned);
            figures.vms += host.vms;
        }
        for problem in self.problems(version) {
            *figures.problems.entry(problem.kind).or_default() += 1;
        }
        figures.links = self.links().into_iter().map(LinkFigures::of).collect();
        figures
    }

    /// Counts a migration that has ended.
    pub(crate) fn count_end(&mut self, end: End) {
        *self.view.ended.entry(end).or_default() += 1;
    }

    /// How many migrations have ended since this was asked last, by how. Ask once their turn is committed.
    pub fn take_ended(&mut self) -> BTreeMap<End, u64> {
        std::mem::take(&mut self.view.ended)
    }
}

impl LinkFigures {
    fn of(view: LinkView) -> Self {
        let limit = view.limit.zip(view.link.as_ref()).map(|(limit, link)| limit.of(link.rate));
        Self { view, limit }
    }
}
