//! What hosts can still take: moves at a time, and memory.

use crate::{
    Fleet, HostName, MigrationId, VmName,
    placement::{Demand, Room},
};

impl Fleet {
    /// Moves under way. One whose source is silent does not count here and below: it must not hold up the others.
    pub(crate) fn under_way(&self) -> u32 {
        self.store.index().begun().filter(|&id| self.counts(id)).count() as u32
    }

    /// Moves leaving a host.
    pub(crate) fn busy_from(&self, host: &HostName) -> u32 {
        self.store.index().begun_from(host).filter(|&id| self.counts(id)).count() as u32
    }

    /// Moves reaching a host.
    pub(crate) fn busy_to(&self, host: &HostName) -> u32 {
        self.store.index().begun_to(host).filter(|&id| self.counts(id)).count() as u32
    }

    pub(crate) fn counts(&self, id: MigrationId) -> bool {
        let migration = self.store.migrations().get(&id);
        migration.is_some_and(|one| {
            one.is_ordered() && self.ownership.agents().contains_key(&one.source)
        })
    }

    /// Memory a host can still take. Moves on their way to it are off, `except` one.
    pub(crate) fn free_bytes(&self, host: &HostName, except: Option<MigrationId>) -> u64 {
        let (Some(agent), Some(record)) =
            (self.ownership.agents().get(host), self.store.hosts().get(host))
        else {
            return 0;
        };
        let free = agent.memory_free_bytes.unwrap_or_else(|| {
            let used: u64 = agent.vms.values().map(|vm| vm.memory_bytes).sum();
            record.memory_bytes.saturating_sub(used)
        });
        let coming = self.store.index().reaching(host).filter(|&id| Some(id) != except);
        // What the host lists, it has already taken off by itself.
        let reserved: u64 = coming
            .filter_map(|id| self.store.migrations().get(&id))
            .filter(|migration| !agent.vms.contains_key(&migration.vm))
            .map(|migration| migration.memory_bytes)
            .sum();
        free.saturating_sub(reserved)
    }

    /// Connected hosts that take VMs, with what they can take.
    pub(crate) fn rooms(&self, hosts: &[HostName]) -> Vec<Room> {
        let connected = hosts.iter().filter(|host| self.ownership.agents().contains_key(host));
        let connected = connected.filter(|host| !self.is_cordoned(host));
        let mut groups = self.groups_at_hosts();
        connected
            .map(|host| Room {
                host: host.clone(),
                free_bytes: self.room_bytes(host, None),
                groups: groups.remove(host).unwrap_or_default(),
            })
            .collect()
    }

    /// What a VM needs of a host.
    pub(crate) fn demand(&self, vm: &VmName, memory_bytes: u64) -> Demand {
        Demand { vm: vm.clone(), memory_bytes, group: self.group_of(vm).cloned() }
    }

    /// A place for one VM among hosts, if there is one.
    pub(crate) fn place_one(&self, vm: &VmName, need: u64, hosts: &[HostName]) -> Option<HostName> {
        let demand = self.demand(vm, need);
        let mut mates = self.mates_of(vm);
        let open = hosts.iter().filter(|host| self.ownership.agents().contains_key(host));
        let rooms: Vec<Room> = open
            .filter(|host| !self.is_cordoned(host))
            .map(|host| Room {
                host: host.clone(),
                free_bytes: self.room_bytes(host, None),
                groups: mates.remove(host).unwrap_or_default(),
            })
            .collect();
        self.planning.place_one(demand, &rooms)
    }
}
