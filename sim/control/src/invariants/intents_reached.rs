//! Once faults heal: one leader serves every agent, every move and every evacuation has ended, and every VM that was
//! not killed runs where the record says.

use rackferry_fleet::{Key, Record, Standing, VmName};

use crate::host::qemu::Qemu;
use crate::operator::vm_name;
use crate::world::World;

pub(super) fn check(world: &World) -> Option<String> {
    let leading = world.nodes.iter().filter_map(|node| node.leader());
    let Some(fleet) = leading.filter_map(|leader| leader.fleet()).next() else {
        return Some("no node leads".to_owned());
    };
    if let Some(host) =
        world.hosts.iter().find(|host| !host.agent.as_ref().is_some_and(|agent| agent.taken))
    {
        return Some(format!("{} has no stream", host.name));
    }
    let unreachable = |host: &&crate::host::Host| {
        host.agent.as_ref().is_some_and(|agent| !agent.unreachable.is_empty())
    };
    if let Some(host) = world.hosts.iter().find(unreachable) {
        return Some(format!("a QEMU of {} does not answer", host.name));
    }
    if let Some(view) = fleet.migrations().find(|view| view.record.is_active()) {
        let (record, wait) = (view.record, view.wait);
        return Some(format!(
            "{} of {} from {} to {} is still {:?} ({:?}), waiting for {wait:?}",
            record.id, record.vm, record.source, record.target, view.phase, record.stage
        ));
    }
    if let Some(view) = fleet.evacuations().find(|view| view.record.ended.is_none()) {
        return Some(format!("{} has not ended", view.record.id));
    }
    (0..world.plan.vms).find_map(|vm| runs_where_it_should(world, vm))
}

fn runs_where_it_should(world: &World, vm: usize) -> Option<String> {
    let copies = world.hosts.iter().filter_map(|host| Some((host, host.copies[vm].as_ref()?)));
    let copies = copies.filter(|(_, copy)| !super::waits_for_a_person(world, vm, copy));
    let alive = copies.map(|(host, copy)| (host, copy.qemu));
    let alive: Vec<_> = alive.filter(|(_, qemu)| *qemu != Qemu::Dead).collect();
    let record = world.truth.records.get(&Key::Vm(VmName::new(vm_name(vm))));
    match alive[..] {
        [] => (world.watch.killed_copies[vm] == 0).then(|| format!("v{vm} is lost")),
        [(host, Qemu::Running)] => {
            let agrees = matches!(
                record,
                Some(Record::Vm(record))
                    if record.owner == host.name && record.standing == Standing::Stable
            );
            (!agrees).then(|| format!("v{vm} runs on {}, on record is {record:?}", host.name))
        }
        _ => {
            let each = alive.iter().map(|(host, qemu)| format!("{qemu:?} on {}", host.name));
            Some(format!("v{vm} is {}", each.collect::<Vec<_>>().join(" and ")))
        }
    }
}
