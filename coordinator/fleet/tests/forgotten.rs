//! Copies whose moves are no longer remembered, and VMs that are to be forgotten while a copy of them is left.

use crate::common::{Desk, ended, moving, vm};
use rackferry_fleet::{Event, Limits, MigrationId, Order, Outcome, Refusal, RunState, Said};

const M1: MigrationId = MigrationId(1);

/// A move that was rolled back while its target's host was away, and is forgotten.
fn forgotten() -> Desk {
    let limits = Limits { history: 0, attempts: 1, ..Limits::default() };
    let mut desk = Desk::with(limits);
    let a = desk.connect("a1", "a", "boot-a", vec![vm("web", RunState::Running)]);
    let b = desk.connect("b1", "b", "boot-b", vec![]);
    desk.evacuate("a", "b");
    desk.say(b, Said::TargetReady(M1));
    desk.handle(Event::Disconnected(b));
    desk.say(a, Said::Ended(M1, ended(Outcome::RolledBack)));
    desk.connect("c1", "c", "boot-c", vec![vm("other", RunState::Running)]);
    desk.connect("d1", "d", "boot-d", vec![]);
    desk.evacuate("c", "d");
    assert!(desk.fleet.migration(M1).is_none());
    desk.told();
    desk
}

fn orders(desk: &mut Desk) -> Vec<Order> {
    desk.told_of_moves().into_iter().map(|(_, order)| order).collect()
}

#[test]
fn what_never_ran_is_removed_from_where_the_vm_is_not() {
    for state in [RunState::Incoming, RunState::Loaded] {
        let mut desk = forgotten();
        desk.connect("b1", "b", "boot-b2", vec![moving("web", state, 1)]);
        let told = orders(&mut desk);
        assert!(matches!(told[..], [Order::DiscardTarget(M1, _)]), "{state:?}: {told:?}");
    }
}

#[test]
fn what_died_is_removed_on_whichever_side_it_was() {
    let mut desk = forgotten();
    desk.connect("b1", "b", "boot-b2", vec![moving("web", RunState::Dead, 1)]);
    let told = orders(&mut desk);
    let both = matches!(
        told[..],
        [Order::DiscardTarget(M1, _), Order::ReleaseSource { migration: M1, resume: false, .. }]
    );
    assert!(both, "{told:?}");
}

/// Its VM was ended where it came from, so neither the move nor the VM is on record.
#[test]
fn a_copy_of_no_vm_is_removed_unless_it_is_whole() {
    for (state, goes) in [(RunState::Incoming, true), (RunState::Loaded, false)] {
        let mut desk = Desk::new();
        desk.connect("b1", "b", "boot-b", vec![moving("web", state, 9)]);
        let told = orders(&mut desk);
        let discarded = matches!(told[..], [Order::DiscardTarget(MigrationId(9), _)]);
        assert_eq!((discarded, told.is_empty()), (goes, !goes), "{state:?}: {told:?}");
    }
}

/// It is dead where it should be, and stopped where it came from: that copy may be the last trace of its memory.
#[test]
fn a_vm_with_a_stopped_copy_elsewhere_is_not_forgotten() {
    let mut desk = Desk::new();
    desk.connect("a1", "a", "boot-a", vec![vm("web", RunState::Running)]);
    desk.connect("a1", "a", "boot-a2", vec![vm("web", RunState::Dead)]);
    desk.connect("b1", "b", "boot-b", vec![moving("web", RunState::MovedOut, 9)]);
    let (now, mut out) = (desk.now, Vec::new());
    let refused = desk.fleet.forget_vm(&"web".into(), now, &mut out);
    assert_eq!(refused, Err(Refusal::VmMayRun("web".into(), "b1".into())));
}

/// Its source was away from the switchover until the move was forgotten.
#[test]
fn a_stopped_copy_goes_once_its_vm_runs_where_it_belongs_and_not_before() {
    for (state, goes) in [(RunState::Running, true), (RunState::Dead, false)] {
        let mut desk = Desk::new();
        desk.connect("b1", "b", "boot-b", vec![vm("web", RunState::Running)]);
        desk.connect("b1", "b", "boot-b2", vec![vm("web", state)]);
        desk.told();
        desk.connect("a1", "a", "boot-a", vec![moving("web", RunState::MovedOut, 9)]);
        let told = orders(&mut desk);
        let released = matches!(
            told[..],
            [Order::ReleaseSource { migration: MigrationId(9), resume: false, .. }]
        );
        assert_eq!((released, told.is_empty()), (goes, !goes), "{state:?}: {told:?}");
    }
}
