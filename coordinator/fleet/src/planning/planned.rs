//! Evacuations whose moves were planned before: they start exactly as planned, or not at all.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use crate::{
    Effect, EvacuationId, EvacuationRequest, Fleet, HostName, Moment, Move, Plan, Refusal, VmName,
    evacuate::DEAD,
};

/// Something that is not as it was planned.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Difference {
    /// A VM has come to a source.
    #[error("VM {0} is on {1}, and not in the plan")]
    Unplanned(VmName, HostName),
    /// A VM has ended.
    #[error("VM {0} is gone")]
    Gone(VmName),
    /// Another host owns the VM.
    #[error("VM {vm} is on {now}, not on {planned}")]
    Elsewhere {
        /// The VM.
        vm: VmName,
        /// Its owner in the plan.
        planned: HostName,
        /// Its owner.
        now: HostName,
    },
    /// The VM is on a host that is not to be emptied.
    #[error("VM {0} is on {1}, which is none of the sources")]
    NoSource(VmName, HostName),
    /// The VM has another size.
    #[error("VM {vm} has {} MiB, not {} MiB", now >> 20, planned >> 20)]
    Resized {
        /// The VM.
        vm: VmName,
        /// Its guest memory in the plan, bytes.
        planned: u64,
        /// Its guest memory, bytes.
        now: u64,
    },
    /// The VM cannot move now.
    #[error("VM {0} cannot move: {1}")]
    Stuck(VmName, String),
    /// An agent is not connected.
    #[error("the agent of {0} is not connected")]
    Away(HostName),
    /// A target takes no more VMs.
    #[error("{0} is cordoned")]
    Cordoned(HostName),
    /// A host is none of the targets, or is being emptied.
    #[error("{0} is none of the targets any more, or is being emptied")]
    NoTarget(HostName),
    /// It would come to a host that has one of its anti-affinity group.
    #[error("VM {vm} would share {host} with {other} of its anti-affinity group {group}")]
    Together {
        /// The VM.
        vm: VmName,
        /// The target.
        host: HostName,
        /// The one that is there, or shall come there too.
        other: VmName,
        /// The group.
        group: String,
    },
    /// A target has not the memory.
    #[error("{host} has {} MiB free, the plan needs {} MiB", free >> 20, needed >> 20)]
    NoRoom {
        /// The target.
        host: HostName,
        /// What it can still take, bytes.
        free: u64,
        /// What the plan brings there, bytes.
        needed: u64,
    },
}

impl Difference {
    /// What one move of a plan differs in from the same VM's move now.
    pub(crate) fn between(planned: &Move, now: &Move) -> Self {
        let vm = now.vm.clone();
        if planned.source == now.source {
            Self::Resized { vm, planned: planned.memory_bytes, now: now.memory_bytes }
        } else {
            Self::Elsewhere { vm, planned: planned.source.clone(), now: now.source.clone() }
        }
    }
}

impl Fleet {
    /// What of a plan an evacuation would begin; no moves if this request has begun them before.
    ///
    /// # Errors
    /// As [`Fleet::apply_evacuation`].
    pub fn still_planned(&self, request: &EvacuationRequest, plan: &Plan) -> Result<Plan, Refusal> {
        if self.applied(request, plan)?.is_some() {
            return Ok(Plan::default());
        }
        self.compare(request, plan)?;
        Ok(plan.clone())
    }

    /// Starts an evacuation as it was planned, or finds the one this request has started already. A move that fails is
    /// tried again like any other.
    ///
    /// # Errors
    /// [`Refusal::PlanChanged`] with everything that is not as it was planned; then nothing happens. Others as
    /// [`Fleet::create_evacuation`].
    pub fn apply_evacuation(
        &mut self,
        request: &EvacuationRequest,
        plan: &Plan,
        now: Moment,
        out: &mut Vec<Effect>,
    ) -> Result<EvacuationId, Refusal> {
        if let Some(id) = self.applied(request, plan)? {
            return Ok(id);
        }
        self.start_exactly(request, plan, now, out)
    }

    /// The evacuation that this request has started with these VMs.
    fn applied(
        &self,
        request: &EvacuationRequest,
        plan: &Plan,
    ) -> Result<Option<EvacuationId>, Refusal> {
        let Some(known) = self.begun(request)? else { return Ok(None) };
        let planned: BTreeSet<&VmName> = plan.moves.iter().map(|step| &step.vm).collect();
        let left_out: BTreeSet<&VmName> = known.left_out.iter().map(|one| &one.vm).collect();
        let same = known.vms.keys().collect::<BTreeSet<_>>() == planned
            && left_out == plan.left_out_names();
        if same { Ok(Some(known.id)) } else { Err(Refusal::RequestReused(request.request.clone())) }
    }

    /// The sources and the targets, if everything is as it was planned.
    pub(crate) fn compare(
        &self,
        request: &EvacuationRequest,
        plan: &Plan,
    ) -> Result<(Vec<HostName>, Vec<HostName>), Refusal> {
        let moves = &plan.moves;
        let (sources, targets) = self.plan_hosts(request)?;
        let mut found = Vec::new();
        let mut add = |one: Difference| {
            if !found.contains(&one) {
                found.push(one);
            }
        };
        moves.iter().filter_map(|step| self.moved_otherwise(step, &sources)).for_each(&mut add);
        self.unplanned(plan, &sources).for_each(&mut add);
        self.crowded(moves, &targets).into_iter().for_each(&mut add);
        self.together(moves, &targets).into_iter().for_each(&mut add);
        if found.is_empty() { Ok((sources, targets)) } else { Err(Refusal::PlanChanged(found)) }
    }

    /// What is not as planned with one VM.
    fn moved_otherwise(&self, step: &Move, sources: &[HostName]) -> Option<Difference> {
        let name = step.vm.clone();
        let Some(vm) = self.store.vms().get(&name) else { return Some(Difference::Gone(name)) };
        if vm.owner != step.source {
            let (planned, now) = (step.source.clone(), vm.owner.clone());
            return Some(Difference::Elsewhere { vm: name, planned, now });
        }
        if !sources.contains(&vm.owner) {
            return Some(Difference::NoSource(name, vm.owner.clone()));
        }
        if vm.memory_bytes != step.memory_bytes {
            let (planned, now) = (step.memory_bytes, vm.memory_bytes);
            return Some(Difference::Resized { vm: name, planned, now });
        }
        match self.movable(&name) {
            Ok(None) => None,
            Ok(Some(why)) => Some(Difference::Stuck(name, why.to_owned())),
            Err(Refusal::Disconnected(host)) => Some(Difference::Away(host)),
            Err(refusal) => Some(Difference::Stuck(name, refusal.to_string())),
        }
    }

    /// VMs that would be left behind and that the plan does not leave out. Nothing is left of one whose QEMU died; a plan
    /// does not name it either.
    fn unplanned<'a>(
        &'a self,
        plan: &'a Plan,
        sources: &'a [HostName],
    ) -> impl Iterator<Item = Difference> + 'a {
        let mut planned = plan.left_out_names();
        planned.extend(plan.moves.iter().map(|step| &step.vm));
        let there = self.owned_by(sources).into_iter();
        there
            .filter(move |vm| !planned.contains(&vm.name))
            .filter(|vm| self.movable(&vm.name) != Ok(Some(DEAD)))
            .map(|vm| Difference::Unplanned(vm.name.clone(), vm.owner.clone()))
    }

    /// Targets that do not take what is planned.
    fn crowded(&self, moves: &[Move], targets: &[HostName]) -> Vec<Difference> {
        let mut needs: BTreeMap<&HostName, u64> = BTreeMap::new();
        for step in moves {
            let need = needs.entry(&step.target).or_default();
            *need = need.saturating_add(step.memory_bytes);
        }
        let rooms = self.rooms(targets);
        let rooms: BTreeMap<&HostName, _> = rooms.iter().map(|room| (&room.host, room)).collect();
        let difference = |(host, needed): (&HostName, u64)| {
            let room = rooms.get(host);
            let host = host.clone();
            match room.map(|room| room.free_bytes) {
                Some(free) if free >= needed => None,
                Some(free) => Some(Difference::NoRoom { host, free, needed }),
                None if !targets.contains(&host) => Some(Difference::NoTarget(host)),
                None if self.is_cordoned(&host) => Some(Difference::Cordoned(host)),
                None => Some(Difference::Away(host)),
            }
        };
        needs.into_iter().filter_map(difference).collect()
    }

    /// VMs of one group that would meet.
    fn together(&self, moves: &[Move], targets: &[HostName]) -> Vec<Difference> {
        let rooms = self.rooms(targets).into_iter();
        let mut rooms: BTreeMap<HostName, _> =
            rooms.map(|room| (room.host.clone(), room)).collect();
        let mut found = Vec::new();
        for step in moves {
            let room = rooms.get_mut(&step.target);
            let (Some(room), Some(group)) = (room, self.group_of(&step.vm)) else { continue };
            match room.groups.get(group).filter(|other| **other != step.vm) {
                Some(other) => found.push(Difference::Together {
                    vm: step.vm.clone(),
                    host: step.target.clone(),
                    other: other.clone(),
                    group: group.clone(),
                }),
                None => {
                    room.groups.insert(group.clone(), step.vm.clone());
                }
            }
        }
        found
    }
}
