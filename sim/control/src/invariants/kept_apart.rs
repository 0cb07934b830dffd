//! No move begins to a host where a VM of the same anti-affinity group is, or is on its way to.

use rackferry_fleet::{Order, VmName};

use crate::world::World;

pub(super) fn check(world: &World, node: usize, order: &Order) -> Option<String> {
    let (fleet, id) = super::begins(world, node, order)?;
    let groups = &fleet.inventory()?.topology.groups;
    let record = fleet.migration(id)?.record;
    let group = groups.get(&record.vm)?;
    let mate = |vm: &VmName| vm != &record.vm && groups.get(vm) == Some(group);
    let there = fleet.vms().into_iter().find(|vm| mate(&vm.name) && vm.owner == record.target);
    let coming = || {
        let mut all = fleet.migrations().map(|view| view.record);
        all.find(|other| other.is_ordered() && mate(&other.vm) && other.target == record.target)
    };
    let found = there.map(|vm| vm.name).or_else(|| coming().map(|other| other.vm.clone()));
    found.map(|vm| format!("{id} begins to {}, where {vm} of {group} is", record.target))
}
