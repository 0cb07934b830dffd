//! A VM is stopped for as long as it takes only if a client said so: of that move, or that anything may be done after a
//! deadline that has passed.

use rackferry_fleet::{Disruption, Order};

use crate::world::World;

pub(super) fn check(world: &World, node: usize, order: &Order) -> Option<String> {
    let Order::ForceSwitchover(id) = order else { return None };
    let fleet = world.nodes[node].leader()?.fleet()?;
    let record = fleet.migration(*id)?.record;
    if record.forced {
        return None;
    }
    let evacuation = record.evacuation.and_then(|id| fleet.evacuation(id));
    let late = evacuation.and_then(|view| view.record.deadline);
    let late = late.is_some_and(|deadline| deadline.0 <= world.clock.now);
    let asked = late && record.options.disruption == Disruption::Allow;
    (!asked).then(|| format!("{id} is told to force its switchover, and no client asked for it"))
}
