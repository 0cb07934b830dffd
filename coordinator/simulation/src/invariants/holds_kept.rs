//! What is held back does not begin: no move of a paused evacuation, none to a cordoned host.

use rackferry_fleet::{EvacuationState, Key, Order, Record, Stage};

use crate::world::World;

pub(super) fn check(world: &World, node: usize, order: &Order) -> Option<String> {
    let Order::PrepareTarget { migration: id, .. } = order else { return None };
    let leader = world.nodes[node].leader()?;
    // An order that is repeated begins nothing.
    let queued = matches!(
        world.truth.records.get(&Key::Migration(*id)),
        Some(Record::Migration(record)) if record.stage == Stage::Queued
    );
    if !queued || leader.limits.has_begun(*id) {
        return None;
    }
    let fleet = leader.fleet.as_ref()?;
    let record = fleet.migration(*id)?.record;
    let target = fleet.hosts().into_iter().find(|host| host.name == record.target)?;
    if target.cordoned {
        return Some(format!("{id} begins to {}, which is cordoned", target.name));
    }
    let evacuation = fleet.evacuation(record.evacuation?)?;
    (evacuation.state == EvacuationState::Paused)
        .then(|| format!("{id} begins, and {} is paused", evacuation.record.id))
}
