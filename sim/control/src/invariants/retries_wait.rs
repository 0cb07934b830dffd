//! An evacuation tries a VM no more often than it may, and not again before a pause that doubles.

use rackferry_fleet::{Order, Stage};

use crate::world::World;

pub(super) fn check(world: &World, node: usize, order: &Order) -> Option<String> {
    let Order::PrepareTarget { migration: id, .. } = order else { return None };
    let limits = world.plan.limits;
    let fleet = world.nodes[node].leader()?.fleet()?;
    let record = fleet.migration(*id)?.record;
    if record.attempt > limits.attempts {
        return Some(format!("{id} is attempt {} of {}", record.attempt, limits.attempts));
    }
    let evacuation = fleet.evacuation(record.evacuation?)?;
    let attempts = evacuation.record.vms.get(&record.vm)?;
    let before = attempts.iter().position(|attempt| attempt == id)?.checked_sub(1)?;
    let Stage::Ended { at, .. } = fleet.migration(attempts[before])?.record.stage else {
        return Some(format!("{id} begins, and {} is not over", attempts[before]));
    };
    let least = limits.retry_pause_ns.min(limits.non_converged_retry_ns) << before;
    let paused = world.clock.now.saturating_sub(at.0);
    (paused < least).then(|| format!("{id} begins {paused} ns after {}", attempts[before]))
}
