//! Agents and the coordinator come back at any moment: what the log says and what hosts list are brought
//! together.

use crate::common::{Desk, SECOND, ended, moving, progress, vm};
use rackferry_fleet::{
    Condition, Connection, Event, Generation, MigrationId, Notice, Order, Outcome, Phase, RunState,
    Said, SessionEnd, Standing, VmReport,
};

const M1: MigrationId = MigrationId(1);

/// Racks a and b with a host each, and a VM that moves; the source was told to start.
fn started() -> (Desk, Connection, Connection) {
    let mut desk = Desk::new();
    let a = desk.connect("a1", "a", "boot-a", vec![vm("web", RunState::Running)]);
    let b = desk.connect("b1", "b", "boot-b", vec![]);
    desk.evacuate("a", "b");
    desk.say(b, Said::TargetReady(M1));
    desk.told();
    (desk, a, b)
}

fn committed() -> (Desk, Connection, Connection) {
    let (mut desk, a, b) = started();
    let generation = generation(&desk);
    desk.say(a, Said::CommitRequest(M1, generation));
    desk.told();
    (desk, a, b)
}

fn generation(desk: &Desk) -> Generation {
    desk.fleet.migration(M1).expect("known").record.generation
}

fn list(run_state: RunState) -> Vec<VmReport> {
    vec![moving("web", run_state, 1)]
}

fn orders(desk: &mut Desk) -> Vec<Order> {
    desk.told_of_moves().into_iter().map(|(_, order)| order).collect()
}

fn urgent(desk: &Desk) -> Vec<&Notice> {
    desk.notices.iter().filter(|notice| notice.urgent).collect()
}

/// The VM is its source's; at most another attempt has begun.
fn assert_stays(desk: &Desk) {
    assert_eq!(desk.vm("web").owner.as_str(), "a1");
    let standing = desk.vm("web").standing;
    assert!(
        matches!(standing, Standing::Stable | Standing::Moving(MigrationId(2))),
        "{standing:?}"
    );
    assert_eq!(desk.phase(1), Phase::RolledBack);
}

#[test]
fn a_list_from_before_the_start_does_not_end_the_session() {
    let (mut desk, a, _) = started();
    desk.report(a, vec![vm("web", RunState::Running)]);
    assert_eq!(desk.phase(1), Phase::Copying);
    desk.report(a, list(RunState::Running));
    desk.report(a, vec![vm("web", RunState::Running)]);
    assert_stays(&desk);
}

#[test]
fn a_coordinator_that_restarts_lets_sessions_go_on() {
    let (mut desk, _, _) = started();
    desk.restart();
    let a = desk.connect("a1", "a", "boot-a", list(RunState::Running));
    desk.connect("b1", "b", "boot-b", list(RunState::Incoming));
    assert_eq!(orders(&mut desk), []);
    let generation = generation(&desk);
    desk.say(a, Said::CommitRequest(M1, generation));
    let decision = Order::CommitDecision { migration: M1, generation, refusal: None };
    assert_eq!(orders(&mut desk), [decision]);
}

#[test]
fn a_slot_that_was_lost_with_the_coordinator_is_given_again() {
    let (mut desk, a, _) = started();
    desk.say(a, Said::SwitchoverRequest(M1));
    desk.restart();
    let a = desk.connect("a1", "a", "boot-a", list(RunState::Running));
    desk.told();
    let activity = rackferry_fleet::Activity::Switching;
    desk.say(a, Said::Progress(M1, rackferry_fleet::Progress { activity, ..progress(1.0) }));
    assert_eq!(orders(&mut desk), [Order::SwitchoverGrant(M1)]);
    desk.say(a, Said::Progress(M1, rackferry_fleet::Progress { activity, ..progress(1.0) }));
    assert_eq!(orders(&mut desk), []);
}

#[test]
fn a_restarted_source_agent_whose_vm_runs_rolls_back() {
    let (mut desk, _, _) = started();
    desk.connect("a1", "a", "boot-a2", list(RunState::Running));
    // It is tried again on the only target.
    desk.pass(2 * SECOND);
    let told = orders(&mut desk);
    assert!(
        matches!(
            &told[..],
            [
                Order::DiscardTarget(M1, _),
                Order::Cancel(M1, _),
                Order::PrepareTarget { migration: MigrationId(2), .. },
            ]
        ),
        "{told:?}"
    );
    assert_eq!(desk.phase(1), Phase::RolledBack);
}

#[test]
fn a_restarted_target_agent_calls_the_move_off() {
    let (mut desk, a, _) = started();
    desk.say(a, Said::Progress(M1, progress(0.5)));
    desk.connect("b1", "b", "boot-b2", list(RunState::Loaded));
    assert!(matches!(&orders(&mut desk)[..], [Order::Cancel(M1, _)]));
    assert_eq!(desk.phase(1), Phase::Cancelling);
    // Nor is it committed any more.
    let generation = generation(&desk);
    desk.say(a, Said::CommitRequest(M1, generation));
    assert!(matches!(&orders(&mut desk)[..], [Order::CommitDecision { refusal: Some(_), .. }]));
    desk.say(a, Said::Ended(M1, ended(Outcome::RolledBack)));
    assert_stays(&desk);
}

#[test]
fn a_source_that_died_before_the_commit_is_lost() {
    let (mut desk, a, _) = started();
    desk.say(a, Said::Ended(M1, ended(Outcome::VmLost)));
    assert!(matches!(&orders(&mut desk)[..], [Order::DiscardTarget(M1, _)]));
    assert_eq!(desk.phase(1), Phase::Failed);
    assert_eq!(urgent(&desk).len(), 1);
}

#[test]
fn a_commit_is_answered_the_same_when_asked_again() {
    let (mut desk, a, _) = committed();
    let generation = generation(&desk);
    desk.say(a, Said::CommitRequest(M1, generation));
    let granted = Order::CommitDecision { migration: M1, generation, refusal: None };
    assert_eq!(orders(&mut desk), [granted]);
    desk.say(a, Said::CommitRequest(M1, Generation(generation.0 + 1)));
    assert!(matches!(&orders(&mut desk)[..], [Order::CommitDecision { refusal: Some(_), .. }]));
}

#[test]
fn a_source_that_rolled_back_after_the_commit_owns_again() {
    let (mut desk, a, b) = committed();
    let old = generation(&desk);
    desk.say(a, Said::Ended(M1, ended(Outcome::RolledBack)));
    assert!(matches!(desk.told_of_moves()[..], [
        (to, Order::DiscardTarget(M1, _)), ..
    ] if to == b));
    assert_stays(&desk);
    assert!(desk.vm("web").generation > old);
    // What it asks late is refused.
    desk.say(a, Said::CommitRequest(M1, old));
    assert!(matches!(&orders(&mut desk)[..], [Order::CommitDecision { refusal: Some(_), .. }]));
}

#[test]
fn a_list_with_the_session_is_no_reason_to_abort() {
    let (mut desk, a, _) = committed();
    desk.report(a, list(RunState::Running));
    assert_eq!(orders(&mut desk), []);
    assert_eq!(desk.phase(1), Phase::Switching);
}

#[test]
fn silence_after_the_commit_waits() {
    let (mut desk, a, b) = committed();
    desk.handle(Event::Disconnected(a));
    desk.pass(3600 * crate::common::SECOND);
    assert_eq!(desk.phase(1), Phase::OwnerUnknown);
    desk.handle(Event::Disconnected(b));
    desk.pass(3600 * crate::common::SECOND);
    assert_eq!(orders(&mut desk), []);
    assert_eq!(desk.vm("web").owner.as_str(), "b1");
    assert_eq!(desk.vm("web").condition, Condition::Unknown);
}

#[test]
fn a_stopped_source_and_a_silent_target_are_paused_until_the_target_is_back() {
    let (mut desk, a, b) = committed();
    desk.handle(Event::Disconnected(b));
    desk.say(a, Said::SourceStopped(M1));
    desk.pass(3600 * crate::common::SECOND);
    assert_eq!(desk.phase(1), Phase::PausedRecoverable);
    assert_eq!(orders(&mut desk), []);
    desk.restart();
    desk.connect("b1", "b", "boot-b2", list(RunState::Loaded));
    assert_eq!(orders(&mut desk), [Order::ResumeTarget(M1, generation(&desk))]);
}

#[test]
fn a_stopped_source_runs_again_when_the_target_lost_its_copy() {
    for word in [Said::TargetDiscarded(M1), Said::Ended(M1, ended(Outcome::VmLost))] {
        let (mut desk, a, b) = committed();
        let old = generation(&desk);
        desk.say(a, Said::SourceStopped(M1));
        desk.told();
        desk.say(b, word);
        let new = desk.vm("web").generation;
        assert!(new > old);
        let told = desk.told_of_moves();
        let resume = Order::ReleaseSource { migration: M1, generation: new, resume: true };
        assert!(told.contains(&(a, resume.clone())), "{told:?}");
        assert_stays(&desk);
        // Said again as long as it is listed so.
        desk.report(a, list(RunState::MovedOut));
        assert!(desk.told_of_moves().contains(&(a, resume)));
    }
}

#[test]
fn a_source_that_stops_after_the_commit_was_undone_runs_again() {
    let (mut desk, a, b) = committed();
    desk.say(b, Said::TargetDiscarded(M1));
    desk.told();
    desk.say(a, Said::SourceStopped(M1));
    let told = orders(&mut desk);
    assert!(
        matches!(&told[..], [Order::ReleaseSource { migration: M1, resume: true, .. }]),
        "{told:?}"
    );
}

#[test]
fn a_dead_source_after_the_commit_lets_the_target_run() {
    let (mut desk, _, _) = committed();
    desk.connect("a1", "a", "boot-a2", vec![]);
    assert_eq!(orders(&mut desk), [Order::ResumeTarget(M1, generation(&desk))]);
}

#[test]
fn a_target_that_did_not_want_to_run_is_told_again() {
    let (mut desk, a, b) = committed();
    desk.say(a, Said::SourceStopped(M1));
    desk.told();
    desk.say(b, Said::Ended(M1, ended(Outcome::Stopped)));
    assert_eq!(orders(&mut desk), [Order::ResumeTarget(M1, generation(&desk))]);
    assert_eq!(desk.vm("web").owner.as_str(), "b1");
}

#[test]
fn both_gone_is_lost() {
    let (mut desk, a, b) = committed();
    desk.say(a, Said::Ended(M1, ended(Outcome::VmLost)));
    desk.say(b, Said::TargetDiscarded(M1));
    assert_eq!(desk.phase(1), Phase::Failed);
}

#[test]
fn a_target_that_runs_unasked_is_a_conflict_and_nothing_is_ordered() {
    let (mut desk, _, b) = started();
    desk.report(b, list(RunState::Running));
    assert_eq!(orders(&mut desk), []);
    assert_eq!(desk.phase(1), Phase::OwnerUnknown);
    assert_eq!(urgent(&desk).len(), 1);
    desk.report(b, list(RunState::Running));
    assert_eq!(urgent(&desk).len(), 1);
}

#[test]
fn the_sources_word_settles_before_the_targets() {
    let (mut desk, a, b) = committed();
    desk.say(a, Said::Ended(M1, ended(Outcome::Moved)));
    assert_eq!(desk.phase(1), Phase::Done);
    assert_eq!(desk.vm("web").standing, Standing::Stable);
    desk.say(b, Said::TargetRunning(M1));
    assert_eq!(urgent(&desk), Vec::<&Notice>::new());
}

#[test]
fn figures_are_waited_for_a_moment() {
    let (mut desk, a, b) = committed();
    desk.say(a, Said::SourceStopped(M1));
    desk.say(b, Said::TargetRunning(M1));
    // The list is faster than the last word.
    desk.report(a, vec![]);
    assert_eq!(desk.phase(1), Phase::Announcing);
    desk.say(a, Said::Ended(M1, ended(Outcome::Moved)));
    assert_eq!(desk.phase(1), Phase::Done);
    assert_eq!(desk.fleet.migration(M1).expect("known").record.result.blackout_ms, 30);
}

#[test]
fn a_move_ends_without_figures_if_they_are_lost() {
    let (mut desk, _, b) = committed();
    desk.connect("a1", "a", "boot-a", vec![]);
    desk.say(b, Said::TargetRunning(M1));
    desk.pass(crate::common::SECOND);
    assert_eq!(desk.phase(1), Phase::Done);
}

#[test]
fn a_reason_that_comes_late_is_kept() {
    let (mut desk, a, _) = started();
    desk.report(a, list(RunState::Running));
    desk.report(a, vec![vm("web", RunState::Running)]);
    let end = SessionEnd { reason: "no route".to_owned(), ..ended(Outcome::RolledBack) };
    desk.say(a, Said::Ended(M1, end));
    assert_eq!(desk.fleet.migration(M1).expect("known").reason, "no route");
}

#[test]
fn what_is_left_of_a_source_is_removed_when_it_comes_back() {
    let (mut desk, a, b) = committed();
    desk.say(a, Said::SourceStopped(M1));
    desk.handle(Event::Disconnected(a));
    desk.say(b, Said::TargetRunning(M1));
    assert_eq!(desk.phase(1), Phase::Done);
    desk.told();
    desk.restart();
    desk.connect("a1", "a", "boot-a2", list(RunState::MovedOut));
    let generation = generation(&desk);
    let release = Order::ReleaseSource { migration: M1, generation, resume: false };
    assert_eq!(orders(&mut desk), [release]);
}

#[test]
fn what_is_left_of_a_target_is_removed_when_it_comes_back() {
    let (mut desk, a, b) = started();
    desk.handle(Event::Disconnected(b));
    desk.say(a, Said::Ended(M1, ended(Outcome::RolledBack)));
    desk.told();
    desk.connect("b1", "b", "boot-b", list(RunState::Loaded));
    let told = orders(&mut desk);
    assert!(matches!(&told[..], [Order::DiscardTarget(M1, _)]), "{told:?}");
    // The second attempt waits until it is gone.
    desk.pass(2 * SECOND);
    let wait = desk.fleet.migration(MigrationId(2)).and_then(|view| view.wait).expect("it waits");
    assert_eq!(wait.code, rackferry_fleet::WaitCode::TargetDiscard);
}

#[test]
fn a_copy_that_died_is_removed_so_that_its_name_is_free() {
    // At the target, after the move was rolled back while its agent was away.
    let (mut desk, a, b) = started();
    desk.handle(Event::Disconnected(b));
    desk.say(a, Said::Ended(M1, ended(Outcome::RolledBack)));
    desk.told();
    desk.connect("b1", "b", "boot-b", list(RunState::Dead));
    let told = orders(&mut desk);
    assert!(told.iter().any(|order| matches!(order, Order::DiscardTarget(M1, _))), "{told:?}");
    // At the source, after the move.
    let (mut desk, a, b) = committed();
    desk.say(a, Said::SourceStopped(M1));
    desk.say(b, Said::TargetRunning(M1));
    desk.told();
    desk.connect("a1", "a", "boot-a", list(RunState::Dead));
    let release =
        Order::ReleaseSource { migration: M1, generation: generation(&desk), resume: false };
    assert_eq!(orders(&mut desk), [release]);
}

#[test]
fn a_vm_that_died_where_it_belongs_is_left_to_its_user() {
    let (mut desk, a, _) = started();
    desk.say(a, Said::Ended(M1, ended(Outcome::VmLost)));
    desk.told();
    desk.report(a, list(RunState::Dead));
    assert_eq!(orders(&mut desk), []);
}

#[test]
fn a_target_that_cannot_prepare_is_given_up_though_the_source_is_silent() {
    let mut desk = Desk::new();
    let a = desk.connect("a1", "a", "boot-a", vec![vm("web", RunState::Running)]);
    let b = desk.connect("b1", "b", "boot-b", vec![]);
    desk.evacuate("a", "b");
    desk.handle(Event::Disconnected(a));
    desk.say(b, Said::Ended(M1, ended(Outcome::RolledBack)));
    // Its copy answers again later; no order would ask it to prepare once more.
    desk.report(b, list(RunState::Incoming));
    assert_stays(&desk);
}

#[test]
fn a_target_whose_word_was_lost_is_asked_again() {
    let mut desk = Desk::new();
    desk.connect("a1", "a", "boot-a", vec![vm("web", RunState::Running)]);
    let b = desk.connect("b1", "b", "boot-b", vec![]);
    desk.evacuate("a", "b");
    desk.told();
    desk.report(b, list(RunState::Incoming));
    assert_eq!(orders(&mut desk), []);
    desk.pass(crate::common::SECOND);
    let told = orders(&mut desk);
    assert!(matches!(&told[..], [Order::PrepareTarget { migration: M1, .. }]), "{told:?}");
    desk.say(b, Said::TargetReady(M1));
    assert!(matches!(&orders(&mut desk)[..], [Order::StartSource { .. }]));
    desk.pass(crate::common::SECOND);
    assert_eq!(orders(&mut desk), []);
}

#[test]
fn an_unreachable_qemu_is_not_gone() {
    let (mut desk, _, b) = committed();
    desk.connect("a1", "a", "boot-a2", list(RunState::Unknown));
    assert_eq!(orders(&mut desk), []);
    assert_eq!(desk.vm("web").owner.as_str(), "b1");
    desk.report(b, list(RunState::Unknown));
    assert_eq!(orders(&mut desk), []);
}

#[test]
fn a_vm_started_elsewhere_by_hand_is_taken_over_only_from_an_owner_without_it() {
    let mut desk = Desk::new();
    let a = desk.connect("a1", "a", "1", vec![vm("web", RunState::Running)]);
    let b = desk.connect("b1", "b", "1", vec![vm("web", RunState::Running)]);
    assert_eq!(desk.vm("web").owner.as_str(), "a1");
    assert_eq!(urgent(&desk).len(), 1);
    let before = desk.vm("web").generation;
    desk.report(a, vec![vm("web", RunState::Dead)]);
    desk.report(b, vec![vm("web", RunState::Running)]);
    assert_eq!(desk.vm("web").owner.as_str(), "b1");
    assert!(desk.vm("web").generation > before);
    assert_eq!(orders(&mut desk), []);
}

#[test]
fn a_vm_that_its_host_lists_no_more_is_forgotten_and_comes_back_with_a_higher_generation() {
    let mut desk = Desk::new();
    let a = desk.connect("a1", "a", "1", vec![vm("web", RunState::Running)]);
    let before = desk.vm("web").generation;
    desk.report(a, vec![]);
    assert!(desk.fleet.vm(&"web".into()).is_none());
    desk.report(a, vec![vm("web", RunState::Running)]);
    assert!(desk.vm("web").generation > before);
}
