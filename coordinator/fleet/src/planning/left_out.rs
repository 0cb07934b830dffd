//! VMs that an evacuation leaves where they are: as asked, or because they cannot move.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};

use crate::{
    EvacuationRequest, Fleet, HostName, Move, Refusal, VmName, VmRecord,
    evacuate::DEAD,
    placement::{Demand, Room},
};

/// What an evacuation would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Each VM that moves.
    pub moves: Vec<Move>,
    /// VMs of the sources that stay, by name.
    pub left_out: Vec<StayingVm>,
}

/// A VM that stays where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StayingVm {
    /// Its name.
    pub vm: VmName,
    /// Where it is, if anywhere.
    pub host: Option<HostName>,
    /// Why it stays.
    pub why: String,
}

impl fmt::Display for StayingVm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VM {} ({})", self.vm, self.why)
    }
}

impl Plan {
    /// The same, but these VMs stay, each for its reason.
    #[must_use]
    pub fn without(mut self, blocked: impl IntoIterator<Item = (VmName, String)>) -> Self {
        let mut blocked: BTreeMap<VmName, String> = blocked.into_iter().collect();
        self.moves.retain(|step| {
            let Some(why) = blocked.remove(&step.vm) else { return true };
            let (vm, host) = (step.vm.clone(), Some(step.source.clone()));
            self.left_out.push(StayingVm { vm, host, why });
            false
        });
        self.left_out.sort_by(|a, b| a.vm.cmp(&b.vm));
        self
    }

    /// The VMs that stay.
    pub(crate) fn left_out_names(&self) -> BTreeSet<&VmName> {
        self.left_out.iter().map(|one| &one.vm).collect()
    }
}

/// The VMs of an evacuation's sources.
#[derive(Default)]
pub(crate) struct Sorted {
    /// What each VM that moves needs.
    pub(crate) demands: Vec<Demand>,
    /// The owner of each of those.
    pub(crate) sources: Vec<HostName>,
    /// VMs that stay.
    pub(crate) left_out: Vec<StayingVm>,
}

impl Fleet {
    /// Which VMs of the sources move, and which are left out.
    ///
    /// # Errors
    /// If a VM cannot move and is not left out, or a VM to leave out is not there.
    pub(crate) fn sort_out(
        &self,
        request: &EvacuationRequest,
        source_hosts: &[HostName],
    ) -> Result<Sorted, Refusal> {
        let owned = self.owned_by(source_hosts);
        self.are_there(&request.exclude, &owned)?;
        let mut sorted = Sorted::default();
        let mut blocked = Vec::new();
        for vm in owned {
            let mut stays = |why: String| {
                let host = Some(vm.owner.clone());
                sorted.left_out.push(StayingVm { vm: vm.name.clone(), host, why });
            };
            if request.exclude.contains(&vm.name) {
                stays("excluded".to_owned());
                continue;
            }
            match self.movable(&vm.name) {
                Ok(None) => {
                    sorted.demands.push(self.demand(&vm.name, vm.memory_bytes));
                    sorted.sources.push(vm.owner.clone());
                }
                // Nothing is left of a VM whose QEMU died; it does not keep the others.
                Ok(Some(DEAD)) => {}
                Ok(Some(why)) if request.skip_blocked => stays(why.to_owned()),
                Ok(Some(why)) => blocked.push((vm.name.clone(), why)),
                Err(Refusal::VmBusy { migration, .. }) if request.skip_blocked => {
                    stays(format!("it takes part in {migration}"));
                }
                Err(refusal) if request.skip_blocked => stays(refusal.to_string()),
                Err(refusal) => return Err(refusal),
            }
        }
        if blocked.is_empty() { Ok(sorted) } else { Err(Refusal::NotMovable(blocked)) }
    }

    /// A name with a typing error must not let a VM move that should stay.
    fn are_there(&self, exclude: &BTreeSet<VmName>, owned: &[&VmRecord]) -> Result<(), Refusal> {
        let owned: BTreeSet<&VmName> = owned.iter().map(|vm| &vm.name).collect();
        let missing = exclude.iter().filter(|vm| !owned.contains(vm));
        let missing: Vec<VmName> = missing.cloned().collect();
        if missing.is_empty() { Ok(()) } else { Err(Refusal::NotOnSources(missing)) }
    }

    /// A move for each VM that moves.
    pub(crate) fn place_all(&self, sorted: Sorted, rooms: &[Room]) -> Result<Plan, Refusal> {
        let Sorted { demands, sources, left_out } = sorted;
        let targets = self.planning.placer.place(&demands, rooms)?;
        let moves = demands.into_iter().zip(sources).zip(targets);
        let moves = moves.map(|((demand, source), target)| {
            let Demand { vm, memory_bytes, .. } = demand;
            Move { vm, memory_bytes, source, target }
        });
        Ok(Plan { moves: moves.collect(), left_out })
    }
}
