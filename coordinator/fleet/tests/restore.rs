//! VMs that an evacuation has moved go back to the hosts they came from.

use crate::common::{Desk, MIB, moving, request, vm};
use rackferry_fleet::{
    Connection, EvacuationId, EvacuationState, Event, MigrationId, MoveOptions, Order, Refusal,
    RestoreRequest, RunState, Said, StayingVm,
};

const FIRST: EvacuationId = EvacuationId(1);

/// Two VMs, each of its own host, that an evacuation has moved to one host of rack b.
fn moved() -> (Desk, [Connection; 3]) {
    let mut desk = Desk::new();
    let a1 = desk.connect("a1", "a", "boot-a1", vec![vm("one", RunState::Running)]);
    let a2 = desk.connect("a2", "a", "boot-a2", vec![vm("two", RunState::Running)]);
    let b1 = desk.connect("b1", "b", "boot-b1", vec![]);
    assert_eq!(desk.evacuate("a", "b"), FIRST);
    arrive(&mut desk, a1, b1, "one", 1, &[], &[]);
    arrive(&mut desk, a2, b1, "two", 2, &["one"], &[]);
    assert_eq!(desk.fleet.evacuation(FIRST).expect("known").state, EvacuationState::Done);
    desk.told();
    (desk, [a1, a2, b1])
}

/// A move from its order to its end; `there` are VMs the target has already. Its source keeps `left`.
fn arrive(
    desk: &mut Desk,
    from: Connection,
    to: Connection,
    name: &str,
    id: u64,
    there: &[&str],
    left: &[&str],
) {
    desk.complete(from, to, id);
    let list = |names: &[&str]| -> Vec<_> {
        names.iter().map(|name| vm(name, RunState::Running)).collect()
    };
    desk.report(from, list(left));
    let mut vms = list(there);
    vms.push(moving(name, RunState::Running, id));
    desk.report(to, vms);
}

fn wanted(id: &str) -> RestoreRequest {
    RestoreRequest { request: id.to_owned(), evacuation: FIRST, options: MoveOptions::default() }
}

fn restore(desk: &mut Desk, id: &str) -> Result<(EvacuationId, Vec<StayingVm>), Refusal> {
    let mut out = Vec::new();
    let result = desk.fleet.restore_evacuation(&wanted(id), desk.now, &mut out);
    desk.take(out);
    result
}

fn staying(vms: &[StayingVm]) -> Vec<String> {
    vms.iter().map(StayingVm::to_string).collect()
}

#[test]
fn each_vm_goes_home_once() {
    let (mut desk, [a1, a2, b1]) = moved();
    let (id, left) = restore(&mut desk, "back").expect("nothing is in the way");
    assert_eq!((id, left), (EvacuationId(2), vec![]));
    let view = desk.fleet.evacuation(id).expect("known");
    assert_eq!(view.record.restores, Some(FIRST));
    assert_eq!(
        (&view.record.sources[..], &view.record.targets[..]),
        (&["b1".to_owned()][..], &["a1".to_owned(), "a2".to_owned()][..])
    );
    let homes: Vec<_> = view
        .migrations
        .iter()
        .map(|one| (one.record.vm.as_str().to_owned(), one.record.target.as_str().to_owned()))
        .collect();
    assert_eq!(homes, [("one".into(), "a1".into()), ("two".into(), "a2".into())]);
    let told: Vec<_> = desk.told_of_moves();
    assert_eq!(told.len(), 2);
    assert!(told.iter().all(|(_, order)| matches!(order, Order::PrepareTarget { .. })));

    assert_eq!(restore(&mut desk, "back"), Ok((id, vec![])), "asked again it is the same");
    arrive(&mut desk, b1, a1, "one", 3, &[], &["two"]);
    arrive(&mut desk, b1, a2, "two", 4, &[], &[]);
    assert_eq!(desk.fleet.evacuation(id).expect("known").state, EvacuationState::Done);
    assert_eq!(desk.vm("one").owner.as_str(), "a1");
    let again = restore(&mut desk, "again").expect_err("they are home");
    assert_eq!(
        again.to_string(),
        "nothing can be brought back: VM one (it is back on a1); VM two (it is back on a2)"
    );
}

#[test]
fn those_who_cannot_go_back_are_named_and_the_others_go() {
    let (mut desk, [a1, ..]) = moved();
    desk.handle(Event::Disconnected(a1));
    let (id, left) = restore(&mut desk, "back").expect("one can go");
    assert_eq!(staying(&left), ["VM one (the agent of a1 is not connected)"]);
    assert_eq!(left[0].host.as_ref().map(|host| host.as_str()), Some("b1"));
    assert_eq!(desk.fleet.evacuation(id).expect("known").migrations.len(), 1);
    let (same, left) = restore(&mut desk, "back").expect("it is the same");
    assert_eq!((same, staying(&left).len()), (id, 1));
}

#[test]
fn a_vm_that_has_left_or_ended_stays_what_it_is() {
    let (mut desk, [_, _, b1]) = moved();
    let b2 = desk.connect("b2", "b", "boot-b2", vec![]);
    desk.report(b1, vec![]);
    desk.report(b2, vec![vm("two", RunState::Running)]);
    let refused = restore(&mut desk, "back").expect_err("no VM is left");
    assert_eq!(
        refused.to_string(),
        "nothing can be brought back: VM one (it is gone); VM two (it has left b1 for b2)"
    );
}

#[test]
fn a_home_without_room_or_cordoned_takes_nobody() {
    let (mut desk, [a1, ..]) = moved();
    desk.say(a1, Said::Report { memory_free_bytes: 99 * MIB, vms: vec![] });
    let mut out = Vec::new();
    desk.fleet.cordon(&["a2".to_owned()], true, desk.now, &mut out).expect("it is known");
    desk.take(out);
    let refused = restore(&mut desk, "back").expect_err("no VM can go");
    assert_eq!(
        refused.to_string(),
        "nothing can be brought back: VM one (it needs 100 MiB, a1 has 99 MiB left); VM two (a2 is cordoned)"
    );
}

#[test]
fn only_what_has_ended_is_restored() {
    let mut desk = Desk::new();
    desk.connect("a1", "a", "boot-a1", vec![vm("one", RunState::Running)]);
    let b1 = desk.connect("b1", "b", "boot-b1", vec![]);
    let id = desk.evacuate("a", "b");
    assert_eq!(restore(&mut desk, "back"), Err(Refusal::Running(id)));
    desk.cancel(id);
    desk.say(b1, Said::TargetDiscarded(MigrationId(1)));
    desk.pass(1);
    assert_eq!(restore(&mut desk, "back"), Err(Refusal::NothingToMove), "nothing was moved");
    let unknown = RestoreRequest { evacuation: EvacuationId(9), ..wanted("back") };
    assert_eq!(
        desk.fleet.plan_restore(unknown.evacuation),
        Err(Refusal::UnknownEvacuation(EvacuationId(9)))
    );
}

#[test]
fn a_request_id_of_something_else_is_refused() {
    let (mut desk, _) = moved();
    let mut out = Vec::new();
    desk.cordon("a", false);
    let mut other = request("b", "a");
    other.request = "back".to_owned();
    desk.fleet.create_evacuation(&other, desk.now, &mut out).expect("it is possible");
    desk.take(out);
    assert_eq!(restore(&mut desk, "back"), Err(Refusal::RequestReused("back".to_owned())));
}
