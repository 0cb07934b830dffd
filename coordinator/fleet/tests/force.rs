//! Deadlines, and VMs that are stopped however long it takes.

use crate::common::{Desk, SECOND, ended, progress, request, vm};
use rackferry_fleet::{
    Connection, Disruption, EvacuationId, EvacuationRequest, EvacuationState, Event, MigrationId,
    MoveOptions, Order, Outcome, Refusal, RunState, Said,
};

const M1: MigrationId = MigrationId(1);

/// An evacuation whose one move copies.
fn copying(disruption: Disruption, deadline: Option<u64>) -> (Desk, Connection, EvacuationId) {
    let mut desk = Desk::new();
    let a = desk.connect("a1", "a", "a1", vec![vm("web", RunState::Running)]);
    let b = desk.connect("b1", "b", "b1", vec![]);
    let options = MoveOptions { disruption, ..MoveOptions::default() };
    let deadline_ns = deadline.map(|seconds| seconds * SECOND);
    let asked = EvacuationRequest { options, deadline_ns, ..request("a", "b") };
    let mut out = Vec::new();
    let id = desk.fleet.create_evacuation(&asked, desk.now, &mut out).expect("it is possible");
    desk.take(out);
    desk.say(b, Said::TargetReady(M1));
    desk.told();
    (desk, a, id)
}

/// The move comes to its end.
fn moves(desk: &mut Desk, a: Connection) {
    let generation = desk.fleet.migration(M1).expect("known").record.generation;
    desk.say(a, Said::CommitRequest(M1, generation));
    desk.say(a, Said::SourceStopped(M1));
    desk.say(Connection(2), Said::TargetRunning(M1));
    desk.say(a, Said::Ended(M1, ended(Outcome::Moved)));
}

fn force(desk: &mut Desk, id: MigrationId) -> Result<(), Refusal> {
    let mut out = Vec::new();
    let answer = desk.fleet.force_switchover(id, desk.now, &mut out);
    desk.take(out);
    answer
}

fn forced(desk: &mut Desk) -> usize {
    desk.told().iter().filter(|(_, order)| *order == Order::ForceSwitchover(M1)).count()
}

fn overdue(desk: &Desk, id: EvacuationId) -> bool {
    desk.fleet.evacuation(id).expect("known").overdue
}

#[test]
fn after_a_deadline_work_goes_on_and_it_is_said_once() {
    let (mut desk, a, id) = copying(Disruption::Brief, Some(10));
    desk.say(a, Said::Progress(M1, progress(0.5)));
    desk.pass(10 * SECOND - 1);
    assert!(!overdue(&desk, id) && desk.notices.is_empty());
    desk.pass(1);
    desk.pass(SECOND);
    assert!(overdue(&desk, id));
    assert_eq!(desk.notices.len(), 1, "{:?}", desk.notices);
    assert_eq!(desk.fleet.evacuation(id).expect("known").state, EvacuationState::Running);
    assert_eq!(forced(&mut desk), 0, "its stops have a limit");
    moves(&mut desk, a);
    assert_eq!(desk.fleet.evacuation(id).expect("known").state, EvacuationState::Done);
    desk.restart();
    assert!(overdue(&desk, id), "a restart forgets no deadline");
}

#[test]
fn with_allow_a_deadline_stops_who_still_copies() {
    let (mut desk, a, _) = copying(Disruption::Allow, Some(10));
    desk.pass(10 * SECOND);
    assert_eq!(forced(&mut desk), 0, "its session would not hear it yet");
    desk.say(a, Said::Progress(M1, progress(0.5)));
    desk.pass(SECOND);
    desk.pass(SECOND);
    assert_eq!(forced(&mut desk), 1);
    desk.handle(Event::Disconnected(a));
    let moving = crate::common::moving("web", RunState::Running, 1);
    desk.connect("a1", "a", "a1", vec![moving]);
    desk.pass(SECOND);
    assert_eq!(forced(&mut desk), 1, "a new stream: the word may be lost");
}

#[test]
fn an_evacuation_in_time_is_not_overdue_later() {
    let (mut desk, a, id) = copying(Disruption::Allow, Some(10));
    moves(&mut desk, a);
    desk.pass(60 * SECOND);
    assert!(!overdue(&desk, id));
}

#[test]
fn a_single_move_is_forced_whatever_its_options() {
    let (mut desk, a, _) = copying(Disruption::None, None);
    assert_eq!(force(&mut desk, MigrationId(9)), Err(Refusal::UnknownMigration(MigrationId(9))));
    desk.say(a, Said::Progress(M1, progress(0.5)));
    desk.pass(SECOND);
    assert_eq!(forced(&mut desk), 0);
    assert_eq!(force(&mut desk, M1), Ok(()));
    assert_eq!(forced(&mut desk), 1);
    let before = desk.log.clone();
    assert_eq!(force(&mut desk, M1), Ok(()));
    assert_eq!((forced(&mut desk), &desk.log), (0, &before), "said again, it changes nothing");
    // The next attempt knows it too.
    desk.say(a, Said::Ended(M1, ended(Outcome::RolledBack)));
    assert!(desk.fleet.migration(MigrationId(2)).expect("known").record.forced);
}

#[test]
fn the_same_request_has_the_same_deadline() {
    let mut desk = Desk::new();
    desk.connect("a1", "a", "a1", vec![vm("web", RunState::Running)]);
    desk.connect("b1", "b", "b1", vec![]);
    let asked = EvacuationRequest { request: "r".to_owned(), ..request("a", "b") };
    let mut out = Vec::new();
    let first = EvacuationRequest { deadline_ns: Some(SECOND), ..asked.clone() };
    let id = desk.fleet.create_evacuation(&first, desk.now, &mut out).expect("it is possible");
    assert_eq!(desk.fleet.create_evacuation(&first, desk.now, &mut out), Ok(id));
    let other = desk.fleet.create_evacuation(&asked, desk.now, &mut out);
    assert_eq!(other, Err(Refusal::RequestReused("r".to_owned())));
}
