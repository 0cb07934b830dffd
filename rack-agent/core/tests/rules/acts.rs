//! What may be done to a VM, by what is written down and by what it does.

use rackferry_agent_core::adopt::{Adoption, Guest, Migration, Seen, adoption};
use rackferry_agent_core::{
    Act, Facts, Mark, MigrationId, Preparation, Remains, Role, Side, Standing, Step, VmState, What,
    Writing, preparation, remains, start,
};

const ID: MigrationId = MigrationId(7);
const STATES: [VmState; 7] = [
    VmState::Running,
    VmState::Paused,
    VmState::Incoming,
    VmState::Loaded,
    VmState::MovedOut,
    VmState::Dead,
    VmState::Unknown,
];

fn standing(role: Role, side: Side) -> Standing {
    let mark = Mark { migration: ID, generation: 4, side };
    Standing { role, mark: Some(mark), ..Standing::owned(3) }
}

fn vm(role: Role, side: Side, state: VmState) -> Facts {
    Facts { name: "a".to_owned(), standing: standing(role, side), state }
}

/// What is done in each state; `-` where it is refused.
fn verdicts(what: What, role: Role, side: Side) -> Vec<String> {
    let act = Act { migration: ID, what };
    let shown = |steps: Vec<Step>| {
        let one = |step| match step {
            Step::Cont => "cont",
            Step::Write(Writing::Marked(_)) => "mark",
            Step::Write(Writing::Unmarked) => "unmark",
            Step::Write(Writing::AboutToRun) => "about",
            Step::Write(Writing::Owned(_)) => "own",
            Step::Write(Writing::Destroyed) => "destroyed",
            Step::Announce => "announce",
            Step::Quit => "quit",
            Step::Kill => "kill",
        };
        steps.into_iter().map(one).collect::<Vec<_>>().join(" ")
    };
    let one = |state| act.verdict(&vm(role, side, state)).map_or("-".to_owned(), shown);
    STATES.map(one).to_vec()
}

#[test]
fn acts_by_state() {
    use Role::{Incoming, Run};
    use Side::{Source, Target};
    // Running, paused, incoming, loaded, moved out, dead, unknown.
    let leave = What::Leave { vm: "a".to_owned(), generation: 4 };
    let cases = [
        (leave.clone(), Run, Source, ["mark", "mark", "mark", "-", "-", "mark", "-"]),
        (leave, Incoming, Target, ["-"; 7]),
        (
            What::Stay,
            Run,
            Source,
            ["unmark", "unmark", "unmark", "unmark", "unmark", "unmark", "-"],
        ),
        (What::Own(4), Incoming, Target, ["own", "own", "own", "own", "own", "own", "-"]),
        (
            What::Resume(4),
            Incoming,
            Target,
            [
                "own announce",
                "about cont own announce",
                "-",
                "about cont own announce",
                "-",
                "-",
                "-",
            ],
        ),
        (What::KeepDead(4), Incoming, Target, ["-", "-", "-", "-", "-", "own", "-"]),
        (What::Discard, Incoming, Target, ["-", "kill", "kill", "kill", "kill", "kill", "-"]),
        (What::Release, Run, Source, ["-", "-", "-", "-", "quit", "quit", "-"]),
        (What::TakeBack(5), Run, Source, ["cont own", "cont own", "-", "-", "cont own", "-", "-"]),
    ];
    for (what, role, side, expected) in cases {
        assert_eq!(verdicts(what.clone(), role, side), expected, "{what:?} {role:?}");
    }
}

#[test]
fn an_act_concerns_its_own_migration_and_side_only() {
    let other = MigrationId(8);
    for (what, side) in [(What::Discard, Side::Target), (What::Release, Side::Source)] {
        let act = |migration| Act { migration, what: what.clone() };
        let wrong = if side == Side::Source { Side::Target } else { Side::Source };
        assert!(act(ID).concerns("a", &standing(Role::Run, side)));
        assert!(!act(ID).concerns("a", &standing(Role::Run, wrong)));
        assert!(!act(other).concerns("a", &standing(Role::Run, side)));
        let mine = vm(Role::Incoming, side, VmState::Dead);
        assert!(act(other).verdict(&mine).is_err());
    }
}

#[test]
fn preparing_by_what_is_there() {
    use Preparation::{Boot, Ready, Replace, Taken};
    assert_eq!(preparation(None, ID), Boot);
    let arriving = |state| preparation(Some(&vm(Role::Incoming, Side::Target, state)), ID);
    let expected = [Ready, Ready, Ready, Ready, Ready, Replace, Taken];
    assert_eq!(STATES.map(arriving), expected);
    let other = |state| preparation(Some(&vm(Role::Incoming, Side::Target, state)), MigrationId(8));
    assert_eq!(STATES.map(other), [Taken, Taken, Taken, Taken, Taken, Replace, Taken]);
    let lives = |state| preparation(Some(&vm(Role::Run, Side::Source, state)), ID);
    assert_eq!(STATES.map(lives), [Taken, Taken, Taken, Taken, Taken, Replace, Taken]);
}

/// It is the evidence that the VM may have run here: its source must not go on.
#[test]
fn a_copy_that_died_after_it_may_have_run_stays() {
    let mut copy = vm(Role::Incoming, Side::Target, VmState::Dead);
    assert!(!copy.standing.may_have_run(true));
    Writing::AboutToRun.apply(&mut copy.standing);
    assert!(copy.standing.may_have_run(true) && !Writing::AboutToRun.is_fact());
    // The agent that prepared it knows that it has not let it run yet.
    assert!(!copy.standing.may_have_run(false));
    assert_eq!(preparation(Some(&copy), ID), Preparation::Taken);
    // Once the log says that it belongs here its operator may start it again.
    assert_eq!(start(Some(&copy)), Preparation::Taken);
    let owned = Act { migration: ID, what: What::KeepDead(4) }.verdict(&copy).unwrap();
    assert_eq!(owned, [Step::Write(Writing::Owned(4))]);
    Writing::Owned(4).apply(&mut copy.standing);
    assert!(copy.standing.may_have_run(false) && !copy.standing.about_to_run);
    assert_eq!(start(Some(&copy)), Preparation::Replace);
    // Written late, it changes nothing.
    Writing::AboutToRun.apply(&mut copy.standing);
    assert_eq!(copy.standing, Standing::owned(4));
}

/// The coordinator may not know yet that it ran here: without a word it would take the copy for one that never ran, and
/// its source would go on with older memory.
#[test]
fn of_a_vm_that_came_and_that_its_operator_ends_a_word_stays() {
    use Remains::{Nothing, Word};
    let stays = |standing, state, force| {
        let facts = Facts { name: "a".to_owned(), standing, state };
        remains(&facts, standing.may_have_run(true), force)
    };
    let by_state = |standing| STATES.map(|state| stays(standing, state, false));
    // It came, or was taken back; it runs, is paused, or is dead.
    let came = [Word, Word, Nothing, Nothing, Word, Word, Word];
    assert_eq!(by_state(Standing::owned(4)), came);
    // It was started here and never moved.
    assert_eq!(by_state(Standing::owned(0)), [Nothing; 7]);
    // It arrives, and was let run, or not yet.
    let arrives = standing(Role::Incoming, Side::Target);
    assert_eq!(by_state(arrives), [Nothing; 7]);
    assert_eq!(by_state(Standing { about_to_run: true, ..arrives }), came);
    // Its target goes on once it is gone here.
    assert_eq!(by_state(standing(Role::Run, Side::Source)), [Nothing; 7]);

    let mut destroyed = Standing::owned(4);
    Writing::Destroyed.apply(&mut destroyed);
    Writing::Owned(5).apply(&mut destroyed);
    assert_eq!(destroyed, Standing { destroyed: true, ..Standing::owned(5) });
    assert_eq!(stays(destroyed, VmState::Dead, false), Word);
    assert_eq!(stays(destroyed, VmState::Dead, true), Nothing, "by force");
}

#[test]
fn a_mark_that_was_not_written_does_not_hold() {
    let mut at = standing(Role::Run, Side::Source);
    let mark = Mark { migration: MigrationId(8), generation: 9, side: Side::Source };
    assert!(!Writing::Marked(mark).is_fact());
    Writing::Marked(mark).apply(&mut at);
    assert_eq!((at.role, at.generation, at.mark), (Role::Run, 3, Some(mark)));
    assert!(Writing::Unmarked.is_fact() && Writing::Owned(9).is_fact());
    Writing::Unmarked.apply(&mut at);
    assert_eq!((at.role, at.generation, at.mark), (Role::Run, 3, None));
    let mut at = standing(Role::Incoming, Side::Target);
    Writing::Owned(4).apply(&mut at);
    assert_eq!((at.role, at.generation, at.mark), (Role::Run, 4, None));
}

#[test]
fn what_an_earlier_agent_left_is_classified_first() {
    use Migration::{Active, Completed, None as No};
    let run = standing(Role::Run, Side::Source);
    let incoming = standing(Role::Incoming, Side::Target);
    let owned = Adoption::Write(Writing::Owned(4));
    let cases = [
        (run, false, Guest::Running, No, Adoption::Adopt(VmState::Running)),
        (run, false, Guest::Running, Active, Adoption::Cancel),
        (run, false, Guest::FinishMigrate, Active, Adoption::Cancel),
        (run, false, Guest::FinishMigrate, Completed, Adoption::Adopt(VmState::MovedOut)),
        (run, false, Guest::PostMigrate, Completed, Adoption::Adopt(VmState::MovedOut)),
        (run, false, Guest::Prelaunch, No, Adoption::LetRun),
        (run, true, Guest::Prelaunch, No, Adoption::Adopt(VmState::Paused)),
        (run, true, Guest::Prelaunch, Active, Adoption::Cancel),
        (incoming, false, Guest::InMigrate, Active, Adoption::Adopt(VmState::Incoming)),
        (incoming, false, Guest::Stopped, Completed, Adoption::Adopt(VmState::Loaded)),
        (incoming, false, Guest::Prelaunch, No, Adoption::Adopt(VmState::Incoming)),
        (incoming, false, Guest::Running, Completed, owned),
    ];
    for (at, attached, guest, migration, expected) in cases {
        let seen = Seen { guest, migration };
        assert_eq!(adoption(&at, attached, seen), expected, "{:?} {seen:?}", at.role);
    }
}
