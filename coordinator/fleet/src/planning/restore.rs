//! Brings the VMs that an evacuation has moved back to the hosts they came from.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Difference, Effect, End, EvacuationId, EvacuationRequest, Fleet, HostName, MigrationRecord,
    Moment, Move, MoveOptions, Plan, Refusal, Stage, StayingVm, VmName, evacuate::Resolved,
};

/// Bring the VMs of this evacuation back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreRequest {
    /// The client's id: the same id gives the same evacuation.
    pub request: String,
    /// The one that has ended.
    pub evacuation: EvacuationId,
    /// How to move.
    pub options: MoveOptions,
}

/// What bringing VMs back would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restore {
    /// Each VM, from its host to the one it came from.
    pub moves: Vec<Move>,
    /// VMs that were moved and are not brought back.
    pub staying: Vec<StayingVm>,
}

/// What differs between the VMs that could go back and those that can.
fn changed(planned: &[Move], moves: &[Move], staying: &[StayingVm]) -> Vec<Difference> {
    let now = |vm: &VmName| moves.iter().find(|step| step.vm == *vm);
    let why = |vm: &VmName| staying.iter().find(|one| one.vm == *vm).map(|one| one.why.clone());
    let missed = planned.iter().filter(|step| now(&step.vm) != Some(step));
    let missed = missed.map(|step| match (now(&step.vm), why(&step.vm)) {
        (Some(other), _) => Difference::between(step, other),
        (None, Some(why)) => Difference::Stuck(step.vm.clone(), why),
        (None, None) => Difference::Gone(step.vm.clone()),
    });
    let known: BTreeSet<&VmName> = planned.iter().map(|step| &step.vm).collect();
    let new = moves.iter().filter(|step| !known.contains(&step.vm));
    let new = new.map(|step| Difference::Unplanned(step.vm.clone(), step.source.clone()));
    missed.chain(new).collect()
}

impl Fleet {
    /// What bringing back the VMs of an evacuation would do now.
    ///
    /// # Errors
    /// If it is not known or has not ended, if it has moved nothing, or if nothing can be brought back.
    pub fn plan_restore(&self, id: EvacuationId) -> Result<Restore, Refusal> {
        let plan = self.restorable(id)?;
        match (plan.moves.is_empty(), plan.staying.is_empty()) {
            (true, true) => Err(Refusal::NothingToMove),
            (true, false) => Err(Refusal::NoneRestorable(plan.staying)),
            (false, _) => Ok(plan),
        }
    }

    /// What a request would begin; without moves if it has begun them before.
    ///
    /// # Errors
    /// As [`Fleet::restore_evacuation`].
    pub fn new_restore(&self, request: &RestoreRequest) -> Result<Restore, Refusal> {
        match self.restored(request)? {
            Some(_) => Ok(Restore::default()),
            None => self.plan_restore(request.evacuation),
        }
    }

    /// Brings the VMs of an ended evacuation back, as an evacuation of its own, or finds the one this request has
    /// started already. Each VM goes to the host it came from and to no other.
    ///
    /// # Errors
    /// As [`Fleet::plan_restore`]; [`Refusal::RequestReused`]. Then nothing happens.
    pub fn restore_evacuation(
        &mut self,
        request: &RestoreRequest,
        now: Moment,
        out: &mut Vec<Effect>,
    ) -> Result<(EvacuationId, Vec<StayingVm>), Refusal> {
        let moves = self.new_restore(request)?.moves;
        self.start_restore(request, &moves, now, out)
    }

    /// Brings exactly these moves about, which [`Fleet::new_restore`] has planned, or finds the evacuation this request
    /// has started already.
    ///
    /// # Errors
    /// [`Refusal::PlanChanged`] if other VMs can go back than when it was planned; others as
    /// [`Fleet::restore_evacuation`]. Then nothing happens.
    pub fn start_restore(
        &mut self,
        request: &RestoreRequest,
        planned: &[Move],
        now: Moment,
        out: &mut Vec<Effect>,
    ) -> Result<(EvacuationId, Vec<StayingVm>), Refusal> {
        if let Some((id, vms)) = self.restored(request)? {
            // The one before may be forgotten by now; then it is not known which VMs stayed.
            let mut staying = self.restorable(request.evacuation).unwrap_or_default().staying;
            staying.retain(|one| !vms.contains(&one.vm));
            return Ok((id, staying));
        }
        let Restore { moves, staying } = self.plan_restore(request.evacuation)?;
        if moves != planned {
            return Err(Refusal::PlanChanged(changed(planned, &moves, &staying)));
        }
        let names = |host: fn(&Move) -> &HostName| {
            let names: BTreeSet<&HostName> = moves.iter().map(host).collect();
            names.into_iter().map(ToString::to_string).collect()
        };
        let wanted = EvacuationRequest {
            request: request.request.clone(),
            sources: names(|step| &step.source),
            targets: names(|step| &step.target),
            options: request.options,
            link_limits: BTreeMap::new(),
            deadline_ns: None,
            exclude: BTreeSet::new(),
            skip_blocked: false,
            no_cordon: false,
        };
        // No host is emptied by it, and a VM has no home but its own.
        let plan = Plan { moves, left_out: Vec::new() };
        let resolved = Resolved { source_hosts: Vec::new(), target_hosts: Vec::new(), plan };
        let id = self.start(&wanted, resolved, Some(request.evacuation), now, out);
        Ok((id, staying))
    }

    /// The evacuation that this request has started, and its VMs.
    fn restored(
        &self,
        request: &RestoreRequest,
    ) -> Result<Option<(EvacuationId, BTreeSet<VmName>)>, Refusal> {
        let Some(known) = self.evacuation_by_request(&request.request) else { return Ok(None) };
        if known.restores != Some(request.evacuation) || known.options != request.options {
            return Err(Refusal::RequestReused(request.request.clone()));
        }
        Ok(Some((known.id, known.vms.keys().cloned().collect())))
    }

    /// The VMs that an ended evacuation has moved: which can go back and which cannot.
    fn restorable(&self, id: EvacuationId) -> Result<Restore, Refusal> {
        let record = self.store.evacuations().get(&id).ok_or(Refusal::UnknownEvacuation(id))?;
        if record.ended.is_none() {
            return Err(Refusal::Running(id));
        }
        let mut plan = Restore::default();
        let mut free = BTreeMap::new();
        for attempts in record.vms.values() {
            let last = attempts.last().and_then(|id| self.store.migrations().get(id));
            let moved =
                |one: &&MigrationRecord| matches!(one.stage, Stage::Ended { end: End::Moved, .. });
            let Some(migration) = last.filter(moved) else { continue };
            match self.way_back(migration, &mut free) {
                Ok(step) => plan.moves.push(step),
                Err(staying) => plan.staying.push(staying),
            }
        }
        Ok(plan)
    }

    /// One VM's way back; `free` is what homes can still take.
    fn way_back(
        &self,
        migration: &MigrationRecord,
        free: &mut BTreeMap<HostName, u64>,
    ) -> Result<Move, StayingVm> {
        let (name, home) = (migration.vm.clone(), migration.source.clone());
        let Some(vm) = self.store.vms().get(&name) else {
            return Err(StayingVm { vm: name, host: None, why: "it is gone".to_owned() });
        };
        let stays =
            |why: String| Err(StayingVm { vm: vm.name.clone(), host: Some(vm.owner.clone()), why });
        if vm.owner == home {
            return stays(format!("it is back on {home}"));
        }
        if vm.owner != migration.target {
            return stays(format!("it has left {} for {}", migration.target, vm.owner));
        }
        match self.movable(&name) {
            Ok(None) => {}
            Ok(Some(why)) => return stays(why.to_owned()),
            Err(refusal) => return stays(refusal.to_string()),
        }
        let running = self.store.index().running();
        let mut running = running.filter_map(|id| self.store.evacuations().get(&id));
        if running.any(|other| other.source_hosts.contains(&home)) {
            return stays(format!("{home} is being emptied"));
        }
        // A cordon that the evacuation has set itself ends with the way back.
        let own = migration.evacuation.is_some() && self.cordoned_by(&home) == migration.evacuation;
        if self.is_cordoned(&home) && !own {
            return stays(format!("{home} is cordoned"));
        }
        if !self.ownership.agents().contains_key(&home) {
            return stays(format!("the agent of {home} is not connected"));
        }
        let room = self.room_bytes(&home, None);
        let left = free.entry(home.clone()).or_insert(room);
        let need = vm.memory_bytes;
        if *left < need {
            let (need, left) = (need >> 20, *left >> 20);
            return stays(format!("it needs {need} MiB, {home} has {left} MiB left"));
        }
        *left -= need;
        Ok(Move { vm: name, memory_bytes: need, source: vm.owner.clone(), target: home })
    }
}
