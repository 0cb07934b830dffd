//! What a leader has told sources that they may send never adds up to more than a link's limit, in either direction; and
//! every migration that crosses a link with a limit has a rate.

use rackferry_fleet::{Fleet, MigrationId, Order};

use crate::world::World;

pub(super) fn check(world: &World, node: usize, order: &Order) -> Option<String> {
    let (id, rate) = match order {
        Order::StartSource { migration, rate, .. } => (*migration, *rate),
        Order::SetRate(migration, rate) => (*migration, *rate),
        _ => return None,
    };
    let fleet = world.nodes[node].leader()?.fleet()?;
    free_rider(fleet, id, rate).or_else(|| overbooked(fleet))
}

/// There is one link, and it joins the racks.
fn free_rider(fleet: &Fleet, id: MigrationId, rate: Option<u64>) -> Option<String> {
    let limited = fleet.links().iter().any(|link| link.link.is_some() && link.limit.is_some());
    let view = fleet.migration(id)?;
    let free = limited && view.source_rack != view.target_rack && rate.is_none();
    free.then(|| format!("{id} crosses a link with a limit and has none"))
}

fn overbooked(fleet: &Fleet) -> Option<String> {
    fleet.links().into_iter().find_map(|view| {
        let budget = view.limit?.of(view.link?.rate);
        let lane = view.lanes.into_iter().find(|lane| lane.allotted > budget)?;
        Some(format!(
            "{} moves may send {} over {} ({budget})",
            lane.moves, lane.allotted, view.name
        ))
    })
}
