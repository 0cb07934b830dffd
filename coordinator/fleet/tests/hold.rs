//! Paused evacuations and cordoned hosts.

use crate::common::{Desk, request, vm};
use rackferry_fleet::{
    Connection, EvacuationId, EvacuationState, HostName, MigrationId, MigrationRequest,
    MoveOptions, Order, Phase, Refusal, RunState, Said, WaitCode,
};

/// Rack a with a host and three VMs, rack b with two hosts.
fn site() -> (Desk, Connection, [Connection; 2]) {
    let mut desk = Desk::new();
    let vms = (0..3).map(|n| vm(&format!("vm{n}"), RunState::Running)).collect();
    let a = desk.connect("a1", "a", "a1", vms);
    let b = ["b1", "b2"].map(|host| desk.connect(host, "b", host, vec![]));
    desk.told();
    (desk, a, b)
}

fn pause(desk: &mut Desk, id: EvacuationId, paused: bool) -> Result<(), Refusal> {
    let mut out = Vec::new();
    let answer = desk.fleet.pause_evacuation(id, paused, desk.now, &mut out);
    desk.take(out);
    answer
}

fn cordon(desk: &mut Desk, place: &str, cordoned: bool) -> Result<Vec<HostName>, Refusal> {
    let mut out = Vec::new();
    let answer = desk.fleet.cordon(&[place.to_owned()], cordoned, desk.now, &mut out);
    desk.take(out);
    answer
}

fn state(desk: &Desk, id: EvacuationId) -> EvacuationState {
    desk.fleet.evacuation(id).expect("known").state
}

#[test]
fn a_paused_evacuation_starts_nothing_and_goes_on() {
    let (mut desk, a, _) = site();
    let id = desk.evacuate("a", "b");
    pause(&mut desk, id, true).expect("it runs");
    let before = desk.log.clone();
    pause(&mut desk, id, true).expect("it runs");
    assert_eq!(desk.log, before, "said again, it changes nothing");
    assert_eq!(state(&desk, id), EvacuationState::Paused);
    desk.told();
    desk.say(a, Said::Ended(MigrationId(1), crate::common::ended(rackferry_fleet::Outcome::Moved)));
    let queued = desk.fleet.migration(MigrationId(3)).expect("known");
    let wait = queued.wait.expect("it waits");
    assert_eq!((wait.code, wait.detail.as_str()), (WaitCode::EvacuationPaused, "evac-1"));
    let started = desk.told().iter().any(|(_, order)| matches!(order, Order::PrepareTarget { .. }));
    assert!(!started);

    desk.restart();
    assert_eq!(state(&desk, id), EvacuationState::Paused, "a restart resumes nothing");
    pause(&mut desk, id, false).expect("it runs");
    assert_eq!(state(&desk, id), EvacuationState::Running);
}

#[test]
fn what_is_paused_can_be_cancelled_and_what_is_over_cannot_be_paused() {
    let (mut desk, ..) = site();
    assert_eq!(
        pause(&mut desk, EvacuationId(7), true),
        Err(Refusal::UnknownEvacuation(EvacuationId(7)))
    );
    let id = desk.evacuate("a", "b");
    pause(&mut desk, id, true).expect("it runs");
    desk.cancel(id);
    assert_eq!(desk.phase(3), Phase::RolledBack);
    assert_eq!(state(&desk, id), EvacuationState::Cancelled);
    assert_eq!(pause(&mut desk, id, false), Err(Refusal::Ended(id)));
}

#[test]
fn a_cordoned_host_is_no_target() {
    let (mut desk, ..) = site();
    assert_eq!(cordon(&mut desk, "b1", true), Ok(vec!["b1".into()]));
    let before = desk.log.clone();
    assert_eq!(cordon(&mut desk, "b1", true), Ok(vec!["b1".into()]));
    assert_eq!(desk.log, before, "said again, it changes nothing");
    let plan = desk.fleet.plan_evacuation(&request("a", "b")).expect("b2 is there").moves;
    assert!(plan.iter().all(|step| step.target.as_str() == "b2"));

    let single = MigrationRequest {
        request: String::new(),
        vm: "vm0".into(),
        target: "b1".into(),
        options: MoveOptions::default(),
    };
    let refused = desk.fleet.create_migration(&single, desk.now, &mut Vec::new());
    assert_eq!(refused, Err(Refusal::Cordoned(vec!["b1".into()])));
    assert_eq!(cordon(&mut desk, "b", true), Ok(vec!["b1".into(), "b2".into()]));
    let refused = desk.fleet.plan_evacuation(&request("a", "b"));
    assert_eq!(refused, Err(Refusal::Cordoned(vec!["b1".into(), "b2".into()])));
    assert_eq!(cordon(&mut desk, "c", true), Err(Refusal::UnknownPlace("c".to_owned())));

    desk.connect("b1", "b", "b1", vec![]);
    assert!(desk.fleet.hosts().iter().any(|host| host.name.as_str() == "b1" && host.cordoned));
    cordon(&mut desk, "b", false).expect("it is known");
    assert!(desk.fleet.plan_evacuation(&request("a", "b")).is_ok());
}

#[test]
fn what_is_queued_for_a_cordoned_host_goes_elsewhere_or_waits() {
    let (mut desk, _, targets) = site();
    let id = desk.evacuate("a", "b");
    let queued = MigrationId(3);
    let target = desk.fleet.migration(queued).expect("known").record.target.clone();
    cordon(&mut desk, target.as_str(), true).expect("it is known");
    desk.say(targets[0], Said::TargetReady(MigrationId(1)));
    cordon(&mut desk, "b", true).expect("it is known");
    for id in [1, 2] {
        desk.report(Connection(1), vec![vm("vm2", RunState::Running)]);
        assert_ne!(desk.phase(id), Phase::Queued);
    }
    let wait = desk.fleet.migration(queued).expect("known").wait.expect("it waits");
    assert_eq!(wait.code, WaitCode::TargetCordoned);
    let other = if target.as_str() == "b1" { "b2" } else { "b1" };
    cordon(&mut desk, other, false).expect("it is known");
    assert_eq!(desk.fleet.migration(queued).expect("known").record.target.as_str(), other);
    assert_eq!(state(&desk, id), EvacuationState::Running);
}
