//! What is on hosts that should be empty: an evacuation has done its work only if there is nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};

use crate::{
    Action, End, EvacuationId, EvacuationRecord, Fleet, HostName, RackName, RunState, Stage,
    StayingVm, Totals, VmName, VmReport,
};

/// What is on hosts that should be empty, as far as is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remains {
    /// VMs that run, are paused or unknown, or are on their way there.
    pub vms: Vec<StayingVm>,
    /// Hosts whose list is not known: their agents are not connected.
    pub silent: Vec<HostName>,
}

impl Remains {
    /// The hosts are empty, and that is certain.
    pub fn is_empty(&self) -> bool {
        self.vms.is_empty() && self.silent.is_empty()
    }
}

impl fmt::Display for Remains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let vms = self.vms.iter().map(ToString::to_string);
        let silent = self.silent.iter().map(|host| format!("the agent of {host} is not connected"));
        let all: Vec<String> = vms.chain(silent).collect();
        f.write_str(&crate::refusal::shorten(&all))
    }
}

impl Fleet {
    /// What is on the sources of an evacuation. One that brings VMs back empties nothing.
    pub(crate) fn remains_of(&self, evacuation: &EvacuationRecord) -> Remains {
        if evacuation.source_hosts.is_empty() {
            return Remains::default();
        }
        let hosts = self.hosts_to_empty(&evacuation.sources, &evacuation.source_hosts);
        let mut whys = BTreeMap::new();
        for (vm, attempts) in &evacuation.vms {
            let last = attempts.last().and_then(|id| self.store.migrations().get(id));
            if let Some(Stage::Ended { end, reason, .. }) = last.map(|last| &last.stage)
                && !matches!(end, End::Moved | End::Ended)
            {
                whys.insert(vm, format!("it was not moved: {reason}"));
            }
        }
        whys.extend(evacuation.left_out.iter().map(|one| (&one.vm, one.why.clone())));
        self.remains_on(&hosts, &whys)
    }

    /// The hosts of places: those of before, those of now, and those of the inventory that were never heard of.
    pub(crate) fn hosts_to_empty(
        &self,
        places: &[String],
        before: &[HostName],
    ) -> BTreeSet<HostName> {
        let mut hosts: BTreeSet<HostName> = before.iter().cloned().collect();
        for place in places {
            // Of a place that is gone there is nothing more to know.
            hosts.extend(self.resolve(std::slice::from_ref(place)).unwrap_or_default());
            let rack = RackName::from(place.as_str());
            let listed = self.inventory().and_then(|one| one.topology.racks.get(&rack));
            let listed = listed.into_iter().flatten();
            hosts.extend(listed.filter(|host| !self.store.hosts().contains_key(*host)).cloned());
        }
        hosts
    }

    /// What is on hosts; `whys` are reasons that are known.
    pub(crate) fn remains_on(
        &self,
        hosts: &BTreeSet<HostName>,
        whys: &BTreeMap<&VmName, String>,
    ) -> Remains {
        let mut remains = Remains::default();
        for host in hosts {
            let mut here: BTreeMap<VmName, String> = BTreeMap::new();
            if let Some(agent) = self.ownership.agents().get(host) {
                let listed = agent.vms.values();
                let listed = listed.filter_map(|vm| Some((vm.name.clone(), self.is_on(host, vm)?)));
                here.extend(listed);
            } else if !self.is_declared_dead(host) {
                remains.silent.push(host.clone());
                let owned = self.store.index().vms_of_host(host);
                here.extend(owned.map(|vm| (vm.clone(), "its agent is not connected".to_owned())));
            }
            for id in self.store.index().begun_to(host) {
                if let Some(one) = self.store.migrations().get(&id) {
                    here.entry(one.vm.clone()).or_insert_with(|| format!("{id} brings it here"));
                }
            }
            remains.vms.extend(here.into_iter().map(|(vm, why)| StayingVm {
                why: whys.get(&vm).cloned().unwrap_or(why),
                host: Some(host.clone()),
                vm,
            }));
        }
        remains
    }

    /// Why a VM that a host lists is still there; none if nothing is left that could run.
    fn is_on(&self, host: &HostName, vm: &VmReport) -> Option<String> {
        let owner = self.store.vms().get(&vm.name).map(|record| &record.owner);
        if self.ownership.astray().get(&vm.name) == Some(host) {
            let owner = owner.map(ToString::to_string).unwrap_or_default();
            return Some(format!("it runs here, and {owner} owns it"));
        }
        let why = match vm.run_state {
            RunState::Unknown => Some("its QEMU does not answer"),
            RunState::Running | RunState::Paused if self.has_left(host, vm) => None,
            RunState::Running => Some("it runs, and is no part of the evacuation"),
            RunState::Paused => Some("it is paused"),
            RunState::Incoming | RunState::Loaded | RunState::MovedOut | RunState::Dead => None,
        };
        let migration = self.move_of(&vm.name);
        why.map(|why| {
            migration.map_or_else(|| why.to_owned(), |id| format!("it takes part in {id}"))
        })
    }

    /// The list is older than the end of the move that took the VM away.
    fn has_left(&self, host: &HostName, vm: &VmReport) -> bool {
        let is_owner = self.store.vms().get(&vm.name).is_some_and(|record| record.owner == *host);
        let attempts = self.store.index().attempts_of_vm(&vm.name).rev();
        let mut attempts = attempts.filter_map(|id| self.store.migrations().get(&id));
        let last = attempts.find(|one| one.source == *host);
        !is_owner
            && last.is_some_and(|one| {
                let gone = |end: &End| matches!(end, End::Moved | End::Ended);
                match &one.stage {
                    Stage::Ended { end, .. } => gone(end),
                    stage => *stage == Stage::Settling,
                }
            })
    }

    /// An agent of a source is away, and not for so long that it is given up: its list may come.
    pub(crate) fn awaits_lists(&self, evacuation: &EvacuationRecord) -> bool {
        let timeout = self.limits.host_silence_timeout_ns;
        let away = |host: &HostName| {
            !self.ownership.agents().contains_key(host)
                && !self.is_declared_dead(host)
                && self.silent_for(host).is_some_and(|silent| silent <= timeout)
        };
        !evacuation.cancelled && evacuation.source_hosts.iter().any(away)
    }

    /// Ends evacuations whose last migration has ended, with what is on their sources then. True if a cordon was lifted:
    /// more may start.
    pub(crate) fn close_evacuations(&mut self) -> bool {
        let mut lifted = false;
        for id in self.planning.take_closing() {
            lifted |= self.close_evacuation(id);
        }
        lifted
    }

    fn close_evacuation(&mut self, id: EvacuationId) -> bool {
        let goes_on = self.store.index().moves_of_evacuation(id).next().is_some();
        let Some(record) = self.store.evacuations().get(&id) else { return false };
        if goes_on || record.ended.is_some() {
            return false;
        }
        if self.awaits_lists(record) {
            self.planning.may_close(Some(id));
            return false;
        }
        let (remains, cancelled, now) = (self.remains_of(record), record.cancelled, self.now);
        self.store.change_evacuation(id, |record| {
            record.ended = Some(now);
            record.remains = remains;
        });
        self.tell_of_evacuation(id);
        cancelled && self.lift_cordons_of(id)
    }

    /// Operators ask what became of an evacuation.
    fn tell_of_evacuation(&mut self, id: EvacuationId) {
        let Some(view) = self.evacuation(id) else { return };
        let Totals { done, vms, .. } = view.totals;
        let detail = format!("{}: {done} of {vms} VMs moved", view.state);
        self.happened(Action::EvacuationEnded, id.to_string(), &detail);
    }
}
