//! Faults of which no process and no socket tells: freezes and black holes.

use std::thread;

use anyhow::{Context, Result};

use super::plan::{Kind, Plan};
use super::view::{Evacuation, Move};
use crate::Host;
use crate::lab::dark::BlackHole;
use crate::lab::site::Site;
use crate::procs::Frozen;

/// Freezes an agent that the plan means, for the outage.
pub(super) fn freeze_agent(site: &Site<'_>, plan: &Plan, host: &str) -> Result<String> {
    let frozen = Frozen::new(site.agent(host)?)?;
    thread::sleep(plan.outage);
    drop(frozen);
    Ok(format!("the frozen agent of {host}"))
}

/// Freezes the coordinator that leads.
pub(super) fn freeze_leader(site: &Site<'_>, plan: &Plan) -> Result<String> {
    let leader = site.leader()?;
    let process = site.coordinators().process(leader).context("the leader does not run")?;
    let frozen = Frozen::new(process)?;
    thread::sleep(plan.outage);
    drop(frozen);
    Ok(format!("the frozen coordinator {leader}"))
}

/// Lets what a host sends to another, or to all others, vanish; the other way too.
pub(super) fn black_hole(
    site: &Site<'_>,
    plan: &mut Plan,
    now: &Evacuation,
    hit: Option<&Move>,
) -> Result<Option<String>> {
    let under_way: Vec<&Move> = now.moves.iter().filter(|m| m.is_under_way()).collect();
    let Some(one) = hit.cloned().or_else(|| plan.dice.pick(&under_way).cloned()) else {
        return Ok(None);
    };
    let hosts = site.lab().hosts();
    let ends = [&one.source, &one.target];
    let Some(name) = plan.dice.pick(&ends) else { return Ok(None) };
    let host = hosts.iter().find(|host| host.name() == *name).context("a host that is none")?;
    let others: Vec<Host> = match plan.dice.below(3) {
        0 => hosts.to_vec(),
        // Its rack: shards of the index, or holders of contents.
        1 => site.lab().rack(host.rack).cloned().collect(),
        _ => hosts.iter().filter(|other| ends.contains(&&other.name())).cloned().collect(),
    };
    let count = others.iter().filter(|other| *other != host).count();
    let hole = BlackHole::between(host, &others)?;
    thread::sleep(plan.outage);
    drop(hole);
    Ok(Some(format!("all lines between {name} and {count} hosts")))
}

/// Whether the agent that is hit is frozen rather than killed.
pub(super) fn freezes(kind: Kind) -> bool {
    matches!(kind, Kind::FrozenSource | Kind::FrozenTarget | Kind::FrozenNeighbour)
}
