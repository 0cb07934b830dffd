//! What must hold, one invariant a file. Everything is looked at after every event.

mod answers_durable;
mod force_asked;
mod generations_rise;
mod gone_is_gone;
mod holds_kept;
mod intents_reached;
mod kept_apart;
mod limits_kept;
mod links_kept;
mod no_vm_lost;
mod nothing_left;
mod one_running_copy;
mod progress_forward;
mod retries_wait;
mod told_by_the_log;

use std::collections::{BTreeMap, BTreeSet};

use rackferry_fleet::{
    Change, End, Fleet, Generation, Key, MigrationId, Order, Record, Stage, VmName,
};

use crate::host::qemu::{Copy, Qemu};
use crate::operator::vm_name;
use crate::world::World;

pub use answers_durable::Acknowledged;
pub use limits_kept::LimitsKept;
pub use progress_forward::ProgressForward;

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The name of the invariant.
    pub invariant: &'static str,
    /// In what way it does not hold.
    pub what: String,
}

/// What invariants remember of what happened.
#[derive(Debug)]
pub struct Watch {
    /// By VM: a copy that ran was killed.
    pub killed_running: Vec<bool>,
    /// By VM: copies killed.
    pub killed_copies: Vec<u32>,
    /// Copies killed in all.
    pub kills: u32,
    /// By VM: the newest version of its memory.
    pub memories: Vec<u64>,
    /// The highest generation a VM was owned with.
    pub generations: BTreeMap<VmName, Generation>,
    /// What clients were told.
    pub acknowledged: Vec<Acknowledged>,
    /// Moves and evacuations that are forgotten by now.
    pub forgotten: BTreeSet<Key>,
    /// Moves that ended with their VM lost, and are forgotten by now.
    pub lost: BTreeSet<Key>,
    /// Hosts that have said of a move that nothing of it is left there.
    pub attested: BTreeSet<(usize, rackferry_agent_core::MigrationId)>,
    /// Of these, what they are about to say.
    to_say: BTreeSet<(usize, rackferry_agent_core::MigrationId)>,
    /// Moves for which hosts prepare.
    preparing: BTreeSet<(usize, rackferry_agent_core::MigrationId)>,
}

impl Watch {
    /// Nothing has happened yet.
    pub fn new(vms: usize) -> Self {
        Self {
            killed_running: vec![false; vms],
            killed_copies: vec![0; vms],
            kills: 0,
            memories: vec![0; vms],
            generations: BTreeMap::new(),
            acknowledged: Vec::new(),
            forgotten: BTreeSet::new(),
            lost: BTreeSet::new(),
            attested: BTreeSet::new(),
            to_say: BTreeSet::new(),
            preparing: BTreeSet::new(),
        }
    }

    /// A copy is killed that did this.
    pub fn killed(&mut self, vm: usize, qemu: Qemu) {
        self.kills += 1;
        self.killed_copies[vm] += 1;
        self.killed_running[vm] |= qemu.may_run();
    }

    /// Enough of a VM was killed for it to be lost.
    pub fn may_be_lost(&self, vm: usize) -> bool {
        self.killed_running[vm] || self.killed_copies[vm] > 1
    }
}

impl World {
    /// Notes the first invariant that does not hold.
    pub fn violated(&mut self, invariant: &'static str, what: String) {
        if self.violation.is_none() {
            self.trace.say(self.clock.now, || format!("VIOLATION {invariant}: {what}"));
            self.violation = Some(Violation { invariant, what });
        }
    }

    /// Looks at everything that can be seen at any moment.
    pub fn check(&mut self) {
        self.look(|world, when| match when {
            When::Always(check) => check(world),
            When::Committed(check) if world.truth_changed => check(world),
            _ => None,
        });
        self.truth_changed = false;
    }

    /// A change is committed.
    pub fn watch_change(&mut self, change: &Change) {
        self.count_commits(change);
        self.look(|world, when| match when {
            When::Changed(check) => check(world, change),
            _ => None,
        });
    }

    /// A leader's fleet has decided to give an order.
    pub fn watch_decision(&mut self, node: usize, order: &Order) {
        *self.coverage.orders.entry(order_name(order)).or_default() += 1;
        if matches!(order, Order::CommitDecision { refusal: Some(_), .. }) {
            self.coverage.refused += 1;
        }
        self.look(|world, when| match when {
            When::Decided(check) => check(world, node, order),
            _ => None,
        });
    }

    /// An order that bears on ownership leaves; entries committed, and known to its leader, when decided.
    pub fn watch_order_leaving(&mut self, node: usize, knew: (usize, usize), order: &Order) {
        self.look(|world, when| match when {
            When::Leaving(check) => check(world, node, knew, order),
            _ => None,
        });
    }

    /// What clients see has changed.
    pub fn watch_shown(&mut self, node: usize) {
        self.look(|world, when| match when {
            When::Shown(check) => check(world, node),
            _ => None,
        });
    }

    /// A client was told something: from now on it must hold.
    pub fn acknowledged(&mut self, what: Acknowledged) {
        let kept = what.kept_by();
        if kept.is_none_or(|key| !self.watch.forgotten.contains(&key)) {
            self.watch.acknowledged.push(what);
            self.truth_changed = true;
        }
    }

    /// Why the world is not at rest yet, faults having healed; none if it is.
    pub fn unrest(&self) -> Option<(&'static str, String)> {
        INVARIANTS.iter().find_map(|(name, when)| match when {
            When::AtRest(check) => check(self).map(|what| (*name, what)),
            _ => None,
        })
    }

    fn look(&mut self, mut check: impl FnMut(&mut Self, &When) -> Option<String>) {
        for (name, when) in &INVARIANTS {
            if let Some(what) = check(self, when) {
                self.violated(name, what);
            }
        }
    }
}

/// When an invariant is looked at, and what says in what way it does not hold.
enum When {
    /// After every event.
    Always(fn(&World) -> Option<String>),
    /// After an event in which something was committed, or a client was told something.
    Committed(fn(&World) -> Option<String>),
    /// When a change is committed.
    Changed(fn(&mut World, &Change) -> Option<String>),
    /// When a leader's fleet has decided to give an order.
    Decided(fn(&mut World, usize, &Order) -> Option<String>),
    /// When an order that bears on ownership leaves.
    Leaving(fn(&World, usize, (usize, usize), &Order) -> Option<String>),
    /// When a leader shows something new.
    Shown(fn(&mut World, usize) -> Option<String>),
    /// Once faults have healed.
    AtRest(fn(&World) -> Option<String>),
}

/// All of them.
const INVARIANTS: [(&str, When); 17] = [
    ("one running copy", When::Always(one_running_copy::check)),
    ("gone is gone", When::Always(gone_is_gone::check)),
    ("no VM lost", When::Always(no_vm_lost::check)),
    ("answers durable", When::Committed(answers_durable::check)),
    ("answers durable", When::Changed(answers_durable::forgotten)),
    ("generations rise", When::Changed(generations_rise::check)),
    (
        "told by the log",
        When::Decided(|world, node, order| told_by_the_log::decided(world, node, order)),
    ),
    ("holds kept", When::Decided(|world, node, order| holds_kept::check(world, node, order))),
    ("kept apart", When::Decided(|world, node, order| kept_apart::check(world, node, order))),
    ("force asked for", When::Decided(|world, node, order| force_asked::check(world, node, order))),
    ("retries wait", When::Decided(|world, node, order| retries_wait::check(world, node, order))),
    ("links kept", When::Decided(|world, node, order| links_kept::check(world, node, order))),
    ("limits kept", When::Decided(limits_kept::check)),
    ("told by the log", When::Leaving(told_by_the_log::leaves)),
    ("progress goes forward", When::Shown(progress_forward::check)),
    ("intents reached", When::AtRest(intents_reached::check)),
    ("nothing left over", When::AtRest(nothing_left::check)),
];

/// The move that an order begins, and the fleet that says so; none if it begins none: an order that is repeated does not.
fn begins<'a>(world: &'a World, node: usize, order: &Order) -> Option<(&'a Fleet, MigrationId)> {
    let Order::PrepareTarget { migration: id, .. } = order else { return None };
    let leader = world.nodes[node].leader()?;
    let queued = matches!(
        world.truth.records.get(&Key::Migration(*id)),
        Some(Record::Migration(record)) if record.stage == Stage::Queued
    );
    if !queued || leader.limits.has_begun(*id) {
        return None;
    }
    Some((leader.fleet()?, *id))
}

/// A VM died where it moved to, and may have run there, or was forgotten after that: the copy that its move stopped
/// waits for a person.
fn waits_for_a_person(world: &World, vm: usize, copy: &Copy) -> bool {
    let Some(mark) = copy.standing.mark.filter(|_| copy.qemu == Qemu::Postmigrate) else {
        return false;
    };
    let name = VmName::new(vm_name(vm));
    let Some(Record::Vm(record)) = world.truth.records.get(&Key::Vm(name)) else { return true };
    let owner = world.hosts.iter().find(|host| host.name == record.owner);
    let at_owner = owner.and_then(|host| host.copies[vm].as_ref());
    if at_owner.is_none_or(|copy| copy.qemu == Qemu::Dead) {
        return true;
    }
    let key = Key::Migration(mark.migration);
    match world.truth.records.get(&key) {
        Some(Record::Migration(migration)) => {
            matches!(migration.stage, Stage::Ended { end: End::Lost | End::Ended, .. })
        }
        _ => world.watch.lost.contains(&key),
    }
}

fn order_name(order: &Order) -> &'static str {
    match order {
        Order::Welcome(_) => "Welcome",
        Order::ForgetVm(_) => "ForgetVm",
        Order::KeepDead(..) => "KeepDead",
        Order::RackView { .. } => "RackView",
        Order::PrepareTarget { .. } => "PrepareTarget",
        Order::StartSource { .. } => "StartSource",
        Order::CommitDecision { .. } => "CommitDecision",
        Order::Cancel(..) => "Cancel",
        Order::ResumeTarget(..) => "ResumeTarget",
        Order::DiscardTarget(..) => "DiscardTarget",
        Order::SwitchoverGrant(_) => "SwitchoverGrant",
        Order::SetRate(..) => "SetRate",
        Order::ForceSwitchover(_) => "ForceSwitchover",
        Order::ReleaseSource { resume: true, .. } => "ReleaseSource to run",
        Order::ReleaseSource { .. } => "ReleaseSource",
    }
}
