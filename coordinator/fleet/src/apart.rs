//! What the inventory wants of hosts that take VMs: memory that is kept free, and VMs that never share one.

use std::collections::BTreeMap;

use crate::{Fleet, HostName, MigrationId, MigrationRecord, Topology, VmName, Wait, WaitCode};

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
        #[cfg(feature = "planted-bugs")]
        if self.has(crate::PlantedBug::ApartOverlooked) {
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
        let owned = topology.groups.keys().filter_map(|vm| self.store.vms().get(vm));
        let owned = owned.map(|vm| (&vm.owner, &vm.name));
        let active = self.live.keys().filter_map(|id| self.store.migrations().get(id));
        let coming = active.map(|migration| (&migration.target, &migration.vm));
        for (host, vm) in owned.chain(coming) {
            if let Some(group) = self.group_of(vm) {
                found.entry(host.clone()).or_default().insert(group.clone(), vm.clone());
            }
        }
        found
    }

    /// Why a VM must not go to a host: one of its group is there, or on its way.
    pub(crate) fn kept_apart(&self, migration: &MigrationRecord, host: &HostName) -> Option<Wait> {
        let group = self.group_of(&migration.vm)?;
        let active = self.live.keys().filter_map(|id| self.store.migrations().get(id));
        let coming = |vm: &VmName| {
            active
                .clone()
                .any(|other| other.vm == *vm && other.target == *host && other.is_ordered())
        };
        let mates = self.topology()?.groups.iter();
        let mut mates = mates.filter(|(vm, of)| *of == group && **vm != migration.vm);
        let there = |vm: &VmName| self.store.vms().get(vm).is_some_and(|vm| vm.owner == *host);
        let (mate, _) = mates.find(|(vm, _)| there(vm) || coming(vm))?;
        let detail = format!("{group}: {mate} is on {host}");
        Some(Wait { code: WaitCode::AntiAffinity, detail, limit: 0, used: 0 })
    }
}
