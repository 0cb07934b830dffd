//! What would be done, for people.

use std::collections::{BTreeMap, BTreeSet};

use rackferry_proto::v1::{Evacuation, Finding, Migration, Severity, StayingVm, VmCheck};

use super::table;
use crate::units::bytes;

/// Every move, then the counts, and last what does not move: a terminal shows the end.
pub fn screen(plan: &Evacuation, blocked: &[VmCheck], staying: &[StayingVm]) -> String {
    let moves = movable(plan, blocked);
    let rows = moves.iter().map(|one| {
        vec![
            one.vm.clone(),
            one.source_host.clone(),
            one.target_host.clone(),
            bytes(one.memory_bytes),
        ]
    });
    let mut text = String::new();
    if !moves.is_empty() {
        text = table(&["vm", "from", "to", "memory"], &["memory"], rows) + "\n\n";
    }
    let what = match plan.restores.as_str() {
        "" => "evacuate".to_owned(),
        id => format!("bring back what {id} has moved:"),
    };
    // As a whole or not at all.
    let (feasible, will) = match blocked {
        [] => ("feasible", "will move    "),
        _ => ("NOT FEASIBLE", "could move   "),
    };
    let (from, to) = (plan.sources.join(", "), plan.targets.join(", "));
    text += &format!("Plan: {what} {from} -> {to}  {feasible}\n");
    let all = moves.iter().map(|one| one.memory_bytes);
    text += &format!("  {will}  {}", count(moves.len(), all.sum()));
    for (host, (vms, memory)) in by_target(&moves) {
        text += &format!("\n    to {host}: {}", count(vms, memory));
    }
    if blocked.is_empty() && !plan.no_cordon && plan.restores.is_empty() {
        text += &format!("\n  will cordon    {from}");
    }
    let left = blocked.len() + staying.len() + plan.left_out.len();
    if left > 0 {
        text += &format!("\n  NOT            {left} VMs");
        blocked.iter().for_each(|vm| text += &obstacles(vm));
        staying.iter().chain(&plan.left_out).for_each(|vm| text += &stays(vm));
    }
    text
}

/// VMs that are not brought back.
pub fn staying(vms: &[StayingVm]) -> String {
    let each: String = vms.iter().map(stays).collect();
    format!("{} VMs are not brought back:{each}", vms.len())
}

/// The moves of those that nothing blocks.
pub fn movable<'a>(plan: &'a Evacuation, blocked: &[VmCheck]) -> Vec<&'a Migration> {
    let names: BTreeSet<&str> = blocked.iter().map(|vm| vm.vm.as_str()).collect();
    plan.migrations.iter().filter(|one| !names.contains(one.vm.as_str())).collect()
}

/// How many VMs each target gets, and their memory.
pub fn by_target<'a>(moves: &[&'a Migration]) -> BTreeMap<&'a str, (usize, u64)> {
    let mut targets = BTreeMap::new();
    for one in moves {
        let (vms, memory) = targets.entry(one.target_host.as_str()).or_insert((0, 0));
        *vms += 1;
        *memory += one.memory_bytes;
    }
    targets
}

fn count(vms: usize, memory: u64) -> String {
    format!("{vms} VMs, {}", bytes(memory))
}

/// A line for a VM that stays.
pub fn stays(one: &StayingVm) -> String {
    let at = if one.host.is_empty() { String::new() } else { format!(" on {}", one.host) };
    format!("\n    {}{at}: {}", one.vm, one.reason)
}

fn obstacles(vm: &VmCheck) -> String {
    let here = vm.findings.iter().map(|finding| (&vm.host, finding));
    let there = vm.targets.iter().flat_map(|t| t.findings.iter().map(|f| (&t.host, f)));
    let blocks = here.chain(there).filter(|(_, f)| f.severity() == Severity::Blocks);
    let line = |(host, finding): (&String, &Finding)| {
        let Finding { cause, fix, .. } = finding;
        format!("\n    {} on {host}: {cause}\n      fix: {fix}", vm.vm)
    };
    blocks.map(line).collect()
}
