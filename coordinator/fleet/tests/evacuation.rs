//! Evacuations from the first order to the last word.

use crate::common::{Desk, MIB, SECOND, ended, moving, progress, request, vm};
use rackferry_fleet::{
    Connection, EvacuationState, Generation, Limits, MigrationId, MigrationRequest, MoveOptions,
    Order, Outcome, Phase, Refusal, RunState, Said, Standing, WaitCode,
};

const M1: MigrationId = MigrationId(1);

/// Rack a with host a1 and its VMs, rack b with host b1.
fn two_racks(vms: &[&str]) -> (Desk, Connection, Connection) {
    let mut desk = Desk::new();
    let list = vms.iter().map(|name| vm(name, RunState::Running)).collect();
    let a = desk.connect("a1", "a", "boot-a", list);
    let b = desk.connect("b1", "b", "boot-b", vec![]);
    desk.told();
    (desk, a, b)
}

/// Up to the order to start.
fn started(vms: &[&str]) -> (Desk, Connection, Connection) {
    let (mut desk, a, b) = two_racks(vms);
    desk.evacuate("a", "b");
    desk.say(b, Said::TargetReady(M1));
    desk.told();
    (desk, a, b)
}

fn generation(desk: &Desk, id: MigrationId) -> Generation {
    desk.fleet.migration(id).expect("known").record.generation
}

fn orders(desk: &mut Desk) -> Vec<Order> {
    desk.told_of_moves().into_iter().map(|(_, order)| order).collect()
}

#[test]
fn a_vm_moves() {
    let (mut desk, a, b) = two_racks(&["web"]);
    let before = desk.vm("web").generation;
    let id = desk.evacuate("a", "b");
    let told = desk.told_of_moves();
    assert!(
        matches!(&told[..], [(to, Order::PrepareTarget { migration, spec_toml, memory_bytes, cpu_properties, .. })]
            if *to == b && *migration == M1 && spec_toml == "name = 'web'" && *memory_bytes == 100 * MIB),
        "{told:?}"
    );
    assert_eq!(desk.vm("web").standing, Standing::Moving(M1));

    desk.say(b, Said::TargetReady(M1));
    let told = desk.told();
    assert!(
        matches!(&told[..], [(to, Order::StartSource { target, .. })]
            if *to == a && target.host.as_str() == "b1" && target.page_addr == "b1:7401"),
        "{told:?}"
    );
    desk.say(a, Said::Progress(M1, progress(0.5)));
    assert_eq!(desk.phase(1), Phase::Copying);

    desk.say(a, Said::SwitchoverRequest(M1));
    assert_eq!(desk.told(), [(a, Order::SwitchoverGrant(M1))]);
    let generation = generation(&desk, M1);
    assert!(generation > before);
    desk.say(a, Said::CommitRequest(M1, generation));
    let decision = Order::CommitDecision { migration: M1, generation, refusal: None };
    assert_eq!(desk.told(), [(a, decision)]);
    let committed = Standing::Committed { migration: M1, source_stopped: false };
    assert_eq!(desk.vm("web").standing, committed);
    assert_eq!(desk.vm("web").owner.as_str(), "b1");

    desk.say(a, Said::SourceStopped(M1));
    assert_eq!(desk.told(), [(b, Order::ResumeTarget(M1, generation))]);
    desk.say(b, Said::TargetRunning(M1));
    assert_eq!(desk.vm("web").standing, Standing::Stable);
    assert_eq!(desk.vm("web").generation, generation);
    assert_eq!(desk.phase(1), Phase::Announcing);
    desk.say(a, Said::Ended(M1, ended(Outcome::Moved)));
    let view = desk.fleet.evacuation(id).expect("known");
    assert_eq!(view.state, EvacuationState::Done);
    assert_eq!(view.totals.done, 1);
    assert_eq!(view.totals.counters.wire, MIB);
    assert_eq!(view.migrations[0].record.result.blackout_ms, 30);
}

/// Its host's list says so with the next report only.
#[test]
fn a_vm_that_has_moved_may_leave_again_at_once() {
    let (mut desk, a, b) = started(&["web"]);
    desk.report(b, vec![moving("web", RunState::Loaded, 1)]);
    desk.say(a, Said::SwitchoverRequest(M1));
    desk.say(a, Said::CommitRequest(M1, generation(&desk, M1)));
    desk.say(a, Said::SourceStopped(M1));
    desk.say(b, Said::TargetRunning(M1));
    desk.say(a, Said::Ended(M1, ended(Outcome::Moved)));
    desk.report(a, vec![]);
    desk.cordon("a", false);
    desk.told();
    desk.evacuate("b", "a");
    let told = desk.told_of_moves();
    assert!(
        matches!(&told[..], [(to, Order::PrepareTarget { vm, .. })] if *to == a && vm.as_str() == "web"),
        "{told:?}"
    );
}

#[test]
fn concurrency_is_bounded_and_says_so() {
    let (mut desk, a, b) = two_racks(&["v1", "v2", "v3"]);
    desk.evacuate("a", "b");
    let prepared = orders(&mut desk);
    assert_eq!(prepared.len(), 2);
    let wait = desk.fleet.migration(MigrationId(3)).and_then(|view| view.wait).expect("it waits");
    assert_eq!((wait.code, wait.limit, wait.used), (WaitCode::SourceBusy, 2, 2));
    desk.say(b, Said::Ended(M1, ended(Outcome::VmLost)));
    // The slot goes to the third; the retry of the first queues behind it.
    let told = orders(&mut desk);
    assert!(matches!(
        &told[..],
        [Order::DiscardTarget(M1, _), Order::PrepareTarget { migration: MigrationId(3), .. }]
    ));
    let _ = a;
}

#[test]
fn switchover_slots_are_bounded() {
    let limits = Limits {
        outgoing_per_host: 4,
        incoming_per_host: 4,
        switchovers_per_host: 1,
        ..Limits::default()
    };
    let mut desk = Desk::with(limits);
    let list = vec![vm("v1", RunState::Running), vm("v2", RunState::Running)];
    let a = desk.connect("a1", "a", "boot-a", list);
    let b = desk.connect("b1", "b", "boot-b", vec![]);
    desk.evacuate("a", "b");
    for id in [1, 2] {
        desk.say(b, Said::TargetReady(MigrationId(id)));
    }
    desk.told();
    desk.say(a, Said::SwitchoverRequest(MigrationId(1)));
    desk.say(a, Said::SwitchoverRequest(MigrationId(2)));
    assert_eq!(desk.told(), [(a, Order::SwitchoverGrant(MigrationId(1)))]);
    let wait = desk.fleet.migration(MigrationId(2)).and_then(|view| view.wait).expect("it waits");
    assert_eq!((wait.code, wait.limit, wait.used), (WaitCode::SwitchoverSlot, 1, 1));
    // Asked again, the answer comes again.
    desk.say(a, Said::SwitchoverRequest(MigrationId(1)));
    assert_eq!(desk.told(), [(a, Order::SwitchoverGrant(MigrationId(1)))]);
    // The first rolls back; the second gets the slot.
    desk.say(a, Said::Ended(MigrationId(1), ended(Outcome::RolledBack)));
    assert!(orders(&mut desk).contains(&Order::SwitchoverGrant(MigrationId(2))));
}

#[test]
fn a_committed_move_holds_its_slot_after_a_restart_too() {
    let limits = Limits { switchovers_total: 1, ..Limits::default() };
    let mut desk = Desk::with(limits);
    let list = || vec![moving("v1", RunState::Running, 1), moving("v2", RunState::Running, 2)];
    let a = desk.connect(
        "a1",
        "a",
        "boot-a",
        vec![vm("v1", RunState::Running), vm("v2", RunState::Running)],
    );
    let b = desk.connect("b1", "b", "boot-b", vec![]);
    desk.evacuate("a", "b");
    for id in [1, 2] {
        desk.say(b, Said::TargetReady(MigrationId(id)));
    }
    desk.say(a, Said::SwitchoverRequest(M1));
    let generation = generation(&desk, M1);
    desk.say(a, Said::CommitRequest(M1, generation));
    desk.restart();
    let a = desk.connect("a1", "a", "boot-a", list());
    desk.told();
    desk.say(a, Said::SwitchoverRequest(MigrationId(2)));
    assert_eq!(orders(&mut desk), [], "the first is paused still");
    desk.say(a, Said::Ended(M1, ended(Outcome::RolledBack)));
    assert!(orders(&mut desk).contains(&Order::SwitchoverGrant(MigrationId(2))));
}

#[test]
fn a_silent_source_gets_no_slot() {
    let limits = Limits { switchovers_total: 1, ..Limits::default() };
    let mut desk = Desk::with(limits);
    let list = vec![vm("v1", RunState::Running), vm("v2", RunState::Running)];
    let a = desk.connect("a1", "a", "boot-a", list);
    let a2 = desk.connect("a2", "a", "boot-a2", vec![vm("v3", RunState::Running)]);
    let b = desk.connect("b1", "b", "boot-b", vec![]);
    desk.connect("b2", "b", "boot-b2", vec![]);
    desk.evacuate("a1", "b1");
    desk.evacuate("a2", "b2");
    let b2 = Connection(4);
    for id in [1, 2, 3] {
        desk.say(if id == 3 { b2 } else { b }, Said::TargetReady(MigrationId(id)));
    }
    desk.say(a, Said::SwitchoverRequest(M1));
    desk.say(a, Said::SwitchoverRequest(MigrationId(2)));
    desk.told();
    // The first does not count while its source is silent; the second is as silent.
    desk.handle(rackferry_fleet::Event::Disconnected(a));
    desk.say(a2, Said::SwitchoverRequest(MigrationId(3)));
    assert_eq!(orders(&mut desk), [Order::SwitchoverGrant(MigrationId(3))]);
    let list = vec![moving("v1", RunState::Running, 1), moving("v2", RunState::Running, 2)];
    let a = desk.connect("a1", "a", "boot-a", list);
    desk.told();
    desk.say(a, Said::SwitchoverRequest(MigrationId(2)));
    assert_eq!(orders(&mut desk), []);
}

#[test]
fn a_failed_vm_is_tried_once_more_on_another_host() {
    let mut desk = Desk::with(Limits { attempts: 2, ..Limits::default() });
    let a = desk.connect("a1", "a", "boot-a", vec![vm("web", RunState::Running)]);
    let b1 = desk.connect("b1", "b", "boot-b1", vec![]);
    let b2 = desk.connect("b2", "b", "boot-b2", vec![]);
    let id = desk.evacuate("a", "b");
    desk.told();
    desk.say(b1, Said::Ended(M1, ended(Outcome::VmLost)));
    desk.pass(2 * SECOND);
    let told = desk.told_of_moves();
    assert!(
        matches!(&told[..], [
        (first, Order::DiscardTarget(M1, _)),
        (second, Order::PrepareTarget { migration: MigrationId(2), .. }),
    ] if *first == b1 && *second == b2),
        "{told:?}"
    );
    desk.say(b2, Said::TargetReady(MigrationId(2)));
    desk.say(a, Said::Ended(MigrationId(2), ended(Outcome::RolledBack)));
    let view = desk.fleet.evacuation(id).expect("known");
    assert_eq!(view.state, EvacuationState::Incomplete);
    assert_eq!((view.totals.failed, view.totals.uncertain), (1, 0));
    assert_eq!(desk.vm("web").owner.as_str(), "a1");
    assert_eq!(desk.vm("web").standing, Standing::Stable);
}

#[test]
fn a_cancelled_evacuation_leaves_vms_where_they_run() {
    let (mut desk, a, b) = two_racks(&["v1", "v2", "v3"]);
    let id = desk.evacuate("a", "b");
    desk.say(b, Said::TargetReady(M1));
    desk.told();
    desk.cancel(id);
    // The first is under way, the second prepares, the third waits.
    let told = desk.told_of_moves();
    assert!(
        matches!(&told[..], [
        (first, Order::Cancel(M1, _)),
        (second, Order::DiscardTarget(MigrationId(2), _)),
    ] if *first == a && *second == b),
        "{told:?}"
    );
    assert_eq!(desk.phase(1), Phase::Cancelling);
    // Too late to commit.
    let generation = generation(&desk, M1);
    desk.say(a, Said::CommitRequest(M1, generation));
    assert!(matches!(&orders(&mut desk)[..], [Order::CommitDecision { refusal: Some(_), .. }]));
    desk.cancel(id);
    desk.say(a, Said::Ended(M1, ended(Outcome::RolledBack)));
    assert!(matches!(&orders(&mut desk)[..], [Order::DiscardTarget(M1, _)]));
    let view = desk.fleet.evacuation(id).expect("known");
    assert_eq!(view.state, EvacuationState::Cancelled);
    for migration in &view.migrations {
        assert_eq!((migration.phase, migration.reason), (Phase::RolledBack, "cancelled"));
    }
}

#[test]
fn a_committed_move_is_not_cancelled() {
    let (mut desk, a, b) = started(&["web"]);
    let generation = generation(&desk, M1);
    desk.say(a, Said::CommitRequest(M1, generation));
    desk.told();
    desk.cancel(rackferry_fleet::EvacuationId(1));
    assert_eq!(desk.told(), []);
    desk.say(a, Said::SourceStopped(M1));
    desk.say(b, Said::TargetRunning(M1));
    desk.say(a, Said::Ended(M1, ended(Outcome::Moved)));
    let view = desk.fleet.evacuation(rackferry_fleet::EvacuationId(1)).expect("known");
    assert_eq!(view.state, EvacuationState::Done);
}

#[test]
fn a_cancel_survives_restarts() {
    let (mut desk, a, b) = started(&["web"]);
    desk.say(a, Said::Progress(M1, progress(0.1)));
    desk.cancel(rackferry_fleet::EvacuationId(1));
    desk.restart();
    desk.connect("b1", "b", "boot-b", vec![moving("web", RunState::Incoming, 1)]);
    let a = desk.connect("a1", "a", "boot-a", vec![moving("web", RunState::Running, 1)]);
    let told = desk.told_of_moves();
    assert!(matches!(&told[..], [(to, Order::Cancel(M1, _))] if *to == a), "{told:?}");
    let _ = b;
}

#[test]
fn a_cancel_does_not_wait_for_a_silent_source() {
    let (mut desk, a, _) = started(&["web"]);
    desk.handle(rackferry_fleet::Event::Disconnected(a));
    desk.cancel(rackferry_fleet::EvacuationId(1));
    let view = desk.fleet.evacuation(rackferry_fleet::EvacuationId(1)).expect("known");
    assert_eq!(view.state, EvacuationState::Cancelled);
    assert_eq!(desk.vm("web").owner.as_str(), "a1");
    assert_eq!(desk.vm("web").condition, rackferry_fleet::Condition::Unknown);
    // When it is back and still copies, it is told to stop.
    let a = desk.connect("a1", "a", "boot-a", vec![moving("web", RunState::Running, 1)]);
    assert!(
        desk.told_of_moves()
            .iter()
            .any(|(to, order)| { *to == a && matches!(order, Order::Cancel(M1, _)) })
    );
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut desk = Desk::new();
    let large =
        rackferry_fleet::VmReport { memory_bytes: 1001 * MIB, ..vm("big", RunState::Running) };
    desk.connect("a1", "a", "boot-a", vec![large]);
    desk.connect("b1", "b", "boot-b", vec![]);
    let refused = desk.fleet.plan_evacuation(&request("a", "b")).expect_err("too big");
    assert!(matches!(refused, Refusal::DoesNotFit(_)), "{refused}");
}

#[test]
fn memory_on_its_way_counts() {
    let (mut desk, _, _) = two_racks(&["v1", "v2", "v3", "v4", "v5", "v6"]);
    desk.evacuate("a", "b");
    let big = rackferry_fleet::VmReport { memory_bytes: 500 * MIB, ..vm("big", RunState::Running) };
    desk.connect("c1", "c", "boot-c", vec![big]);
    let refused = desk.fleet.plan_evacuation(&request("c", "b")).expect_err("600 MiB are taken");
    assert!(matches!(refused, Refusal::DoesNotFit(_)), "{refused}");
}

#[test]
fn refusals_name_the_reason() {
    let (mut desk, a, _) = two_racks(&["web"]);
    let plan = |desk: &Desk, source: &str, target: &str| {
        desk.fleet.plan_evacuation(&request(source, target)).expect_err("it is wrong")
    };
    assert_eq!(plan(&desk, "x", "b"), Refusal::UnknownPlace("x".to_owned()));
    assert_eq!(plan(&desk, "a", "a"), Refusal::SameHost("a".to_owned()));
    assert_eq!(plan(&desk, "b", "a"), Refusal::NothingToMove);
    desk.report(a, vec![vm("web", RunState::Paused)]);
    assert!(matches!(plan(&desk, "a", "b"), Refusal::NotMovable(_)));
    desk.report(a, vec![vm("web", RunState::Running)]);
    desk.evacuate("a", "b");
    assert_eq!(plan(&desk, "a", "b"), Refusal::VmBusy { vm: "web".into(), migration: M1 });
    desk.handle(rackferry_fleet::Event::Disconnected(a));
    let request = MigrationRequest {
        request: String::new(),
        vm: "nope".into(),
        target: "b1".into(),
        options: MoveOptions::default(),
    };
    let refused = desk.fleet.create_migration(&request, desk.now, &mut Vec::new());
    assert_eq!(refused, Err(Refusal::UnknownVm("nope".into())));
}

#[test]
fn the_same_request_starts_once() {
    let (mut desk, _, _) = two_racks(&["web"]);
    let mut asked = request("a", "b");
    asked.request = "r-1".to_owned();
    let mut out = Vec::new();
    let first = desk.fleet.create_evacuation(&asked, desk.now, &mut out);
    desk.take(out);
    desk.restart();
    let mut out = Vec::new();
    assert_eq!(desk.fleet.create_evacuation(&asked, desk.now, &mut out), first);
    assert_eq!(out, []);
    asked.targets = vec!["c".to_owned()];
    let refused = desk.fleet.create_evacuation(&asked, desk.now, &mut out);
    assert_eq!(refused, Err(Refusal::RequestReused("r-1".to_owned())));
}

#[test]
fn progress_never_runs_backwards() {
    let (mut desk, a, _) = started(&["web"]);
    desk.say(a, Said::Progress(M1, progress(0.6)));
    desk.say(a, Said::Progress(M1, progress(0.4)));
    let ratio = desk.fleet.migration(M1).expect("known").progress.pass1_ratio;
    assert_eq!(ratio, 0.6);
}

#[test]
fn a_silent_target_is_replaced_after_its_time_out() {
    let mut desk = Desk::new();
    desk.connect("a1", "a", "boot-a", vec![vm("web", RunState::Running)]);
    let b1 = desk.connect("b1", "b", "boot-b1", vec![]);
    let b2 = desk.connect("b2", "b", "boot-b2", vec![]);
    desk.evacuate("a", "b");
    desk.told();
    desk.handle(rackferry_fleet::Event::Disconnected(b1));
    desk.pass(29 * SECOND);
    assert_eq!(desk.told_of_moves(), []);
    desk.pass(2 * SECOND);
    desk.pass(2 * SECOND);
    let told = desk.told_of_moves();
    assert!(
        matches!(&told[..], [(to, Order::PrepareTarget { migration: MigrationId(2), .. })] if *to == b2)
    );
}

#[test]
fn rack_views_follow_who_is_there() {
    let mut desk = Desk::new();
    let a1 = desk.connect("a1", "a", "1", vec![]);
    desk.connect("a2", "a", "1", vec![]);
    let views = |desk: &mut Desk, to: Connection| -> Vec<(u64, usize)> {
        let told = desk.told();
        told.into_iter()
            .filter_map(|(connection, order)| match order {
                Order::RackView { epoch, members, .. } if connection == to => {
                    Some((epoch, members.len()))
                }
                _ => None,
            })
            .collect()
    };
    assert_eq!(views(&mut desk, a1), [(1, 1), (2, 2)]);
    desk.restart();
    let a1 = desk.connect("a1", "a", "1", vec![]);
    assert_eq!(views(&mut desk, a1), [(3, 1)]);
}

/// What the agents are told of who may fetch contents: the rack view's members, and whether VMs are on their way to them.
fn receivers(told: Vec<(Connection, Order)>, to: Connection) -> Vec<Vec<(String, bool)>> {
    let views = told.into_iter().filter_map(|(connection, order)| match order {
        Order::RackView { members, .. } if connection == to => Some(members),
        _ => None,
    });
    views
        .map(|members| members.into_iter().map(|m| (m.host.to_string(), m.receives)).collect())
        .collect()
}

#[test]
fn rack_views_say_to_whom_vms_are_on_their_way() {
    let mut desk = Desk::new();
    desk.connect("a1", "a", "1", vec![vm("v1", RunState::Running)]);
    let b1 = desk.connect("b1", "b", "1", vec![]);
    let seen = receivers(desk.told(), b1);
    assert_eq!(seen.last(), Some(&vec![("b1".to_owned(), false)]));
    let id = desk.evacuate("a", "b");
    assert_eq!(receivers(desk.told(), b1), [vec![("b1".to_owned(), true)]], "once it has begun");
    desk.cancel(id);
    let gone = receivers(desk.told(), b1);
    assert_eq!(gone.last(), Some(&vec![("b1".to_owned(), false)]), "and no more once it is over");
}

#[test]
fn neighbours_are_told_who_receives_before_the_target_is_told_to_prepare() {
    let mut desk = Desk::new();
    desk.connect("a1", "a", "1", vec![vm("v1", RunState::Running)]);
    desk.connect("b1", "b", "1", vec![]);
    desk.connect("b2", "b", "1", vec![]);
    desk.told();
    desk.evacuate("a", "b");
    let told = desk.told();
    let is_view = |order: &Order| matches!(order, Order::RackView { .. });
    let views = told.iter().take_while(|(_, order)| is_view(order)).count();
    assert_eq!(views, 2, "both of the rack, first of all: {told:?}");
    assert!(told.iter().any(|(_, order)| matches!(order, Order::PrepareTarget { .. })));
}

#[test]
fn words_of_an_old_connection_do_not_count() {
    let (mut desk, a, _) = started(&["web"]);
    desk.connect("a1", "a", "boot-a", vec![moving("web", RunState::Running, 1)]);
    desk.told();
    let generation = generation(&desk, M1);
    desk.say(a, Said::CommitRequest(M1, generation));
    desk.handle(rackferry_fleet::Event::Disconnected(a));
    assert_eq!(desk.told(), []);
    assert_eq!(desk.vm("web").standing, Standing::Moving(M1));
}

#[test]
fn a_vm_that_ends_while_it_waits_is_not_moved() {
    let (mut desk, a, _) = two_racks(&["v1", "v2", "v3"]);
    let id = desk.evacuate("a", "b");
    desk.report(a, vec![vm("v1", RunState::Running), vm("v2", RunState::Running)]);
    let view = desk.fleet.evacuation(id).expect("known");
    assert_eq!(view.migrations[2].phase, Phase::Failed);
    assert!(desk.fleet.vm(&"v3".into()).is_none());
}

#[test]
fn a_source_that_does_not_answer_its_new_agent_is_waited_for() {
    let (mut desk, _, _) = started(&["web"]);
    // Its agent was killed before it said a word of the session.
    let a = desk.connect("a1", "a", "boot-a2", vec![moving("web", RunState::Unknown, 1)]);
    assert_eq!(desk.phase(1), Phase::Copying);
    assert_eq!(orders(&mut desk), []);
    desk.report(a, vec![moving("web", RunState::Running, 1)]);
    assert_eq!(desk.phase(1), Phase::RolledBack);
    assert_eq!(desk.vm("web").owner.as_str(), "a1");
}

#[test]
fn after_the_commit_a_source_that_does_not_answer_may_still_run() {
    let (mut desk, a, _) = started(&["web"]);
    let generation = generation(&desk, M1);
    desk.say(a, Said::CommitRequest(M1, generation));
    desk.told();
    let a = desk.connect("a1", "a", "boot-a2", vec![moving("web", RunState::Unknown, 1)]);
    let resumes = |order: &Order| matches!(order, Order::ResumeTarget(..));
    assert!(!orders(&mut desk).iter().any(resumes));
    desk.report(a, vec![moving("web", RunState::MovedOut, 1)]);
    assert!(orders(&mut desk).iter().any(resumes));
}
