//! Once faults heal and intents are reached, nothing of a move is left: no QEMU, session, expectation or question at any
//! host, no connection between hosts.

use rackferry_agent_core::{MigrationId, Side};
use rackferry_fleet::{Key, Record, VmName};

use crate::host::qemu::{Copy, Qemu};
use crate::net::Purpose;
use crate::operator::vm_name;
use crate::world::World;

pub(super) fn check(world: &World) -> Option<String> {
    let pipe = world.net.conns.values().find(|conn| conn.purpose != Purpose::Stream);
    if let Some(conn) = pipe {
        return Some(format!("{:?} is left", conn.purpose));
    }
    world.hosts.iter().find_map(|host| {
        let agent = host.agent.as_ref()?;
        let name = &host.name;
        if let Some(id) = agent.core.sources().chain(agent.core.targets()).next() {
            return Some(format!("{name} has a session of {id}"));
        }
        let died = |id: &MigrationId| {
            let vm = host.copy_in(id.0, Side::Target);
            vm.and_then(|vm| host.copies[vm].as_ref()).is_some_and(|copy| copy.qemu == Qemu::Dead)
        };
        if let Some(id) = agent.core.expected().find(|id| !died(id)) {
            return Some(format!("{name} expects {id}"));
        }
        if let Some(request) = agent.core.questions().values().next() {
            return Some(format!("{name} still asks {request:?}"));
        }
        let copies = host.copies.iter().enumerate();
        let mut copies = copies.filter_map(|(vm, copy)| Some((vm, copy.as_ref()?)));
        // What died and takes part in no move is its user's to remove.
        let belongs = |vm: usize, copy: &Copy| {
            let record = world.truth.records.get(&Key::Vm(VmName::new(vm_name(vm))));
            let elsewhere = matches!(record, Some(Record::Vm(record)) if record.owner != *name);
            copy.standing.mark.is_none() || !elsewhere
        };
        let left = copies.find(|(vm, copy)| {
            let stays = match copy.qemu {
                Qemu::Running => true,
                Qemu::Dead => belongs(*vm, copy),
                Qemu::Postmigrate => super::waits_for_a_person(world, *vm, copy),
                _ => false,
            };
            !stays
        });
        left.map(|(vm, copy)| format!("v{vm} is {:?} on {name}", copy.qemu))
    })
}
