//! VMs that leave: state x event -> what is done, and what is said.

use rackferry_agent_core::{
    Act, Core, Effect, End, Event, Moment, Order, Outcome, Question, Side, SourceCommand,
    SourceWord, What, Word,
};
use rackferry_migrator_protocol::session::source;

use crate::common::{Agent, GENERATION, ID, Text};

fn start() -> Order<Text> {
    let (vm, rate) = ("a".to_owned(), Some(9));
    Order::StartSource { migration: ID, vm, generation: GENERATION, rate, start: "how" }
}

fn leave() -> Act {
    Act { migration: ID, what: What::Leave { vm: "a".to_owned(), generation: GENERATION } }
}

fn act(what: What) -> Act {
    Act { migration: ID, what }
}

/// One whose source session runs.
fn sending() -> Agent {
    let mut agent = Agent::connected();
    assert_eq!(agent.obeys(start()), [Effect::Act(leave())]);
    let begun = agent.takes(Event::Acted(leave(), Ok(true)));
    assert_eq!(begun, [Effect::Send(ID, Some(9), "how")]);
    agent
}

fn ended(outcome: Outcome, reason: &str, figures: Option<u32>) -> Word<Text> {
    let reason = reason.to_owned();
    Word::Ended(ID, End { side: Side::Source, outcome, reason, figures })
}

#[test]
fn an_order_that_comes_twice_begins_one_session() {
    let mut agent = Agent::connected();
    assert_eq!(agent.obeys(start()), [Effect::Act(leave())]);
    assert_eq!(agent.obeys(start()), []);
    agent.takes(Event::Acted(leave(), Ok(true)));
    assert_eq!(agent.obeys(start()), []);
    assert_eq!(agent.says(), []);
}

#[test]
fn before_the_welcome_no_move_begins() {
    let mut agent = Agent { core: Core::new(2), now: Moment(0) };
    agent.takes(Event::Dialling);
    agent.takes(Event::Connected);
    assert_eq!(agent.obeys(start()), []);
    let why = "this agent has not been welcomed by the coordinator yet";
    assert_eq!(agent.says(), [ended(Outcome::RolledBack, why, None)]);
    assert_eq!(agent.core.sources().count(), 0);
}

#[test]
fn a_vm_that_is_not_here_cannot_leave() {
    for (result, why) in [(Ok(false), "no VM a on this host"), (Err("disk".to_owned()), "disk")] {
        let mut agent = Agent::connected();
        agent.obeys(start());
        assert_eq!(agent.takes(Event::Acted(leave(), result)), []);
        assert_eq!(agent.says(), [ended(Outcome::RolledBack, why, None)]);
        assert_eq!(agent.obeys(start()), [Effect::Act(leave())], "another order tries again");
    }
}

#[test]
fn what_is_ordered_before_a_session_begins_is_kept_for_it() {
    let mut agent = Agent::connected();
    agent.obeys(start());
    assert_eq!(agent.obeys(Order::SetRate(ID, Some(5))), []);
    assert_eq!(agent.obeys(Order::ForceSwitchover(ID)), []);
    assert_eq!(agent.obeys(Order::Cancel(ID, "no".to_owned())), []);
    let begun = agent.takes(Event::Acted(leave(), Ok(true)));
    let expected = [
        Effect::Send(ID, Some(5), "how"),
        Effect::TellSource(ID, SourceCommand::Cancel("no".to_owned())),
        Effect::TellSource(ID, SourceCommand::ForceSwitchover),
    ];
    assert_eq!(begun, expected);
    assert_eq!(agent.obeys(Order::SetRate(ID, None)), [Effect::SetRate(ID, None)]);
}

#[test]
fn orders_for_no_session_are_of_no_interest() {
    let mut agent = Agent::connected();
    assert_eq!(agent.obeys(Order::SetRate(ID, Some(5))), []);
    assert_eq!(agent.obeys(Order::ForceSwitchover(ID)), []);
    assert_eq!(agent.obeys(Order::Cancel(ID, "no".to_owned())), []);
    assert_eq!(agent.obeys(Order::SwitchoverGrant(ID)), []);
    assert_eq!(agent.takes(Event::SourceSaid(ID, SourceWord::AskCommit)), []);
    assert_eq!(agent.takes(Event::SourceOver(ID, source::Outcome::Moved, Some(1))), []);
    assert_eq!(agent.says(), []);
}

#[test]
fn a_question_is_open_until_it_is_answered() {
    let slot = Question::Slot;
    let mut agent = sending();
    agent.takes(Event::SourceSaid(ID, SourceWord::AskSlot));
    assert_eq!(agent.says(), [Word::Asked(ID, slot)]);
    for event in [Event::Disconnected, Event::Dialling, Event::Connected] {
        agent.takes(event);
    }
    assert_eq!(agent.says(), [Word::Asked(ID, slot)], "asked again on a new stream");
    let granted = agent.obeys(Order::SwitchoverGrant(ID));
    assert_eq!(granted, [Effect::TellSource(ID, SourceCommand::SlotGranted)]);
    agent.takes(Event::SourceSaid(ID, SourceWord::AskCommit));
    let commit = Question::Commit { generation: GENERATION };
    assert_eq!(agent.says(), [Word::Asked(ID, commit)]);
    assert_eq!(agent.core.questions().get(&ID), Some(&commit));
    let (granted, reason) = (true, String::new());
    let told = agent.obeys(Order::CommitDecision { migration: ID, granted, reason });
    let decision = SourceCommand::Decision { granted: true, reason: String::new() };
    assert_eq!(told, [Effect::TellSource(ID, decision)]);
    assert!(agent.core.questions().is_empty());
}

#[test]
fn the_end_is_said_when_what_is_left_to_do_is_done() {
    let why = || "why".to_owned();
    let cases = [
        (source::Outcome::Moved, What::Release, Outcome::Moved, ""),
        (source::Outcome::RolledBack(why()), What::Stay, Outcome::RolledBack, "why"),
    ];
    for (said, what, outcome, reason) in cases {
        let mut agent = sending();
        agent.takes(Event::SourceSaid(ID, SourceWord::AskCommit));
        assert_eq!(agent.says().len(), 1);
        let over = agent.takes(Event::SourceOver(ID, said, Some(4)));
        assert_eq!(over, [Effect::Act(act(what.clone()))]);
        assert_eq!(agent.says(), []);
        assert_eq!(agent.takes(Event::Acted(act(what), Err("disk".to_owned()))), []);
        assert_eq!(agent.says(), [ended(outcome, reason, Some(4))]);
        assert_eq!(agent.core.sources().count(), 0);
        assert!(agent.core.questions().is_empty(), "nothing waits for the answer");
    }
}

#[test]
fn a_vm_that_stays_stopped_is_left_to_the_log() {
    // Nor is what is left of one that died: the VM may have no other trace.
    let mut agent = sending();
    let over = Event::SourceOver(ID, source::Outcome::VmLost("why".to_owned()), Some(4));
    assert_eq!(agent.takes(over), []);
    assert_eq!(agent.says(), [ended(Outcome::VmLost, "why", Some(4))]);
    let mut agent = sending();
    let over = Event::SourceOver(ID, source::Outcome::Stopped("why".to_owned()), Some(4));
    assert_eq!(agent.takes(over), []);
    assert_eq!(agent.says(), [ended(Outcome::Stopped, "why", Some(4))]);
    let release = |resume| Order::ReleaseSource { migration: ID, generation: 5, resume };
    assert_eq!(agent.obeys(release(true)), [Effect::Act(act(What::TakeBack(5)))]);
    assert_eq!(agent.obeys(release(true)), [], "the same is not begun twice");
    assert_eq!(agent.obeys(release(false)), [Effect::Act(act(What::Release))]);
}
