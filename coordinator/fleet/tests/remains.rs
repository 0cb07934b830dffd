//! An evacuation is done only if its sources are empty: they take no VMs, and what is still there is named.

use crate::common::{Desk, SECOND, moving, request, vm};
use rackferry_fleet::{
    Connection, EvacuationId, EvacuationRequest, EvacuationState, Event, HostName, MigrationId,
    Refusal, RestoreRequest, RunState, Said, StayingVm, Topology, VmReport,
};

const FIRST: EvacuationId = EvacuationId(1);
const M1: MigrationId = MigrationId(1);

/// Racks a and b with two hosts each; VM `one` is on a1, and an evacuation moves it.
fn evacuating() -> (Desk, [Connection; 4]) {
    evacuating_as(&request("a", "b"))
}

fn evacuating_as(request: &EvacuationRequest) -> (Desk, [Connection; 4]) {
    let mut desk = Desk::new();
    let a1 = desk.connect("a1", "a", "boot-a1", vec![vm("one", RunState::Running)]);
    let a2 = desk.connect("a2", "a", "boot-a2", vec![]);
    let [b1, b2] = ["b1", "b2"].map(|host| desk.connect(host, "b", host, vec![]));
    let mut out = Vec::new();
    let id = desk.fleet.create_evacuation(request, desk.now, &mut out).expect("it is possible");
    desk.take(out);
    assert_eq!(id, FIRST);
    (desk, [a1, a2, b1, b2])
}

/// The target that was chosen for `one`.
fn target(desk: &Desk, [.., b1, b2]: [Connection; 4]) -> Connection {
    let view = desk.fleet.evacuation(FIRST).expect("it is known");
    if view.migrations[0].record.target.as_str() == "b1" { b1 } else { b2 }
}

fn end(desk: &mut Desk, agents: [Connection; 4]) {
    let target = target(desk, agents);
    desk.complete(agents[0], target, 1);
}

fn state(desk: &Desk) -> EvacuationState {
    desk.fleet.evacuation(FIRST).expect("it is known").state
}

fn remains(desk: &Desk) -> (Vec<String>, Vec<HostName>) {
    let record = desk.fleet.evacuation(FIRST).expect("it is known").record;
    let vms = record.remains.vms.iter().map(StayingVm::to_string).collect();
    (vms, record.remains.silent.clone())
}

fn cordoned(desk: &Desk) -> Vec<String> {
    let hosts = desk.fleet.hosts().into_iter().filter(|host| host.cordoned);
    hosts.map(|host| host.name.to_string()).collect()
}

#[test]
fn empty_sources_are_done_and_stay_cordoned() {
    let (mut desk, agents) = evacuating();
    assert_eq!(cordoned(&desk), ["a1", "a2"]);
    // The list of a1 is older than the end of the move.
    end(&mut desk, agents);
    assert_eq!((state(&desk), remains(&desk)), (EvacuationState::Done, (vec![], vec![])));
    desk.restart();
    desk.connect("a1", "a", "boot-a1", vec![]);
    assert_eq!(cordoned(&desk), ["a1", "a2"]);
    let refused = desk.fleet.plan_evacuation(&request("b", "a"));
    assert!(matches!(refused, Err(Refusal::Disconnected(_) | Refusal::NotEmpty(_))), "{refused:?}");
    desk.cordon("a", false);
    assert_eq!(cordoned(&desk), [""; 0]);
}

#[test]
fn whatever_is_on_a_source_is_named() {
    let (mut desk, agents) = evacuating();
    let [_, a2, ..] = agents;
    let unknown = VmReport { spec_toml: String::new(), ..vm("dumb", RunState::Unknown) };
    let dead = vm("dead", RunState::Dead);
    desk.report(
        a2,
        vec![vm("new", RunState::Running), vm("held", RunState::Paused), unknown, dead],
    );
    end(&mut desk, agents);
    assert_eq!(state(&desk), EvacuationState::Incomplete);
    let named = [
        "VM dumb (its QEMU does not answer)",
        "VM held (it is paused)",
        "VM new (it runs, and is no part of the evacuation)",
    ];
    assert_eq!(remains(&desk), (named.map(str::to_owned).into(), vec![]));
    desk.restart();
    assert_eq!(state(&desk), EvacuationState::Incomplete, "it is on record");
    assert_eq!(remains(&desk).0.len(), 3);
}

#[test]
fn a_copy_that_another_host_owns_is_named() {
    let (mut desk, agents) = evacuating();
    let [_, a2, b1, _] = agents;
    desk.report(b1, vec![vm("twin", RunState::Running)]);
    desk.report(a2, vec![vm("twin", RunState::Running)]);
    end(&mut desk, agents);
    assert_eq!(remains(&desk).0, ["VM twin (it runs here, and b1 owns it)"]);
    assert_eq!(state(&desk), EvacuationState::Incomplete);
}

#[test]
fn a_vm_on_its_way_to_a_source_is_named() {
    let mut desk = Desk::new();
    let a1 = desk.connect("a1", "a", "boot-a1", vec![vm("one", RunState::Running)]);
    desk.connect("a2", "a", "boot-a2", vec![]);
    desk.connect("c1", "c", "boot-c1", vec![vm("late", RunState::Running)]);
    let b1 = desk.connect("b1", "b", "boot-b1", vec![]);
    let mut out = Vec::new();
    let single = rackferry_fleet::MigrationRequest {
        request: String::new(),
        vm: "late".into(),
        target: "a2".into(),
        options: Default::default(),
    };
    desk.fleet.create_migration(&single, desk.now, &mut out).expect("it is possible");
    desk.take(out);
    assert_eq!(desk.evacuate("a", "b"), FIRST);
    desk.complete(a1, b1, 2);
    assert_eq!(remains(&desk).0, ["VM late (mig-1 brings it here)"]);
}

#[test]
fn a_silent_source_is_waited_for_then_named() {
    let (mut desk, agents) = evacuating();
    desk.handle(Event::Disconnected(agents[1]));
    end(&mut desk, agents);
    assert_eq!(state(&desk), EvacuationState::Running, "its list may come");
    desk.pass(20 * SECOND);
    desk.connect("a2", "a", "boot-2", vec![]);
    assert_eq!(state(&desk), EvacuationState::Done);

    let (mut desk, agents) = evacuating();
    desk.handle(Event::Disconnected(agents[1]));
    end(&mut desk, agents);
    desk.pass(31 * SECOND);
    assert_eq!(state(&desk), EvacuationState::Incomplete);
    assert_eq!(remains(&desk), (vec![], vec!["a2".into()]));
}

#[test]
fn a_new_leader_waits_for_the_lists_of_all_sources() {
    let (mut desk, agents) = evacuating();
    let to = target(&desk, agents);
    let host = desk.fleet.evacuation(FIRST).expect("known").migrations[0].record.target.to_string();
    desk.say(to, Said::TargetReady(M1));
    let generation = desk.fleet.migration(M1).expect("known").record.generation;
    desk.say(agents[0], Said::CommitRequest(M1, generation));
    desk.restart();
    desk.connect(&host, "b", &host, vec![moving("one", RunState::Running, 1)]);
    desk.connect("a1", "a", "boot-a1", vec![]);
    desk.pass(SECOND);
    assert_eq!(state(&desk), EvacuationState::Running);
    desk.connect("a2", "a", "boot-a2", vec![vm("new", RunState::Running)]);
    desk.pass(SECOND);
    assert!(remains(&desk).0[0].starts_with("VM new"), "{:?}", remains(&desk));
}

#[test]
fn a_host_that_the_inventory_lists_and_that_never_came_is_named() {
    let (mut desk, agents) = evacuating();
    let racks = [("a".into(), ["a1".into(), "a2".into(), "a3".into()].into())].into();
    let topology = Topology { racks, ..Topology::default() };
    let mut out = Vec::new();
    desk.fleet.import_inventory("x".to_owned(), topology, desk.now, &mut out);
    desk.take(out);
    end(&mut desk, agents);
    assert_eq!(remains(&desk), (vec![], vec!["a3".into()]));
}

#[test]
fn nothing_to_move_is_no_success_if_something_is_there() {
    let mut desk = Desk::new();
    let a1 = desk.connect("a1", "a", "boot-a1", vec![]);
    desk.connect("b1", "b", "boot-b1", vec![]);
    assert_eq!(desk.fleet.plan_evacuation(&request("a", "b")), Err(Refusal::NothingToMove));
    desk.report(a1, vec![vm("dumb", RunState::Unknown)]);
    let refused = desk.fleet.plan_evacuation(&request("a", "b")).expect_err("it may run");
    assert!(matches!(refused, Refusal::NotEmpty(_)), "{refused}");
    desk.handle(Event::Disconnected(a1));
    let refused = desk.fleet.plan_evacuation(&request("a", "b")).expect_err("who knows");
    let text = "no VM can be moved, and the sources are not known to be empty: the agent of a1 is not connected";
    assert_eq!(refused.to_string(), text);
}

#[test]
fn a_cancelled_evacuation_lifts_its_own_cordon_only() {
    let mut desk = Desk::new();
    desk.connect("a1", "a", "boot-a1", vec![vm("one", RunState::Running)]);
    desk.connect("a2", "a", "boot-a2", vec![]);
    desk.connect("b1", "b", "boot-b1", vec![]);
    desk.cordon("a2", true);
    let id = desk.evacuate("a", "b");
    assert_eq!(cordoned(&desk), ["a1", "a2"]);
    desk.restart();
    desk.connect("a1", "a", "boot-a1", vec![vm("one", RunState::Running)]);
    desk.cancel(id);
    assert_eq!(state(&desk), EvacuationState::Cancelled);
    assert_eq!(cordoned(&desk), ["a2"]);
}

#[test]
fn what_an_operator_cordons_again_is_the_operators() {
    let (mut desk, _) = evacuating();
    desk.cordon("a1", true);
    let log = desk.log.clone();
    desk.cordon("a1", true);
    assert_eq!(desk.log, log, "said again, it changes nothing");
    desk.cancel(FIRST);
    assert_eq!(cordoned(&desk), ["a1"]);
}

#[test]
fn a_cordon_is_handed_on_to_a_later_evacuation() {
    let (mut desk, [_, a2, ..]) = evacuating();
    desk.report(a2, vec![vm("two", RunState::Running)]);
    let second = desk.evacuate("a2", "b");
    desk.cancel(FIRST);
    assert_eq!(cordoned(&desk), ["a2"]);
    desk.cancel(second);
    assert_eq!(cordoned(&desk), [""; 0]);
}

#[test]
fn no_cordon_is_set_if_none_is_wanted() {
    let asked = EvacuationRequest { no_cordon: true, ..request("a", "b") };
    let (mut desk, agents) = evacuating_as(&asked);
    assert_eq!(cordoned(&desk), [""; 0]);
    desk.report(agents[1], vec![vm("new", RunState::Running)]);
    end(&mut desk, agents);
    assert_eq!(state(&desk), EvacuationState::Incomplete, "the sources are looked at all the same");
}

#[test]
fn vms_come_back_to_hosts_that_their_evacuation_has_cordoned() {
    let (mut desk, agents) = evacuating();
    let to = target(&desk, agents);
    end(&mut desk, agents);
    desk.report(agents[0], vec![]);
    desk.report(to, vec![moving("one", RunState::Running, 1)]);
    let back = RestoreRequest {
        request: "back".to_owned(),
        evacuation: FIRST,
        options: Default::default(),
    };
    let mut out = Vec::new();
    let (id, staying) =
        desk.fleet.restore_evacuation(&back, desk.now, &mut out).expect("it is possible");
    desk.take(out);
    assert_eq!((staying, cordoned(&desk)), (vec![], vec!["a2".to_owned()]));
    desk.complete(to, agents[0], 2);
    let view = desk.fleet.evacuation(id).expect("it is known");
    assert_eq!(view.state, EvacuationState::Done, "the hosts it leaves need not be empty");
}
