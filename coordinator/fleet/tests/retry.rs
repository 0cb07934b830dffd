//! VMs whose moves were undone.

use crate::common::{Desk, SECOND, ended, vm};
use rackferry_fleet::{
    Connection, EvacuationState, Limits, MigrationId, Moment, Outcome, Phase, RunState, Said,
    SessionEnd, Wait, WaitCode,
};

/// Rack a with a VM, rack b with two hosts; its move to b1 has begun.
fn started() -> (Desk, Connection) {
    let mut desk = Desk::with(Limits { attempts: 4, ..Limits::default() });
    let a = desk.connect("a1", "a", "a1", vec![vm("web", RunState::Running)]);
    let b = ["b1", "b2"].map(|host| desk.connect(host, "b", host, vec![]));
    desk.evacuate("a", "b");
    desk.say(b[0], Said::TargetReady(MigrationId(1)));
    (desk, a)
}

/// The source's last word of an attempt.
fn undone(not_converged: bool) -> SessionEnd {
    let reason = "it would stop 840 ms".to_owned();
    SessionEnd { reason, not_converged, ..ended(Outcome::RolledBack) }
}

fn wait(desk: &Desk, id: u64) -> Option<Wait> {
    desk.fleet.migration(MigrationId(id)).expect("known").wait
}

fn target(desk: &Desk, id: u64) -> String {
    desk.fleet.migration(MigrationId(id)).expect("known").record.target.to_string()
}

#[test]
fn a_vm_is_tried_again_elsewhere_after_a_pause() {
    let (mut desk, a) = started();
    assert_eq!(target(&desk, 1), "b1");
    desk.say(a, Said::Ended(MigrationId(1), undone(false)));
    let wanted = Wait {
        code: WaitCode::RetryBackoff,
        detail: "it would stop 840 ms".to_owned(),
        limit: 4,
        used: 1,
    };
    assert_eq!((desk.phase(2), wait(&desk, 2)), (Phase::Queued, Some(wanted.clone())));
    assert_eq!(target(&desk, 2), "b2");
    desk.restart();
    desk.connect("a1", "a", "a1", vec![vm("web", RunState::Running)]);
    desk.connect("b2", "b", "b2", vec![]);
    assert_eq!(wait(&desk, 2), Some(wanted), "a restart forgets no pause");
    desk.pass(2 * SECOND - 1);
    assert_eq!(desk.phase(2), Phase::Queued);
    desk.pass(1);
    assert_eq!(desk.phase(2), Phase::Preparing);
}

#[test]
fn a_vm_that_does_not_converge_waits_longer_and_goes_to_the_same_host() {
    let (mut desk, a) = started();
    desk.say(a, Said::Ended(MigrationId(1), undone(true)));
    assert_eq!(target(&desk, 2), "b1");
    let record = desk.fleet.migration(MigrationId(2)).expect("known").record;
    assert_eq!(record.not_before, Some(Moment(desk.now.0 + 30 * SECOND)));
}

#[test]
fn pauses_double_and_attempts_end() {
    let (mut desk, a) = started();
    for (id, pause) in [(1, 2), (2, 4), (3, 8)] {
        let target = target(&desk, id);
        desk.say(a, Said::Ended(MigrationId(id), undone(false)));
        let next = id + 1;
        desk.pass((pause - 1) * SECOND);
        assert_eq!(desk.phase(next), Phase::Queued);
        // What was to arrive is gone.
        desk.connect(&target, "b", &target, vec![]);
        desk.pass(SECOND);
        assert_eq!(desk.phase(next), Phase::Preparing);
        let host = self::target(&desk, next);
        let connection = desk.connect(&host, "b", &host, vec![]);
        desk.say(connection, Said::TargetReady(MigrationId(next)));
        assert_eq!(desk.phase(next), Phase::Copying);
    }
    desk.say(a, Said::Ended(MigrationId(4), undone(false)));
    let view = desk.fleet.evacuations().next().expect("known");
    assert_eq!(view.state, EvacuationState::Incomplete);
    assert_eq!(view.migrations[0].reason, "it would stop 840 ms", "it stays with its reason");
}

#[test]
fn who_waits_for_another_attempt_can_be_cancelled() {
    let (mut desk, a) = started();
    desk.say(a, Said::Ended(MigrationId(1), undone(true)));
    desk.cancel(rackferry_fleet::EvacuationId(1));
    let view = desk.fleet.evacuations().next().expect("known");
    assert_eq!(view.state, EvacuationState::Cancelled);
    desk.pass(60 * SECOND);
    assert_eq!(desk.phase(2), Phase::RolledBack);
}

#[test]
fn the_source_says_why_though_the_target_told_of_it_before() {
    let (mut desk, a) = started();
    desk.say(Connection(2), Said::TargetDiscarded(MigrationId(1)));
    desk.say(a, Said::Ended(MigrationId(1), undone(true)));
    assert_eq!(wait(&desk, 2).map(|wait| wait.detail), Some("it would stop 840 ms".to_owned()));
    assert_eq!(target(&desk, 2), "b1", "the VM itself was the cause");
}
