//! At most one copy of a VM runs, or will run without a further order. A stopped source counts until its QEMU is in
//! postmigrate: it goes on by itself when its stream closes.

use crate::world::World;

pub(super) fn check(world: &World) -> Option<String> {
    (0..world.plan.vms).find_map(|vm| {
        let runs = |host: &&crate::host::Host| {
            host.copies[vm].as_ref().is_some_and(|copy| copy.qemu.may_run())
        };
        if world.hosts.iter().filter(runs).count() < 2 {
            return None;
        }
        let at: Vec<&str> =
            world.hosts.iter().filter(runs).map(|host| host.name.as_str()).collect();
        Some(format!("v{vm} runs, or can by itself, on {}", at.join(" and ")))
    })
}
