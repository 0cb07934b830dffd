//! Hosts and VMs for people.

use rackferry_proto::v1::{Host, Listed, Ownership, Vm};

use super::{table, word};
use crate::units::bytes;

/// VMs and their owners.
pub fn vms(vms: &[Vm]) -> String {
    if vms.is_empty() {
        return "No VMs.".to_owned();
    }
    let rows = vms.iter().map(|vm| {
        let moving = match vm.ownership() {
            Ownership::Stable => vm.migration_id.clone(),
            ownership => format!("{} {}", vm.migration_id, word::ownership(ownership)),
        };
        vec![
            vm.name.clone(),
            vm.host.clone(),
            vm.rack.clone(),
            word::condition(vm.condition()),
            bytes(vm.memory_bytes),
            vm.generation.to_string(),
            moving,
        ]
    });
    let header = ["vm", "host", "rack", "state", "memory", "generation", "move"];
    table(&header, &["memory", "generation"], rows)
}

/// Hosts and whether their agents are connected.
pub fn hosts(hosts: &[Host]) -> String {
    if hosts.is_empty() {
        return "No hosts.".to_owned();
    }
    let rows = hosts.iter().map(|host| {
        let free = if host.connected { bytes(host.memory_free_bytes) } else { "-".to_owned() };
        vec![
            host.name.clone(),
            host.rack.clone(),
            if host.connected { "connected" } else { "away" }.to_owned(),
            bytes(host.memory_bytes),
            free,
            host.vms.to_string(),
            host.outgoing.to_string(),
            host.incoming.to_string(),
            host.agent_version.clone(),
            note(host),
        ]
    });
    let header = ["host", "rack", "agent", "memory", "free", "vms", "out", "in", "version", "note"];
    table(&header, &["memory", "free", "vms", "out", "in"], rows)
}

/// What else is to be known of a host.
fn note(host: &Host) -> String {
    let mut notes = Vec::new();
    if host.declared_dead {
        notes.push("declared dead".to_owned());
    }
    if host.cordoned {
        notes.push("cordoned".to_owned());
    }
    match host.listed() {
        Listed::Unspecified | Listed::Yes => {}
        Listed::No => notes.push("not in inventory".to_owned()),
        Listed::Elsewhere => notes.push(format!("in rack {} by inventory", host.listed_rack)),
    }
    notes.join(", ")
}
