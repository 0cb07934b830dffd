//! VMs that an evacuation leaves where they are, and names.

use crate::common::{Desk, request, vm};
use rackferry_fleet::{
    Connection, EvacuationId, EvacuationRequest, EvacuationState, Event, Fleet, MigrationId, Plan,
    Refusal, RunState, StayingVm, VmName,
};

/// Rack a with two hosts, one of four VMs is paused; rack b with one host.
fn site() -> (Desk, [Connection; 3]) {
    let mut desk = Desk::new();
    let vms = vec![vm("one", RunState::Running), vm("two", RunState::Paused)];
    let a1 = desk.connect("a1", "a", "boot-a1", vms);
    let vms = vec![vm("four", RunState::Running), vm("three", RunState::Running)];
    let a2 = desk.connect("a2", "a", "boot-a2", vms);
    let b1 = desk.connect("b1", "b", "boot-b1", vec![]);
    desk.told();
    (desk, [a1, a2, b1])
}

fn excluding(names: &[&str]) -> EvacuationRequest {
    let exclude = names.iter().map(|name| VmName::from(*name)).collect();
    EvacuationRequest { request: "r".to_owned(), exclude, ..request("a", "b") }
}

fn skipping(names: &[&str]) -> EvacuationRequest {
    EvacuationRequest { skip_blocked: true, ..excluding(names) }
}

fn moving(plan: &Plan) -> Vec<&str> {
    plan.moves.iter().map(|step| step.vm.as_str()).collect()
}

fn staying(vms: &[StayingVm]) -> Vec<String> {
    vms.iter().map(StayingVm::to_string).collect()
}

fn start(desk: &mut Desk, request: &EvacuationRequest) -> EvacuationId {
    let mut out = Vec::new();
    let id = desk.fleet.create_evacuation(request, desk.now, &mut out).expect("it is possible");
    desk.take(out);
    id
}

fn left_out(fleet: &Fleet, id: EvacuationId) -> Vec<String> {
    staying(&fleet.evacuation(id).expect("it is known").record.left_out)
}

#[test]
fn one_vm_that_cannot_move_keeps_the_others_only_if_it_is_not_left_out() {
    let (desk, _) = site();
    let refused = desk.fleet.plan_evacuation(&excluding(&[])).expect_err("one is paused");
    assert_eq!(refused, Refusal::NotMovable(vec![("two".into(), "it is paused")]));

    let plan = desk.fleet.plan_evacuation(&excluding(&["two"])).expect("it is excluded");
    assert_eq!(moving(&plan), ["four", "one", "three"]);
    assert_eq!(staying(&plan.left_out), ["VM two (excluded)"]);

    let plan = desk.fleet.plan_evacuation(&skipping(&["three"])).expect("it is skipped");
    assert_eq!(moving(&plan), ["four", "one"]);
    assert_eq!(staying(&plan.left_out), ["VM three (excluded)", "VM two (it is paused)"]);
}

#[test]
fn vms_that_move_already_or_whose_agent_is_away_are_skipped_too() {
    let (mut desk, [_, a2, _]) = site();
    let single = rackferry_fleet::MigrationRequest {
        request: String::new(),
        vm: "four".into(),
        target: "b1".into(),
        options: Default::default(),
    };
    let mut out = Vec::new();
    desk.fleet.create_migration(&single, desk.now, &mut out).expect("it is possible");
    desk.take(out);
    let refused = desk.fleet.plan_evacuation(&excluding(&["two"])).expect_err("it moves");
    assert_eq!(refused, Refusal::VmBusy { vm: "four".into(), migration: MigrationId(1) });
    desk.handle(Event::Disconnected(a2));
    let plan = desk.fleet.plan_evacuation(&skipping(&[])).expect("they are skipped");
    assert_eq!(moving(&plan), ["one"]);
    let away = "VM three (the agent of a2 is not connected)";
    let busy = "VM four (it takes part in mig-1)";
    assert_eq!(staying(&plan.left_out), [busy, away, "VM two (it is paused)"]);
}

#[test]
fn what_is_excluded_must_be_there() {
    let (mut desk, [.., b1]) = site();
    desk.report(b1, vec![vm("elsewhere", RunState::Running)]);
    let refused = desk.fleet.plan_evacuation(&excluding(&["elsewhere", "typo", "two"]));
    let missing = vec!["elsewhere".into(), "typo".into()];
    assert_eq!(refused, Err(Refusal::NotOnSources(missing)));
    let text = refused.expect_err("it is refused").to_string();
    assert_eq!(text, "excluded, but on none of the sources: elsewhere; typo");
}

#[test]
fn nothing_is_started_if_every_vm_is_left_out() {
    let (mut desk, _) = site();
    let all = skipping(&["four", "one", "three"]);
    let refused = desk.fleet.plan_evacuation(&all).expect_err("nothing moves");
    assert!(matches!(&refused, Refusal::NoneMovable(vms) if vms.len() == 4), "{refused}");
    // What checks at the agents find is left out afterwards.
    let plan = desk.fleet.plan_evacuation(&skipping(&[])).expect("three can move");
    let blocked = ["four", "one", "three"].map(|vm| (vm.into(), "no disk".to_owned()));
    let none = plan.without(blocked);
    assert_eq!(staying(&none.left_out)[0], "VM four (no disk)");
    let mut out = Vec::new();
    let refused = desk.fleet.start_evacuation(&skipping(&[]), &none, desk.now, &mut out);
    assert!(matches!(refused, Err(Refusal::NoneMovable(_))), "{refused:?}");
    assert_eq!(out, []);
}

#[test]
fn an_evacuation_with_vms_left_out_ends_incomplete_and_names_them_after_a_failover() {
    let mut desk = Desk::new();
    let vms = || vec![vm("one", RunState::Running), vm("two", RunState::Paused)];
    let a = desk.connect("a1", "a", "boot-a", vms());
    let b = desk.connect("b1", "b", "boot-b", vec![]);
    let id = start(&mut desk, &skipping(&[]));
    assert_eq!(start(&mut desk, &skipping(&[])), id, "the same request");
    let other = desk.fleet.create_evacuation(&excluding(&["two"]), desk.now, &mut Vec::new());
    assert_eq!(other, Err(Refusal::RequestReused("r".to_owned())));
    desk.complete(a, b, 1);
    desk.restart();
    let view = desk.fleet.evacuation(id).expect("it is known");
    assert_eq!((view.totals.done, view.totals.vms), (1, 1));
    assert_eq!(view.state, EvacuationState::Incomplete);
    assert_eq!(left_out(&desk.fleet, id), ["VM two (it is paused)"]);
}

#[test]
fn a_plan_stays_valid_for_what_it_leaves_out() {
    let (mut desk, [a1, ..]) = site();
    let plan = desk.fleet.plan_evacuation(&skipping(&["three"])).expect("it is skipped");
    // It could move now, and is left out all the same.
    desk.report(a1, vec![vm("one", RunState::Running), vm("two", RunState::Running)]);
    let apply = EvacuationRequest { request: "plan".to_owned(), ..request("a", "b") };
    let mut out = Vec::new();
    let id = desk.fleet.apply_evacuation(&apply, &plan, desk.now, &mut out).expect("as planned");
    desk.take(out);
    assert_eq!(left_out(&desk.fleet, id), ["VM three (excluded)", "VM two (it is paused)"]);
    let again = desk.fleet.apply_evacuation(&apply, &plan, desk.now, &mut Vec::new());
    assert_eq!(again, Ok(id));
    let fewer = Plan { left_out: vec![], ..plan };
    let again = desk.fleet.apply_evacuation(&apply, &fewer, desk.now, &mut Vec::new());
    assert_eq!(again, Err(Refusal::RequestReused("plan".to_owned())));
}

#[test]
fn a_vm_that_came_after_the_plan_is_still_named() {
    let (mut desk, [a1, ..]) = site();
    let plan = desk.fleet.plan_evacuation(&skipping(&[])).expect("it is skipped");
    let vms = ["new", "one"].map(|name| vm(name, RunState::Running));
    desk.report(a1, vms.into());
    let refused = desk.fleet.apply_evacuation(&request("a", "b"), &plan, desk.now, &mut Vec::new());
    let text = refused.expect_err("it is refused").to_string();
    assert!(text.contains("VM new is on a1, and not in the plan"), "{text}");
}

#[test]
fn a_record_of_an_earlier_version_leaves_nothing_out() {
    let (mut desk, _) = site();
    let id = start(&mut desk, &skipping(&[]));
    let record = desk.fleet.evacuation(id).expect("it is known").record;
    let mut old = serde_json::to_value(record).expect("it is plain");
    for field in ["exclude", "skip_blocked", "left_out", "no_cordon", "remains"] {
        assert!(old.as_object_mut().expect("an object").remove(field).is_some(), "{field}");
    }
    let read: rackferry_fleet::EvacuationRecord = serde_json::from_value(old).expect("it is read");
    assert!(!read.skip_blocked && read.exclude.is_empty() && read.left_out.is_empty());
    assert!(!read.no_cordon && read.remains.is_empty());
}
