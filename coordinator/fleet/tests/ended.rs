//! A guest that powers itself off while it is to move: nothing is left to move, and nothing is lost.

use crate::common::{Desk, ended, moving, vm};
use rackferry_fleet::{
    Connection, End, EvacuationId, EvacuationState, Limits, MigrationId, Order, Outcome, Phase,
    RunState, Said, SessionEnd, Stage, VmReport,
};

const M1: MigrationId = MigrationId(1);

fn started() -> (Desk, Connection, Connection, EvacuationId) {
    let mut desk = Desk::new();
    let a = desk.connect("a1", "a", "boot-a", vec![vm("web", RunState::Running)]);
    let b = desk.connect("b1", "b", "boot-b", vec![]);
    let id = desk.evacuate("a", "b");
    desk.say(b, Said::TargetReady(M1));
    desk.told();
    (desk, a, b, id)
}

fn powered_off(of: VmReport) -> Vec<VmReport> {
    vec![VmReport { powered_off: true, may_have_run: true, run_state: RunState::Dead, ..of }]
}

fn has_ended(desk: &Desk, id: EvacuationId) {
    assert_eq!(desk.phase(1), Phase::Done);
    let view = desk.fleet.migration(M1).expect("known");
    let Stage::Ended { end, reason, .. } = &view.record.stage else { panic!("it goes on") };
    assert_eq!((*end, reason.as_str()), (End::Ended, "its guest powered itself off"));
    let evacuation = desk.fleet.evacuation(id).expect("known");
    assert_eq!(evacuation.state, EvacuationState::Done);
    assert!(desk.notices.iter().all(|notice| !notice.urgent), "{:?}", desk.notices);
}

#[test]
fn a_guest_that_powers_itself_off_at_the_source_has_ended() {
    let (mut desk, a, b, id) = started();
    let end = SessionEnd { powered_off: true, ..ended(Outcome::VmLost) };
    desk.say(a, Said::Ended(M1, end));
    has_ended(&desk, id);
    let told = desk.told();
    let discards = |(to, order): &(Connection, Order)| {
        *to == b && matches!(order, Order::DiscardTarget(M1, _))
    };
    assert!(told.iter().any(discards), "{told:?}");
    // What is left of it keeps no rack from being empty, and is its operator's to remove.
    desk.report(a, powered_off(vm("web", RunState::Dead)));
    has_ended(&desk, id);
}

/// The list is faster than the session's word.
#[test]
fn a_list_says_it_as_well() {
    let (mut desk, a, _, id) = started();
    desk.report(a, powered_off(moving("web", RunState::Dead, 1)));
    has_ended(&desk, id);
}

#[test]
fn one_that_waits_for_its_turn_has_ended_too() {
    let mut desk = Desk::with(Limits { outgoing_per_host: 1, ..Limits::default() });
    let both = vec![vm("first", RunState::Running), vm("web", RunState::Running)];
    let a = desk.connect("a1", "a", "boot-a", both);
    desk.connect("b1", "b", "boot-b", vec![]);
    desk.evacuate("a", "b");
    assert_eq!(desk.phase(2), Phase::Queued);
    let mut list = powered_off(vm("web", RunState::Dead));
    list.push(moving("first", RunState::Running, 1));
    desk.report(a, list);
    desk.pass(crate::common::SECOND);
    let view = desk.fleet.migration(MigrationId(2)).expect("known");
    assert!(matches!(view.record.stage, Stage::Ended { end: End::Ended, .. }), "{:?}", view.record);
    assert_eq!(desk.phase(2), Phase::Done);
}

#[test]
fn a_guest_that_powers_itself_off_where_it_arrived_has_ended() {
    let (mut desk, a, b, id) = started();
    let generation = desk.fleet.migration(M1).expect("known").record.generation;
    desk.say(a, Said::CommitRequest(M1, generation));
    desk.report(b, vec![moving("web", RunState::Loaded, 1)]);
    desk.say(a, Said::SourceStopped(M1));
    desk.report(b, powered_off(moving("web", RunState::Dead, 1)));
    has_ended(&desk, id);
    assert_eq!(desk.vm("web").owner.as_str(), "b1");
}

#[test]
fn a_qemu_that_dies_is_still_a_loss() {
    let (mut desk, a, _, id) = started();
    desk.say(a, Said::Ended(M1, ended(Outcome::VmLost)));
    assert_eq!(desk.phase(1), Phase::Failed);
    let evacuation = desk.fleet.evacuation(id).expect("known");
    assert_eq!(evacuation.state, EvacuationState::Incomplete);
}
