//! One VM with every copy of it.

use crate::common::{Desk, SECOND, moving, vm};
use rackferry_fleet::{
    CopyRole, CopyView, Event, MigrationId, Moment, ProblemCode, RunState, Said, VmDetail,
};

const M1: MigrationId = MigrationId(1);

fn detail(desk: &Desk) -> VmDetail<'_> {
    desk.fleet.vm_detail(&"web".into(), "0.1.0").expect("known")
}

/// Host, role, state and generation of each copy.
fn copies(desk: &Desk) -> Vec<(String, CopyRole, Option<RunState>, Option<u64>)> {
    let one = |copy: CopyView| {
        let state = copy.listed.map(|vm| vm.run_state);
        (copy.host.to_string(), copy.role, state, copy.generation.map(|one| one.0))
    };
    detail(desk).copies.into_iter().map(one).collect()
}

#[test]
fn both_copies_of_a_vm_that_moves_are_shown() {
    let mut desk = Desk::new();
    assert!(desk.fleet.vm_detail(&"web".into(), "0.1.0").is_none());
    let a = desk.connect("a1", "a", "boot-a", vec![vm("web", RunState::Running)]);
    let b = desk.connect("b1", "b", "boot-b", vec![]);
    let first = desk.vm("web").generation.0;
    assert_eq!(detail(&desk).specs.registered.map(String::from).as_deref(), Some("name = 'web'"));
    let owner = |state| ("a1".to_owned(), CopyRole::Owner, state, Some(first));
    assert_eq!(copies(&desk), [owner(Some(RunState::Running))]);
    assert_eq!(detail(&desk).migration, None);

    desk.evacuate("a", "b");
    let next = detail(&desk).migration.expect("it moves").record.generation.0;
    desk.now = Moment(desk.now.0 + 5 * SECOND);
    desk.report(b, vec![moving("web", RunState::Incoming, 1)]);
    desk.say(b, Said::TargetReady(M1));
    let source = ("a1".to_owned(), CopyRole::Source, Some(RunState::Running), Some(first));
    let target = ("b1".to_owned(), CopyRole::Target, Some(RunState::Incoming), Some(next));
    assert_eq!(copies(&desk), [source, target]);
    assert_eq!(detail(&desk).copies[1].since, desk.now);
    assert!(detail(&desk).copies[0].since < desk.now, "as since the agent came");
    assert_eq!(detail(&desk).problems, []);

    // The state lasts, whatever else is reported; it has changed when another is.
    let arrived = desk.now;
    desk.now = Moment(desk.now.0 + 5 * SECOND);
    desk.report(b, vec![moving("web", RunState::Incoming, 1)]);
    assert_eq!(detail(&desk).copies[1].since, arrived);
    desk.report(b, vec![moving("web", RunState::Loaded, 1)]);
    assert_eq!(detail(&desk).copies[1].since, desk.now);

    // A silent agent is a problem of the VM.
    desk.handle(Event::Disconnected(a));
    let gone = detail(&desk);
    assert!(!gone.copies[0].connected && gone.copies[0].listed.is_none());
    assert_eq!(gone.copies[0].since, desk.now);
    assert!(gone.problems.iter().any(|problem| problem.kind == ProblemCode::AgentAway));
}

#[test]
fn a_copy_that_no_migration_takes_care_of_is_shown() {
    let mut desk = Desk::new();
    desk.connect("a1", "a", "boot-a", vec![vm("web", RunState::Running)]);
    desk.connect("b1", "b", "boot-b", vec![moving("web", RunState::Loaded, 9)]);
    let shown = copies(&desk);
    assert_eq!(shown[1], ("b1".to_owned(), CopyRole::Other, Some(RunState::Loaded), None));
    let problems = detail(&desk).problems;
    assert!(problems.iter().any(|one| one.host.as_str() == "b1"), "{problems:?}");
}
