//! A VM that was not killed has a copy that runs, or that one order lets run; and once it was known, its owner stays on
//! record.

use rackferry_fleet::{Key, VmName};

use crate::operator::vm_name;
use crate::world::World;

pub(super) fn check(world: &World) -> Option<String> {
    (0..world.plan.vms).filter(|&vm| !world.watch.may_be_lost(vm)).find_map(|vm| {
        let can_run = |host: &crate::host::Host| {
            host.copies[vm].as_ref().is_some_and(|copy| copy.qemu.can_run())
        };
        if !world.hosts.iter().any(can_run) {
            return Some(format!("no copy of v{vm} can run any more"));
        }
        if !world.truth_changed {
            return None;
        }
        let name = VmName::new(vm_name(vm));
        let known = world.watch.generations.contains_key(&name);
        let recorded = world.truth.records.contains_key(&Key::Vm(name));
        (known && !recorded).then(|| format!("the owner of v{vm} is not on record any more"))
    })
}
