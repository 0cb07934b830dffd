//! What must hold, one invariant a file. Everything is looked at after every event.

mod answers_durable;
mod generations_rise;
mod holds_kept;
mod hurry_asked;
mod intents_reached;
mod kept_apart;
mod limits_kept;
mod links_kept;
mod nobody_lost;
mod nothing_left;
mod one_running_copy;
mod progress_forward;
mod retries_wait;
mod told_by_the_log;

use std::collections::BTreeMap;

use rackferry_fleet::{Fleet, Generation, Key, MigrationId, Order, Record, Stage, VmName};

use crate::host::qemu::Qemu;
use crate::world::World;

pub use answers_durable::Acknowledged;
pub use limits_kept::LimitsKept;
pub use progress_forward::ProgressForward;

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: &'static str,
    /// In what way.
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
    /// The highest generation a VM was owned with.
    pub generations: BTreeMap<VmName, Generation>,
    /// What clients were told.
    pub acknowledged: Vec<Acknowledged>,
}

impl Watch {
    /// Nothing has happened yet.
    pub fn new(vms: usize) -> Self {
        Self {
            killed_running: vec![false; vms],
            killed_copies: vec![0; vms],
            kills: 0,
            generations: BTreeMap::new(),
            acknowledged: Vec::new(),
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
        let mut found = one_running_copy::check(self).map(|what| ("one running copy", what));
        found = found.or_else(|| nobody_lost::check(self).map(|what| ("nobody lost", what)));
        if std::mem::take(&mut self.truth_changed) {
            found = found
                .or_else(|| answers_durable::check(self).map(|what| ("answers durable", what)));
        }
        if let Some((invariant, what)) = found {
            self.violated(invariant, what);
        }
    }

    /// A change is committed.
    pub fn watch_change(&mut self, change: &rackferry_fleet::Change) {
        self.count_commits(change);
        if let Some(what) = generations_rise::check(self, change) {
            self.violated("generations rise", what);
        }
    }

    /// A leader's fleet has decided to give an order.
    pub fn watch_decision(&mut self, node: usize, order: &Order) {
        *self.coverage.orders.entry(order_name(order)).or_default() += 1;
        if matches!(order, Order::CommitDecision { refusal: Some(_), .. }) {
            self.coverage.refused += 1;
        }
        if let Some(what) = told_by_the_log::decided(self, node, order) {
            self.violated("told by the log", what);
        }
        if let Some(what) = holds_kept::check(self, node, order) {
            self.violated("holds kept", what);
        }
        if let Some(what) = kept_apart::check(self, node, order) {
            self.violated("kept apart", what);
        }
        if let Some(what) = hurry_asked::check(self, node, order) {
            self.violated("hurry asked for", what);
        }
        if let Some(what) = retries_wait::check(self, node, order) {
            self.violated("retries wait", what);
        }
        if let Some(what) = links_kept::check(self, node, order) {
            self.violated("links kept", what);
        }
        if let Some(what) = limits_kept::check(self, node, order) {
            self.violated("limits kept", what);
        }
    }

    /// An order that bears on ownership leaves; entries committed, and known to its leader, when decided.
    pub fn watch_order_leaving(&mut self, node: usize, knew: (usize, usize), order: &Order) {
        if let Some(what) = told_by_the_log::leaves(self, node, knew, order) {
            self.violated("told by the log", what);
        }
    }

    /// What clients see has changed.
    pub fn watch_shown(&mut self, node: usize) {
        if let Some(what) = progress_forward::check(self, node) {
            self.violated("progress goes forward", what);
        }
    }

    /// A client was told something: from now on it must hold.
    pub fn acknowledged(&mut self, what: Acknowledged) {
        self.watch.acknowledged.push(what);
        self.truth_changed = true;
    }

    /// Why the world is not at rest yet, faults having healed; none if it is.
    pub fn unrest(&self) -> Option<(&'static str, String)> {
        let left = || nothing_left::check(self).map(|what| ("nothing left over", what));
        intents_reached::check(self).map(|what| ("intents reached", what)).or_else(left)
    }
}

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

fn order_name(order: &Order) -> &'static str {
    match order {
        Order::Welcome(_) => "Welcome",
        Order::RackView { .. } => "RackView",
        Order::PrepareTarget { .. } => "PrepareTarget",
        Order::StartSource { .. } => "StartSource",
        Order::CommitDecision { .. } => "CommitDecision",
        Order::Cancel(..) => "Cancel",
        Order::ResumeTarget(..) => "ResumeTarget",
        Order::DiscardTarget(..) => "DiscardTarget",
        Order::SwitchoverGrant(_) => "SwitchoverGrant",
        Order::SetRate(..) => "SetRate",
        Order::HurrySource(_) => "HurrySource",
        Order::ReleaseSource { resume: true, .. } => "ReleaseSource to run",
        Order::ReleaseSource { .. } => "ReleaseSource",
    }
}
