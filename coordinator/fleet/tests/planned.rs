//! A plan that is applied later: exactly as planned, or not at all.

use crate::common::{Desk, MIB, request, vm};
use rackferry_fleet::{
    Connection, Difference, EvacuationId, EvacuationRequest, Move, Order, Plan, Refusal, RunState,
};

/// Rack a with two hosts and three VMs, rack b with two empty hosts; their connections.
fn site() -> (Desk, [Connection; 4]) {
    let mut desk = Desk::new();
    let vms = |names: &[&str]| names.iter().map(|name| vm(name, RunState::Running)).collect();
    let a1 = desk.connect("a1", "a", "boot-a1", vms(&["one", "two"]));
    let a2 = desk.connect("a2", "a", "boot-a2", vms(&["three"]));
    let b1 = desk.connect("b1", "b", "boot-b1", vec![]);
    let b2 = desk.connect("b2", "b", "boot-b2", vec![]);
    desk.told();
    (desk, [a1, a2, b1, b2])
}

fn wanted() -> EvacuationRequest {
    EvacuationRequest { request: "plan-7".to_owned(), ..request("a", "b") }
}

fn plan(desk: &Desk) -> Vec<Move> {
    desk.fleet.plan_evacuation(&wanted()).expect("it is possible").moves
}

fn apply(desk: &mut Desk, moves: &[Move]) -> Result<EvacuationId, Refusal> {
    let mut out = Vec::new();
    let plan = Plan { moves: moves.to_vec(), left_out: vec![] };
    let result = desk.fleet.apply_evacuation(&wanted(), &plan, desk.now, &mut out);
    assert!(result.is_ok() || out.is_empty(), "a refusal does nothing");
    desk.take(out);
    result
}

/// What has changed, as the refusal tells it.
fn changes(desk: &mut Desk, moves: &[Move]) -> Vec<String> {
    let log = desk.log.clone();
    let told = match apply(desk, moves) {
        Err(Refusal::PlanChanged(found)) => found.iter().map(Difference::to_string).collect(),
        other => panic!("not refused as changed: {other:?}"),
    };
    assert_eq!(desk.log, log);
    told
}

#[test]
fn a_plan_is_started_as_it_is_and_once() {
    let (mut desk, _) = site();
    let mut moves = plan(&desk);
    // Not what the planner would do by itself.
    for step in &mut moves {
        step.target = "b2".into();
    }
    let id = apply(&mut desk, &moves).expect("nothing has changed");
    let started: Vec<Move> = desk
        .fleet
        .evacuation(id)
        .expect("it is known")
        .migrations
        .iter()
        .map(|view| Move {
            vm: view.record.vm.clone(),
            memory_bytes: view.record.memory_bytes,
            source: view.record.source.clone(),
            target: view.record.target.clone(),
        })
        .collect();
    assert_eq!(started.len(), 3);
    assert!(moves.iter().all(|step| started.contains(step)), "{started:?}");
    let prepared = desk.told_of_moves();
    assert!(prepared.iter().all(|(_, order)| matches!(order, Order::PrepareTarget { .. })));
    assert_eq!(prepared.len(), 2, "as many as may reach a host");

    assert_eq!(apply(&mut desk, &moves), Ok(id));
    let plan = Plan { moves: moves.clone(), left_out: vec![] };
    assert_eq!(desk.fleet.still_planned(&wanted(), &plan), Ok(Plan::default()));
    let reused = apply(&mut desk, &moves[1..]);
    assert_eq!(reused, Err(Refusal::RequestReused("plan-7".to_owned())));
}

#[test]
fn a_started_plan_outlives_the_coordinator() {
    let (mut desk, _) = site();
    let moves = plan(&desk);
    let id = apply(&mut desk, &moves).expect("nothing has changed");
    desk.restart();
    assert_eq!(apply(&mut desk, &moves), Ok(id));
}

#[test]
fn vms_that_changed_are_named() {
    let (mut desk, [a1, a2, ..]) = site();
    let moves = plan(&desk);
    let mut larger = vm("one", RunState::Running);
    larger.memory_bytes = 200 * MIB;
    desk.report(a1, vec![larger, vm("four", RunState::Running), vm("two", RunState::Paused)]);
    desk.report(a2, vec![]);
    assert_eq!(
        changes(&mut desk, &moves),
        [
            "VM one has 200 MiB, not 100 MiB",
            "VM three is gone",
            "VM two cannot move: it is paused",
            "VM four is on a1, and not in the plan",
        ]
    );
}

#[test]
fn a_vm_on_another_host_is_named() {
    let (mut desk, [_, a2, b1, _]) = site();
    let moves = plan(&desk);
    desk.report(a2, vec![]);
    desk.report(b1, vec![vm("three", RunState::Running)]);
    assert_eq!(changes(&mut desk, &moves), ["VM three is on b1, not on a2"]);
}

#[test]
fn an_agent_that_is_away_is_named_once() {
    let (mut desk, [a1, ..]) = site();
    let moves = plan(&desk);
    desk.handle(rackferry_fleet::Event::Disconnected(a1));
    let told = changes(&mut desk, &moves);
    assert_eq!(told[0], "the agent of a1 is not connected");
    assert_eq!(told.iter().filter(|line| line.contains("a1 is not connected")).count(), 1);
}

#[test]
fn targets_that_changed_are_named() {
    let (mut desk, [_, _, b1, b2]) = site();
    let mut moves = plan(&desk);
    moves[0].target = "b1".into();
    moves[1].target = "b2".into();
    moves[2].target = "a2".into();
    let free = rackferry_fleet::Said::Report { memory_free_bytes: 30 * MIB, vms: vec![] };
    desk.say(b1, free);
    let mut out = Vec::new();
    desk.fleet.cordon(&["b2".to_owned()], true, desk.now, &mut out).expect("it is known");
    desk.take(out);
    let told = changes(&mut desk, &moves);
    assert_eq!(
        told,
        [
            "a2 is none of the targets any more, or is being emptied",
            "b1 has 30 MiB free, the plan needs 100 MiB",
            "b2 is cordoned",
        ]
    );
    desk.handle(rackferry_fleet::Event::Disconnected(b2));
    assert!(changes(&mut desk, &moves).contains(&"b2 is cordoned".to_owned()));
}

#[test]
fn no_vm_outside_the_sources_moves() {
    let (mut desk, [_, _, b1, _]) = site();
    let mut moves = plan(&desk);
    desk.report(b1, vec![vm("other", RunState::Running)]);
    moves.push(Move {
        vm: "other".into(),
        memory_bytes: 100 * MIB,
        source: "b1".into(),
        target: "b2".into(),
    });
    assert_eq!(changes(&mut desk, &moves), ["VM other is on b1, which is none of the sources"]);
}

#[test]
fn a_sum_that_overflows_does_not_fit() {
    let (mut desk, _) = site();
    let mut moves = plan(&desk);
    for step in &mut moves {
        step.target = "b1".into();
        step.memory_bytes = u64::MAX;
    }
    let told = changes(&mut desk, &moves);
    assert!(told.last().expect("some").starts_with("b1 has "), "{told:?}");
}

#[test]
fn a_long_list_is_cut_in_the_message() {
    let names: Vec<Difference> =
        (0..30).map(|i| Difference::Gone(format!("vm-{i}").as_str().into())).collect();
    let text = Refusal::PlanChanged(names).to_string();
    assert!(text.contains("VM vm-19 is gone; and 10 more"), "{text}");
}
