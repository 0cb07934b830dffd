//! What is gone, and what that proves: copies that may have run, hosts that are declared dead, clones of hosts.

use crate::common::{Desk, SECOND, moving, vm};
use rackferry_fleet::{
    BootId, Condition, Connection, Effect, Event, Fleet, Generation, Hello, Installation, Limits,
    MigrationId, Moment, Order, Phase, ProblemCode, Refusal, RunState, Said, Standing, VmReport,
};

const M1: MigrationId = MigrationId(1);

/// A VM that moves; its source was told to start.
fn started() -> (Desk, Connection, Connection) {
    started_in(Desk::new())
}

fn started_in(mut desk: Desk) -> (Desk, Connection, Connection) {
    let a = desk.connect("a1", "a", "boot-a", vec![vm("web", RunState::Running)]);
    let b = desk.connect("b1", "b", "boot-b", vec![]);
    desk.evacuate("a", "b");
    desk.say(b, Said::TargetReady(M1));
    (desk, a, b)
}

/// The same, committed and loaded at its target.
fn committed() -> (Desk, Connection, Connection, Generation) {
    let (mut desk, a, b) = started();
    let generation = desk.fleet.migration(M1).expect("known").record.generation;
    desk.say(a, Said::CommitRequest(M1, generation));
    desk.report(b, vec![moving("web", RunState::Loaded, 1)]);
    desk.told();
    (desk, a, b, generation)
}

/// The same, its source stopped; its target may have been told to run by the source.
fn stopped() -> (Desk, Connection, Connection) {
    let (mut desk, a, b, _) = committed();
    desk.handle(Event::Disconnected(b));
    desk.say(a, Said::SourceStopped(M1));
    desk.told();
    (desk, a, b)
}

fn died(may_have_run: bool) -> Vec<VmReport> {
    vec![VmReport { may_have_run, ..moving("web", RunState::Dead, 1) }]
}

fn orders(desk: &mut Desk) -> Vec<Order> {
    desk.told_of_moves().into_iter().map(|(_, order)| order).collect()
}

fn runs_the_source(order: &Order) -> bool {
    matches!(order, Order::ReleaseSource { resume: true, .. })
}

fn asked(
    desk: &mut Desk,
    ask: impl FnOnce(&mut Fleet, Moment, &mut Vec<Effect>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let (now, mut out) = (desk.now, Vec::new());
    let answer = ask(&mut desk.fleet, now, &mut out);
    desk.take(out);
    answer
}

fn declare_dead(desk: &mut Desk, host: &str) -> Result<(), Refusal> {
    asked(desk, |fleet, now, out| fleet.declare_dead(&host.into(), None, now, out))
}

fn forget_vm(desk: &mut Desk, vm: &str) -> Result<(), Refusal> {
    asked(desk, |fleet, now, out| fleet.forget_vm(&vm.into(), now, out))
}

fn forget_host(desk: &mut Desk, host: &str) -> Result<(), Refusal> {
    asked(desk, |fleet, now, out| fleet.forget_host(&host.into(), now, out))
}

fn problems(desk: &Desk) -> Vec<(ProblemCode, String)> {
    let found = desk.fleet.problems("0.1.0");
    found.into_iter().map(|problem| (problem.kind, problem.host.to_string())).collect()
}

#[test]
fn a_copy_that_never_ran_gives_the_vm_back() {
    let (mut desk, ..) = stopped();
    desk.connect("b1", "b", "boot-b2", died(false));
    assert!(orders(&mut desk).iter().any(runs_the_source));
    assert_eq!(desk.vm("web").owner.as_str(), "a1");
}

/// The operator of the target's host ends the VM before a word was heard of that it ran there.
#[test]
fn a_copy_that_its_operator_ended_does_not_either() {
    let (mut desk, a, _) = stopped();
    let ended = VmReport { may_have_run: true, destroyed: true, ..vm("web", RunState::Dead) };
    let b = desk.connect("b1", "b", "boot-b", vec![ended.clone()]);
    assert_eq!(desk.phase(1), Phase::Failed);
    // Its host keeps the word until it is told to forget it.
    desk.report(b, vec![ended]);
    let told = orders(&mut desk);
    assert!(told.contains(&Order::ForgetVm("web".into())), "{told:?}");
    assert!(!told.iter().any(runs_the_source), "{told:?}");
    assert!(desk.fleet.vm(&"web".into()).is_none(), "it has ended");

    // The copy that stopped is older: a person removes it, or starts it.
    desk.report(b, vec![]);
    desk.report(a, vec![moving("web", RunState::MovedOut, 1)]);
    assert_eq!(orders(&mut desk), []);
    assert!(problems(&desk).contains(&(ProblemCode::Leftover, "a1".to_owned())));
}

/// It had been let run, and its end is told before it is known that it belongs there.
#[test]
fn a_copy_that_its_operator_ended_by_force_is_kept_first() {
    let (mut desk, _, _) = stopped();
    let ended = VmReport { destroyed: true, ..died(true).remove(0) };
    let b = desk.connect("b1", "b", "boot-b", vec![ended]);
    assert_eq!(desk.phase(1), Phase::Failed);
    let told = orders(&mut desk);
    assert!(matches!(told[..], [Order::KeepDead(M1, _)]), "{told:?}");
    desk.report(
        b,
        vec![VmReport { may_have_run: true, destroyed: true, ..vm("web", RunState::Dead) }],
    );
    assert!(orders(&mut desk).contains(&Order::ForgetVm("web".into())));
}

/// The host of the target loses its power after the VM ran there, before a word of that was heard.
#[test]
fn a_copy_that_may_have_run_does_not() {
    let (mut desk, a, _) = stopped();
    let b = desk.connect("b1", "b", "boot-b2", died(true));
    assert_eq!(desk.phase(1), Phase::Failed);
    let view = desk.vm("web");
    assert_eq!((view.owner.as_str(), view.standing), ("b1", Standing::Stable));
    let told = orders(&mut desk);
    assert!(matches!(told[..], [Order::KeepDead(M1, _)]), "it arrives no more: {told:?}");

    // The copy that stopped stays as it is: only a person can know that it is not too old.
    desk.report(a, vec![moving("web", RunState::MovedOut, 1)]);
    desk.report(b, vec![VmReport { may_have_run: true, ..vm("web", RunState::Dead) }]);
    assert_eq!(orders(&mut desk), []);
    assert!(problems(&desk).contains(&(ProblemCode::Leftover, "a1".to_owned())));

    // Started again from its disks, the old memory is of no use.
    desk.report(b, vec![vm("web", RunState::Running)]);
    desk.report(a, vec![moving("web", RunState::MovedOut, 1)]);
    let told = orders(&mut desk);
    assert!(
        matches!(told[..], [Order::ReleaseSource { migration: M1, resume: false, .. }]),
        "{told:?}"
    );
}

/// The source has stopped for good, the target is away; no move is remembered longer than it must be.
fn passed_on_to_a_silent_target() -> (Desk, Connection) {
    let limits = Limits { history: 0, attempts: 1, ..Limits::default() };
    let (mut desk, a, b) = started_in(Desk::with(limits));
    let generation = desk.fleet.migration(M1).expect("known").record.generation;
    desk.say(a, Said::CommitRequest(M1, generation));
    desk.say(a, Said::SourceStopped(M1));
    desk.handle(Event::Disconnected(b));
    (desk, a)
}

/// While the source is silent it is not known whether its stopped copy is the last trace of the VM's memory.
#[test]
fn a_lost_vm_is_not_forgotten_while_an_end_of_its_move_is_silent() {
    let (mut desk, a) = passed_on_to_a_silent_target();
    desk.handle(Event::Disconnected(a));
    desk.connect("b1", "b", "boot-b2", died(true));
    desk.pass(31 * SECOND);
    assert_eq!(desk.phase(1), Phase::Failed, "a loss is remembered as long as its VM");
    let (now, mut out) = (desk.now, Vec::new());
    let refused = desk.fleet.forget_vm(&"web".into(), now, &mut out);
    assert_eq!(refused, Err(Refusal::Disconnected("a1".into())));

    desk.connect("a1", "a", "boot-a2", vec![]);
    assert_eq!(desk.fleet.forget_vm(&"web".into(), now, &mut out), Ok(()));
    desk.connect("c1", "c", "boot-c", vec![vm("other", RunState::Running)]);
    desk.evacuate("c", "b");
    assert!(desk.fleet.migration(M1).is_none(), "like any other that has ended");
}

/// It has started again from its disks: the move that lost it is kept no longer than any other.
#[test]
fn a_loss_is_forgotten_once_its_vm_runs_again() {
    let (mut desk, _) = passed_on_to_a_silent_target();
    let b = desk.connect("b1", "b", "boot-b2", died(true));
    desk.connect("c1", "c", "boot-c", vec![vm("other", RunState::Running)]);
    desk.evacuate("c", "b");
    assert_eq!(desk.phase(1), Phase::Failed);
    desk.report(b, vec![vm("web", RunState::Running)]);
    desk.connect("d1", "d", "boot-d", vec![vm("more", RunState::Running)]);
    desk.evacuate("d", "b");
    assert!(desk.fleet.migration(M1).is_none());
}

/// Its host was away for so long that the move is no longer remembered.
#[test]
fn the_only_copy_goes_on_though_its_move_is_forgotten() {
    let limits = Limits { history: 0, attempts: 1, ..Limits::default() };
    let (mut desk, a, b) = started_in(Desk::with(limits));
    let generation = desk.fleet.migration(M1).expect("known").record.generation;
    desk.say(a, Said::CommitRequest(M1, generation));
    desk.say(a, Said::SourceStopped(M1));
    desk.handle(Event::Disconnected(a));
    desk.say(b, Said::TargetDiscarded(M1));
    desk.pass(31 * SECOND);
    desk.connect("c1", "c", "boot-c", vec![vm("other", RunState::Running)]);
    desk.evacuate("c", "b");
    assert!(desk.fleet.migration(M1).is_none());
    desk.told();
    desk.connect("a1", "a", "boot-a2", vec![moving("web", RunState::MovedOut, 1)]);
    assert!(orders(&mut desk).iter().any(runs_the_source));

    // And one that died there may be started again.
    desk.connect("a1", "a", "boot-a3", died(true));
    let told = orders(&mut desk);
    assert!(matches!(told[..], [Order::KeepDead(M1, _)]), "{told:?}");
}

#[test]
fn before_the_commit_the_source_owns_whatever_died() {
    let (mut desk, ..) = started();
    desk.connect("b1", "b", "boot-b2", died(true));
    desk.connect("a1", "a", "boot-a2", vec![moving("web", RunState::Running, 1)]);
    assert_eq!(desk.phase(1), Phase::RolledBack);
    assert_eq!(desk.vm("web").owner.as_str(), "a1");
}

/// Its agent died, its QEMU did not read `SHUT` and ran on, and then its host lost its power.
#[test]
fn a_source_that_may_have_run_on_before_it_died_is_a_persons_to_judge() {
    let (mut desk, _, b, generation) = committed();
    let a = desk.connect("a1", "a", "boot-a2", died(true));
    desk.report(b, vec![moving("web", RunState::Loaded, 1)]);
    assert_eq!((orders(&mut desk), desk.phase(1)), (vec![], Phase::OwnerUnknown));
    let problem = desk.fleet.problems("0.1.0").remove(0);
    assert_eq!(problem.kind, ProblemCode::OwnerUncertain);
    assert!(problem.fix.contains("vm destroy --force web on a1"), "{problem:?}");
    // The person removes what is left.
    desk.report(a, vec![]);
    assert_eq!(orders(&mut desk), [Order::ResumeTarget(M1, generation)]);
}

#[test]
fn a_host_with_an_agent_is_not_dead() {
    let (mut desk, ..) = stopped();
    assert_eq!(declare_dead(&mut desk, "a1"), Err(Refusal::Connected("a1".into())));
    assert_eq!(declare_dead(&mut desk, "c1"), Err(Refusal::UnknownHost("c1".into())));
}

#[test]
fn what_arrived_at_a_dead_host_is_lost() {
    let (mut desk, ..) = stopped();
    assert_eq!(declare_dead(&mut desk, "b1"), Ok(()));
    assert_eq!(desk.phase(1), Phase::Failed);
    assert!(!orders(&mut desk).iter().any(runs_the_source));
    assert_eq!(declare_dead(&mut desk, "b1"), Ok(()), "said again");
    assert!(!problems(&desk).contains(&(ProblemCode::AgentAway, "b1".to_owned())));
}

/// Its first leader writes it down and is gone before it acts.
#[test]
fn a_new_leader_knows_that_a_host_is_dead() {
    let (mut desk, ..) = stopped();
    let before = desk.log.clone();
    declare_dead(&mut desk, "b1").unwrap();
    let host = rackferry_fleet::Key::Host("b1".into());
    let dead = desk.log[&host].clone();
    desk.log = before;
    desk.log.insert(host, dead);
    desk.restart();
    desk.connect("a1", "a", "boot-a", vec![moving("web", RunState::MovedOut, 1)]);
    desk.pass(SECOND);
    assert_eq!(desk.phase(1), Phase::Failed);
    assert!(!orders(&mut desk).iter().any(runs_the_source));
}

#[test]
fn a_committed_vm_goes_on_without_its_dead_source() {
    let (mut desk, a, ..) = committed();
    desk.handle(Event::Disconnected(a));
    desk.told();
    declare_dead(&mut desk, "a1").unwrap();
    let told = orders(&mut desk);
    assert!(matches!(told[..], [Order::ResumeTarget(M1, _)]), "{told:?}");
}

#[test]
fn queued_moves_of_a_dead_host_end_and_its_evacuation_too() {
    let mut desk = Desk::new();
    let vms = ["v1", "v2", "v3", "v4"].map(|name| vm(name, RunState::Running));
    let a = desk.connect("a1", "a", "boot-a", vms.to_vec());
    desk.connect("b1", "b", "boot-b", vec![]);
    let evacuation = desk.evacuate("a", "b");
    desk.handle(Event::Disconnected(a));
    declare_dead(&mut desk, "a1").unwrap();
    desk.pass(SECOND);
    let view = desk.fleet.evacuation(evacuation).expect("known");
    assert!(view.record.ended.is_some(), "{:?}", view.totals);
}

fn hello(host: &str, installation: Option<&str>) -> Hello {
    Hello {
        host: host.into(),
        rack: "a".into(),
        page_addr: "a:1".to_owned(),
        memory_bytes: 1 << 30,
        agent_version: "0.1.0".to_owned(),
        boot: BootId::new("boot"),
        installation: installation.map(Installation::new),
        vms: vec![],
    }
}

/// What a leader does with a stream.
fn dials(desk: &mut Desk, hello: Hello, connection: u64) -> Result<(), Refusal> {
    desk.fleet.admit(&hello, desk.now)?;
    desk.handle(Event::Connected(Connection(connection), hello));
    Ok(())
}

#[test]
fn only_a_hosts_own_installation_speaks_for_it() {
    let mut desk = Desk::new();
    assert_eq!(dials(&mut desk, hello("a1", None), 101), Ok(()), "an agent of before");
    assert_eq!(dials(&mut desk, hello("a1", Some("one")), 102), Ok(()));
    let refused = Err(Refusal::Installation("a1".into()));
    assert_eq!(dials(&mut desk, hello("a1", Some("two")), 103), refused);
    assert_eq!(desk.fleet.connection_of(&"a1".into()), Some(Connection(102)), "it stays");
    assert!(problems(&desk).contains(&(ProblemCode::HostDuplicate, "a1".to_owned())));
    desk.restart();
    assert_eq!(dials(&mut desk, hello("a1", Some("two")), 104), refused);
    assert_eq!(dials(&mut desk, hello("a1", Some("one")), 105), Ok(()));
    desk.pass(61 * SECOND);
    assert!(!problems(&desk).contains(&(ProblemCode::HostDuplicate, "a1".to_owned())));
}

#[test]
fn the_place_of_a_dead_host_is_taken_by_a_new_installation_only() {
    let mut desk = Desk::new();
    dials(&mut desk, hello("a1", Some("one")), 101).unwrap();
    desk.handle(Event::Disconnected(Connection(101)));
    declare_dead(&mut desk, "a1").unwrap();
    let dead = Err(Refusal::DeclaredDead("a1".into()));
    assert_eq!(dials(&mut desk, hello("a1", Some("one")), 102), dead);
    assert_eq!(dials(&mut desk, hello("a1", None), 103), dead, "it may be the one");
    assert_eq!(dials(&mut desk, hello("a1", Some("two")), 104), Ok(()));
    let refused = Err(Refusal::Installation("a1".into()));
    assert_eq!(dials(&mut desk, hello("a1", Some("one")), 105), refused);
    // Said again, late, it is not the new one that is meant.
    desk.handle(Event::Disconnected(Connection(104)));
    let one = Installation::new("one");
    let again = |fleet: &mut Fleet, now, out: &mut Vec<Effect>| {
        fleet.declare_dead(&"a1".into(), Some(&one), now, out)
    };
    assert_eq!(asked(&mut desk, again), Ok(()));
    assert_eq!(dials(&mut desk, hello("a1", Some("two")), 106), Ok(()));
}

/// The new installation knows nothing of what the dead one had.
#[test]
fn what_a_new_installation_does_not_list_may_have_run() {
    let (mut desk, a, _) = stopped();
    desk.handle(Event::Disconnected(a));
    let mut waits = desk.log.clone();
    declare_dead(&mut desk, "b1").unwrap();
    let host = rackferry_fleet::Key::Host("b1".into());
    let rackferry_fleet::Record::Host(mut record) = desk.log[&host].clone() else { panic!() };
    assert!(record.lost_up_to >= desk.fleet.migration(M1).expect("known").record.generation);
    record.declared_dead = false;
    waits.insert(host, rackferry_fleet::Record::Host(record));
    desk.log = waits;
    desk.restart();
    desk.connect("b1", "b", "boot-b2", vec![]);
    assert_eq!(desk.phase(1), Phase::Failed);
    assert!(!orders(&mut desk).iter().any(runs_the_source));
}

#[test]
fn a_dead_vm_is_forgotten_and_one_that_may_run_is_not() {
    let mut desk = Desk::new();
    let a = desk.connect("a1", "a", "boot-a", vec![vm("web", RunState::Running)]);
    let refused = Err(Refusal::VmMayRun("web".into(), "a1".into()));
    assert_eq!(forget_vm(&mut desk, "web"), refused);
    desk.handle(Event::Disconnected(a));
    assert_eq!(forget_vm(&mut desk, "web"), Err(Refusal::Disconnected("a1".into())));
    desk.connect("a1", "a", "boot-a2", vec![vm("web", RunState::Dead)]);
    desk.told();
    assert_eq!(forget_vm(&mut desk, "web"), Ok(()));
    assert_eq!(orders(&mut desk), [Order::ForgetVm("web".into())]);
    assert!(desk.fleet.vm(&"web".into()).is_none());
    assert_eq!(forget_vm(&mut desk, "web"), Err(Refusal::UnknownVm("web".into())));
}

#[test]
fn a_dead_host_is_forgotten_when_it_owns_nothing() {
    let mut desk = Desk::new();
    let a = desk.connect("a1", "a", "boot-a", vec![vm("web", RunState::Running)]);
    assert!(matches!(forget_host(&mut desk, "a1"), Err(Refusal::HostInUse(..))));
    desk.handle(Event::Disconnected(a));
    declare_dead(&mut desk, "a1").unwrap();
    assert!(matches!(forget_host(&mut desk, "a1"), Err(Refusal::HostInUse(..))));
    assert_eq!(desk.vm("web").condition, Condition::Dead);
    forget_vm(&mut desk, "web").unwrap();
    assert_eq!(forget_host(&mut desk, "a1"), Ok(()));
    assert!(desk.fleet.hosts().is_empty());
    desk.restart();
    assert!(desk.fleet.hosts().is_empty());
    assert_eq!(dials(&mut desk, hello("a1", Some("one")), 109), Ok(()), "it comes as a new one");
}
