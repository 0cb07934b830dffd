//! What is held back does not begin: no move of a paused evacuation, none to a cordoned host.

use rackferry_fleet::{EvacuationState, Order};

use crate::world::World;

pub(super) fn check(world: &World, node: usize, order: &Order) -> Option<String> {
    let (fleet, id) = super::begins(world, node, order)?;
    let record = fleet.migration(id)?.record;
    let target = fleet.hosts().into_iter().find(|host| host.name == record.target)?;
    if target.cordoned {
        return Some(format!("{id} begins to {}, which is cordoned", target.name));
    }
    let evacuation = fleet.evacuation(record.evacuation?)?;
    (evacuation.state == EvacuationState::Paused)
        .then(|| format!("{id} begins, and {} is paused", evacuation.record.id))
}
