//! What the inventory wants of hosts that take VMs: memory that is kept free, and VMs that never share one.

use std::collections::BTreeMap;

use crate::{
    Fleet, HostName, MigrationId, MigrationRecord, Topology, VmName, Wait, WaitCode, store::Store,
};

/// The VMs of every group.
pub(crate) type Groups = BTreeMap<String, Vec<VmName>>;

/// The groups of the inventory.
pub(crate) fn groups(store: &Store) -> Groups {
    let mut groups = Groups::new();
    let listed = store.inventory().into_iter().flat_map(|known| &known.topology.groups);
    for (vm, group) in listed {
        groups.entry(group.clone()).or_default().push(vm.clone());
    }
    groups
}

impl Fleet {
    fn topology(&self) -> Option<&Topology> {
        self.store.inventory().map(|inventory| &inventory.topology)
    }

    /// Memory a host can still take without its headroom. Moves on their way to it are off, `except` one.
    pub(crate) fn room_bytes(&self, host: &HostName, except: Option<MigrationId>) -> u64 {
        let percent = self.topology().and_then(|topology| topology.headroom.get(host)).copied();
        let whole = self.store.hosts().get(host).map_or(0, |record| record.memory_bytes);
        let headroom = u128::from(whole) * u128::from(percent.unwrap_or(0)) / 100;
        let headroom = u64::try_from(headroom).unwrap_or(u64::MAX);
        self.free_bytes(host, except).saturating_sub(headroom)
    }

    /// The group of a VM, if it must not share a host with others.
    pub(crate) fn group_of(&self, vm: &VmName) -> Option<&String> {
        if planted!(self, AntiAffinityOverlooked) {
            return None;
        }
        self.topology()?.groups.get(vm)
    }

    /// By host, the groups that have a VM there, or one that shall come there.
    pub(crate) fn groups_at_hosts(&self) -> BTreeMap<HostName, BTreeMap<String, VmName>> {
        let mut found: BTreeMap<HostName, BTreeMap<String, VmName>> = BTreeMap::new();
        let Some(topology) = self.topology().filter(|topology| !topology.groups.is_empty()) else {
            return found;
        };
        for (vm, group) in &topology.groups {
            if self.group_of(vm).is_some() {
                for host in self.hosts_of_vm(vm, |_| true) {
                    found.entry(host).or_default().insert(group.clone(), vm.clone());
                }
            }
        }
        found
    }

    /// By host, the VMs of the group of one that are there, or shall come there.
    pub(crate) fn mates_of(&self, vm: &VmName) -> BTreeMap<HostName, BTreeMap<String, VmName>> {
        let mut found: BTreeMap<HostName, BTreeMap<String, VmName>> = BTreeMap::new();
        let Some(group) = self.group_of(vm) else { return found };
        for mate in self.planning.groups.get(group).into_iter().flatten() {
            for host in self.hosts_of_vm(mate, |_| true) {
                found.entry(host).or_default().insert(group.clone(), mate.clone());
            }
        }
        found
    }

    /// The owner of a VM, and the targets of its moves that are of a kind.
    fn hosts_of_vm(
        &self,
        vm: &VmName,
        of_kind: impl Fn(&MigrationRecord) -> bool,
    ) -> Vec<HostName> {
        let owner = self.store.vms().get(vm).map(|vm| vm.owner.clone());
        let moves = self.store.index().attempts_of_vm(vm);
        let moves = moves.filter_map(|id| self.store.migrations().get(&id));
        let targets = moves.filter(|one| one.is_active() && of_kind(one));
        owner.into_iter().chain(targets.map(|one| one.target.clone())).collect()
    }

    /// Why a VM must not go to a host: one of its group is there, or on its way.
    pub(crate) fn kept_apart(&self, migration: &MigrationRecord, host: &HostName) -> Option<Wait> {
        let group = self.group_of(&migration.vm)?;
        let mates = self.planning.groups.get(group)?;
        let there = |vm: &&VmName| {
            **vm != migration.vm && self.hosts_of_vm(vm, MigrationRecord::is_ordered).contains(host)
        };
        let mate = mates.iter().find(there)?;
        let detail = format!("{group}: {mate} is on {host}");
        Some(Wait { code: WaitCode::AntiAffinity, detail, limit: 0, used: 0 })
    }
}
