//! An order that bears on ownership says what the log says: when the fleet decides it, by the fleet's own records,
//! and when it leaves, by what is committed. A leader that was deposed without knowing lets none out.

use rackferry_fleet::{
    Change, End, Key, MigrationId, MigrationRecord, Order, Record, Stage, Standing, VmRecord,
};

use crate::world::World;

/// When a fleet decides.
pub(super) fn decided(world: &World, node: usize, order: &Order) -> Option<String> {
    let fleet = world.nodes[node].leader()?.fleet()?;
    let migration = subject(order)?;
    let record = fleet.migration(migration)?.record;
    let standing = fleet.vm(&record.vm).map(|vm| (vm.owner, vm.generation, vm.standing));
    let stopped = Standing::Committed { migration, source_stopped: true };
    let committed = matches!(
        &standing,
        Some((_, _, Standing::Committed { migration: id, .. })) if *id == migration
    );
    let fits = match order {
        Order::StartSource { .. } => matches!(record.stage, Stage::Started { .. }),
        Order::CommitDecision { refusal: None, .. } => committed,
        // A commit that stands is never refused to the session that made it.
        Order::CommitDecision { generation, refusal: Some(_), .. } => {
            !(committed && *generation == record.generation && in_session(world, node, record))
        }
        Order::ResumeTarget(_, generation) => standing.is_some_and(|(owner, now, standing)| {
            owner == record.target
                && now == *generation
                && (standing == stopped || standing == Standing::Stable)
        }),
        Order::DiscardTarget(..) => {
            let theirs = standing
                .is_some_and(|(owner, now, _)| owner == record.target && now == record.generation);
            let lost = matches!(record.stage, Stage::Ended { end: End::Lost | End::Ended, .. });
            lost || !(committed || theirs && record.is_ordered())
        }
        Order::ReleaseSource { resume: true, .. } => {
            standing.is_some_and(|(owner, ..)| owner == record.source) && !committed
        }
        _ => true,
    };
    (!fits).then(|| format!("c{node} orders {order:?}, which its records do not say"))
}

/// The agent that was told to start a migration is the one that is connected.
fn in_session(world: &World, node: usize, record: &MigrationRecord) -> bool {
    let Stage::Started { source_boot, .. } = &record.stage else { return false };
    let fleet = world.nodes[node].leader().and_then(|leader| leader.fleet());
    let hosts = fleet.map(|fleet| fleet.hosts()).unwrap_or_default();
    hosts.iter().any(|host| host.name == record.source && host.boot.as_ref() == Some(source_boot))
}

/// When it leaves.
pub(super) fn leaves(
    world: &World,
    node: usize,
    (committed, known): (usize, usize),
    order: &Order,
) -> Option<String> {
    if committed != known {
        return Some(format!(
            "c{node} orders {order:?} by {known} entries of a log of {committed}: it is deposed"
        ));
    }
    let id = subject(order)?;
    let key = Key::Migration(id);
    // Of one that is forgotten the VM's record decides; whether rightly, other invariants see.
    if world.watch.forgotten.contains(&key) {
        return None;
    }
    let Some(Record::Migration(record)) = world.truth.records.get(&key) else {
        return Some(format!("c{node} orders {order:?}, and {id} is not on record"));
    };
    let vm = match world.truth.records.get(&Key::Vm(record.vm.clone())) {
        Some(Record::Vm(vm)) => Some(vm),
        _ => None,
    };
    let standing = vm.map(|vm: &VmRecord| vm.standing);
    let commit = |stopped: bool| {
        standing == Some(Standing::Committed { migration: id, source_stopped: stopped })
    };
    // What was decided later may be on record already, never what was decided before may be missing.
    let over = matches!(record.stage, Stage::Settling | Stage::Ended { .. });
    let fits = match order {
        Order::CommitDecision { refusal: None, .. } => commit(false) || commit(true) || over,
        Order::ResumeTarget(..) => commit(true) || over,
        Order::DiscardTarget(..) | Order::ReleaseSource { resume: true, .. } => {
            over && !commit(false) && !commit(true)
        }
        _ => true,
    };
    (!fits).then(|| format!("c{node} lets {order:?} out, and on record is {standing:?}"))
}

fn subject(order: &Order) -> Option<MigrationId> {
    match order {
        Order::StartSource { migration, .. }
        | Order::CommitDecision { migration, .. }
        | Order::ResumeTarget(migration, _)
        | Order::DiscardTarget(migration, _)
        | Order::ReleaseSource { migration, .. } => Some(*migration),
        _ => None,
    }
}

impl World {
    /// Counts what becomes of ownership.
    pub(super) fn count_commits(&mut self, change: &Change) {
        let Change::Put(Record::Vm(new)) = change else { return };
        let Some(Record::Vm(old)) = self.truth.records.get(&Key::Vm(new.name.clone())) else {
            return;
        };
        let was = matches!(old.standing, Standing::Committed { .. });
        let is = matches!(new.standing, Standing::Committed { .. });
        self.coverage.commits += u64::from(is && !was);
        self.coverage.aborts += u64::from(was && !is && old.owner != new.owner);
    }
}
