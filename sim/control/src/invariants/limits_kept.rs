//! No more moves begin, and no more VMs are let stop for their switchovers, than the limits allow. As in the fleet, a
//! move whose source is silent does not count: it must not hold up the others.

use std::collections::BTreeSet;

use rackferry_fleet::{
    Fleet, HostName, Key, MigrationId, MigrationRecord, Order, Record, Stage, Standing,
};

use crate::world::World;

/// What a leader has granted.
#[derive(Debug, Default)]
pub struct LimitsKept {
    slots: BTreeSet<MigrationId>,
    begun: BTreeSet<MigrationId>,
}

impl LimitsKept {
    /// The leader has told a target to prepare for it.
    pub(super) fn has_begun(&self, id: MigrationId) -> bool {
        self.begun.contains(&id)
    }
}

pub(super) fn check(world: &mut World, node: usize, order: &Order) -> Option<String> {
    match order {
        Order::PrepareTarget { migration, .. } => moves(world, node, *migration),
        Order::SwitchoverGrant(migration) => slots(world, node, *migration),
        _ => None,
    }
}

/// Ordered migrations whose sources speak to this leader.
fn under_way(fleet: &Fleet) -> Vec<&MigrationRecord> {
    let speak: BTreeSet<HostName> = fleet
        .hosts()
        .into_iter()
        .filter(|host| host.connection.is_some())
        .map(|host| host.name)
        .collect();
    let ordered = fleet.migrations().map(|view| view.record).filter(|record| record.is_ordered());
    ordered.filter(|record| speak.contains(&record.source)).collect()
}

fn moves(world: &mut World, node: usize, id: MigrationId) -> Option<String> {
    // An order that is repeated begins nothing.
    let queued = matches!(
        world.truth.records.get(&Key::Migration(id)),
        Some(Record::Migration(record)) if record.stage == Stage::Queued
    );
    let limits = world.plan.limits;
    let leader = world.nodes[node].leader_mut()?;
    let first = leader.limits.begun.insert(id);
    let fleet = leader.fleet()?;
    let record = fleet.migration(id)?.record;
    if !queued || !first || !record.is_ordered() {
        return None;
    }
    let all = under_way(fleet);
    let outgoing = all.iter().filter(|other| other.source == record.source).count() as u32;
    let incoming = all.iter().filter(|other| other.target == record.target).count() as u32;
    let kept = outgoing <= limits.outgoing_per_host && incoming <= limits.incoming_per_host;
    (!kept).then(|| {
        format!(
            "{id}: {outgoing} moves leave {}, {incoming} reach {}",
            record.source, record.target
        )
    })
}

fn slots(world: &mut World, node: usize, id: MigrationId) -> Option<String> {
    let limits = world.plan.limits;
    let leader = world.nodes[node].leader_mut()?;
    let fleet = leader.turns.as_ref()?.fleet();
    if !leader.limits.slots.insert(id) {
        return None;
    }
    let record = fleet.migration(id)?.record;
    let committed = |other: &MigrationRecord| {
        fleet.vm(&other.vm).is_some_and(|vm| {
            matches!(vm.standing, Standing::Committed { migration, .. } if migration == other.id)
        })
    };
    // Its QEMU stopped it without being told, and the session asks for no slot.
    if committed(record) {
        return None;
    }
    let holds = |other: &&&MigrationRecord| {
        other.id != id && (committed(other) || leader.limits.slots.contains(&other.id))
    };
    let all = under_way(fleet);
    let others: Vec<&&MigrationRecord> = all.iter().filter(holds).collect();
    let at = |host: &HostName| {
        others.iter().filter(|o| o.source == *host || o.target == *host).count() as u32
    };
    let full = others.len() as u32 >= limits.switchovers_total
        || at(&record.source) >= limits.switchovers_per_host
        || at(&record.target) >= limits.switchovers_per_host;
    let others: Vec<MigrationId> = others.iter().map(|other| other.id).collect();
    full.then(|| format!("{id} gets a slot, {others:?} have theirs"))
}
