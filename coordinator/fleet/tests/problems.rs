//! What is not as it should be, and what of it is put right.

use crate::common::{Desk, ended, moving, vm};
use rackferry_fleet::{
    Connection, Event, MigrationId, Order, Outcome, Phase, Problem, ProblemCode, RunState, Said,
    Topology, VmReport,
};

const VERSION: &str = "0.1.0";

fn told(problems: &[Problem]) -> Vec<(ProblemCode, String)> {
    let about = |one: &Problem| match &one.vm {
        Some(vm) => format!("{vm} on {}", one.host),
        None => one.host.to_string(),
    };
    problems.iter().map(|one| (one.kind, about(one))).collect()
}

fn found(desk: &Desk) -> Vec<(ProblemCode, String)> {
    let problems = desk.fleet.problems(VERSION);
    assert!(problems.iter().all(|one| !one.cause.is_empty()));
    problems.iter().for_each(names_what_there_is);
    told(&problems)
}

fn repair(desk: &mut Desk) -> Vec<(ProblemCode, String)> {
    let mut out = Vec::new();
    let repaired = desk.fleet.repair(desk.now, &mut out);
    desk.take(out);
    told(&repaired)
}

/// A copy of a move that the fleet does not remember.
fn copy(name: &str, run_state: RunState) -> VmReport {
    moving(name, run_state, 77)
}

/// `web` runs on a1, and b1 lists a copy of it.
fn beside(copy: VmReport) -> Desk {
    let mut desk = Desk::new();
    desk.connect("a1", "a", "boot-a", vec![vm("web", RunState::Running)]);
    desk.connect("b1", "b", "boot-b", vec![copy]);
    desk.told();
    desk
}

const M1: MigrationId = MigrationId(1);

/// `web` of a1 on its way to b1, as far as the request to commit; with the connections of both.
fn committed() -> (Desk, Connection, Connection) {
    let mut desk = Desk::new();
    let a = desk.connect("a1", "a", "boot-a", vec![vm("web", RunState::Running)]);
    let b = desk.connect("b1", "b", "boot-b", vec![]);
    desk.evacuate("a", "b");
    desk.say(b, Said::TargetReady(M1));
    let generation = desk.fleet.migration(M1).expect("known").record.generation;
    desk.say(a, Said::CommitRequest(M1, generation));
    (desk, a, b)
}

/// The advice about the most urgent problem.
fn advice(desk: &Desk) -> String {
    desk.fleet.problems(VERSION)[0].fix.clone()
}

/// Every command that an advice may name.
const COMMANDS: [&str; 10] = [
    "rackferry-agent vm list",
    "rackferry-agent vm destroy",
    "rackferry-agent join",
    "rackferry doctor --repair",
    "rackferry inventory import FILE",
    "rackferry token create",
    "systemctl start rackferry-agent",
    "systemctl restart rackferry-agent",
    "systemctl restart rackferry-coordinator",
    "journalctl -u rackferry-agent",
];

/// An advice names a command or a file, and no command that is none.
fn names_what_there_is(one: &Problem) {
    let fix = &one.fix;
    let names_one = COMMANDS.iter().any(|command| fix.contains(command));
    assert!(names_one || one.kind == ProblemCode::QemuSilent && fix.contains("qemu.log"), "{fix}");
    for program in ["rackferry ", "rackferry-agent ", "systemctl ", "journalctl "] {
        for (at, _) in fix.match_indices(program) {
            let known = COMMANDS.iter().any(|command| fix[at..].starts_with(command));
            assert!(known, "{fix}");
        }
    }
}

#[test]
fn advice_names_commands_with_their_arguments() {
    let marked = beside(copy("web", RunState::Dead));
    assert!(advice(&marked).ends_with("on b1: rackferry-agent vm destroy web --force"));
    let unmarked = beside(vm("web", RunState::Loaded));
    assert!(advice(&unmarked).ends_with("on b1: rackferry-agent vm destroy web"));
    let twice = beside(vm("web", RunState::Running));
    let fix = advice(&twice);
    assert!(fix.contains("on a1 and on b1: rackferry-agent vm list"), "{fix}");
    assert!(fix.contains("rackferry-agent vm destroy web"), "{fix}");

    let mut desk = Desk::new();
    let a = desk.connect("a1", "a", "boot-a", vec![vm("web", RunState::Running)]);
    desk.connect("b1", "b", "boot-b", vec![]);
    desk.handle(Event::Disconnected(a));
    assert!(advice(&desk).starts_with("on a1: systemctl start rackferry-agent"));
}

#[test]
fn a_clean_fleet_has_no_problems() {
    let mut desk = Desk::new();
    desk.connect("a1", "a", "boot-a", vec![vm("web", RunState::Running)]);
    let b = desk.connect("b1", "b", "boot-b", vec![]);
    assert_eq!(found(&desk), []);
    desk.evacuate("a", "b");
    desk.report(b, vec![moving("web", RunState::Incoming, 1)]);
    assert_eq!(found(&desk), [], "a copy of a move that goes on is none");
    assert_eq!(repair(&mut desk), []);
}

#[test]
fn leftovers_of_a_vm_that_runs_elsewhere_are_removed() {
    for state in [RunState::Incoming, RunState::Loaded, RunState::MovedOut] {
        let mut desk = beside(copy("web", state));
        assert_eq!(found(&desk), [(ProblemCode::Leftover, "web on b1".to_owned())]);
        assert!(desk.fleet.problems(VERSION)[0].repairable);
        assert_eq!(repair(&mut desk).len(), 1);
        let orders: Vec<Order> = desk.told().into_iter().map(|(_, order)| order).collect();
        let id = MigrationId(77);
        let right = match (&orders[..], state) {
            ([Order::ReleaseSource { migration, resume: false, .. }], RunState::MovedOut) => {
                *migration == id
            }
            ([Order::DiscardTarget(migration, _)], _) => *migration == id,
            _ => false,
        };
        assert!(right, "{state:?}: {orders:?}");
    }
}

#[test]
fn what_could_be_the_only_copy_is_left_alone() {
    let only = |state| {
        let mut desk = Desk::new();
        desk.connect("b1", "b", "boot-b", vec![copy("web", state)]);
        desk.told();
        desk
    };
    for state in [RunState::Incoming, RunState::Loaded, RunState::MovedOut] {
        let mut desk = only(state);
        assert_eq!(found(&desk), [(ProblemCode::Leftover, "web on b1".to_owned())]);
        assert!(!desk.fleet.problems(VERSION)[0].repairable);
        assert_eq!((repair(&mut desk), desk.told_of_moves()), (vec![], vec![]));
    }
}

#[test]
fn the_owner_itself_must_say_that_it_has_the_vm() {
    for state in [RunState::Dead, RunState::Unknown, RunState::MovedOut] {
        let mut desk = beside(copy("web", RunState::Loaded));
        let a = desk.connect("a1", "a", "boot-a2", vec![vm("web", state)]);
        desk.told();
        assert_eq!((repair(&mut desk), desk.told_of_moves()), (vec![], vec![]), "{state:?}");
        desk.handle(Event::Disconnected(a));
        assert_eq!((repair(&mut desk), desk.told_of_moves()), (vec![], vec![]), "{state:?}");
    }
}

#[test]
fn a_copy_without_a_number_cannot_be_named_in_an_order() {
    let mut desk = beside(vm("web", RunState::Loaded));
    assert!(!desk.fleet.problems(VERSION)[0].repairable);
    assert_eq!((repair(&mut desk), desk.told_of_moves()), (vec![], vec![]));
}

#[test]
fn a_vm_that_runs_twice_is_the_first_thing_told() {
    let mut desk = Desk::new();
    desk.connect("a1", "a", "boot-a", vec![vm("web", RunState::Running)]);
    let b = desk.connect("b1", "b", "boot-b", vec![copy("db", RunState::Loaded)]);
    desk.report(b, vec![vm("web", RunState::Running), copy("db", RunState::Loaded)]);
    assert_eq!(
        found(&desk),
        [
            (ProblemCode::Astray, "web on b1".to_owned()),
            (ProblemCode::Leftover, "db on b1".to_owned()),
        ]
    );
    assert_eq!(repair(&mut desk), [], "neither of two running copies is stopped");
}

#[test]
fn an_owner_that_is_uncertain_and_a_vm_that_waits_are_told() {
    let (mut desk, a, b) = committed();
    desk.handle(Event::Disconnected(a));
    assert_eq!(desk.phase(1), Phase::OwnerUnknown);
    assert_eq!(found(&desk)[0], (ProblemCode::OwnerUncertain, "web on b1".to_owned()));
    let a = desk.connect("a1", "a", "boot-a", vec![moving("web", RunState::MovedOut, 1)]);
    desk.handle(Event::Disconnected(b));
    assert_eq!(desk.phase(1), Phase::PausedRecoverable);
    assert_eq!(found(&desk)[0], (ProblemCode::Halted, "web on b1".to_owned()));
    assert_eq!(repair(&mut desk), []);
    let _ = a;
}

#[test]
fn a_qemu_that_does_not_answer_is_told() {
    let mut desk = Desk::new();
    desk.connect("a1", "a", "boot-a", vec![vm("web", RunState::Unknown)]);
    assert_eq!(found(&desk), [(ProblemCode::QemuSilent, "web on a1".to_owned())]);
}

#[test]
fn hosts_that_are_not_as_they_should_be_are_told() {
    let mut desk = Desk::new();
    let a = desk.connect("a1", "a", "boot-a", vec![]);
    desk.connect("b1", "b", "boot-b", vec![]);
    desk.connect("c1", "c", "boot-c", vec![]);
    let rack =
        |name: &str, hosts: &[&str]| (name.into(), hosts.iter().map(|&host| host.into()).collect());
    let racks = [rack("a", &["a1", "a2"]), rack("b", &["c1"])].into_iter().collect();
    let mut out = Vec::new();
    let topology = Topology { racks, ..Topology::default() };
    desk.fleet.import_inventory("x".to_owned(), topology, desk.now, &mut out);
    desk.take(out);
    desk.handle(Event::Disconnected(a));
    assert_eq!(
        found(&desk),
        [
            (ProblemCode::AgentAway, "a1".to_owned()),
            (ProblemCode::HostMissing, "a2".to_owned()),
            (ProblemCode::HostUnlisted, "b1".to_owned()),
            (ProblemCode::HostElsewhere, "c1".to_owned()),
        ]
    );
    let newer = desk.fleet.problems("0.2.0");
    newer.iter().for_each(names_what_there_is);
    let newer = told(&newer);
    assert!(newer.contains(&(ProblemCode::AgentVersion, "b1".to_owned())), "{newer:?}");
    assert!(
        !newer.contains(&(ProblemCode::AgentVersion, "a1".to_owned())),
        "an agent that is away is not asked"
    );
}

#[test]
fn repairing_takes_no_old_list_for_news() {
    let (mut desk, a, b) = committed();
    desk.say(a, Said::SourceStopped(M1));
    desk.say(b, Said::TargetRunning(M1));
    // Both lists are from before the move: a1 still lists the VM, b1 does not.
    let before = desk.log.clone();
    assert_eq!(repair(&mut desk), []);
    assert_eq!(desk.log, before);
    assert_eq!(desk.vm("web").owner.as_str(), "b1");
}

/// The migration ended while its source was cut off; the source comes back and says that it runs, too.
#[test]
fn a_source_that_runs_after_its_vm_has_settled_is_astray_until_it_does_not() {
    let (mut desk, a, b) = committed();
    desk.handle(Event::Disconnected(a));
    desk.say(b, Said::TargetRunning(M1));
    desk.report(b, vec![vm("web", RunState::Running)]);
    assert_eq!(desk.phase(1), Phase::Done);

    let marked = moving("web", RunState::Running, 1);
    let a = desk.connect("a1", "a", "boot-a", vec![marked.clone()]);
    let astray = [(ProblemCode::Astray, "web on a1".to_owned())];
    assert_eq!(found(&desk), astray);
    desk.report(a, vec![marked]);
    assert_eq!(found(&desk), astray, "it still runs");
    assert!(advice(&desk).contains("rackferry-agent vm destroy web"), "{}", advice(&desk));
    desk.report(a, vec![]);
    assert_eq!(found(&desk), []);
}

/// Its session says only after the end that it undid the switchover.
#[test]
fn a_source_that_runs_after_all_is_astray() {
    let (mut desk, a, b) = committed();
    desk.say(b, Said::TargetRunning(M1));
    desk.report(b, vec![vm("web", RunState::Running)]);
    desk.say(a, Said::Ended(M1, ended(Outcome::RolledBack)));
    let marked = moving("web", RunState::Running, 1);
    for _ in 0..2 {
        desk.report(a, vec![marked.clone()]);
        assert_eq!(found(&desk), [(ProblemCode::Astray, "web on a1".to_owned())]);
    }
}
