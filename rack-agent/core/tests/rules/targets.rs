//! VMs that arrive: state x event -> what is done, and what is said.

use rackferry_agent_core::{
    Act, Effect, End, Event, HostName, Order, Outcome, Side, TargetCommand, TargetEnd, What, Word,
};

use crate::common::{Agent, GENERATION, ID, SESSION, Text};

fn prepare() -> Order<Text> {
    let (session, generation, source) = (SESSION, GENERATION, Some("a".into()));
    Order::PrepareTarget { migration: ID, session, generation, source, prepare: "spec" }
}

fn called_by(caller: Option<&str>, session: u64, generation: u64) -> Event<Text> {
    Event::Called { migration: ID, session, generation, caller: caller.map(HostName::new) }
}

fn called(generation: u64) -> Event<Text> {
    called_by(Some("a"), SESSION, generation)
}

fn act(what: What) -> Act {
    Act { migration: ID, what }
}

fn discard() -> Order<Text> {
    Order::DiscardTarget(ID, "over".to_owned())
}

fn ended(outcome: Outcome, why: &str) -> Word<Text> {
    Word::Ended(ID, End::of(Side::Target, outcome, why))
}

/// One that expects a source.
fn expecting() -> Agent {
    let mut agent = Agent::connected();
    assert_eq!(agent.obeys(prepare()), [Effect::Prepare(ID, "spec")]);
    assert_eq!(agent.takes(Event::Prepared(ID, Ok(()))), []);
    assert_eq!(agent.says(), [Word::TargetReady(ID)]);
    agent
}

/// One whose target session runs.
fn receiving() -> Agent {
    let mut agent = expecting();
    assert_eq!(agent.takes(called(GENERATION)), [Effect::Receive(ID, "spec")]);
    agent
}

#[test]
fn an_order_that_comes_twice_makes_one_qemu() {
    let mut agent = Agent::connected();
    assert_eq!(agent.obeys(prepare()), [Effect::Prepare(ID, "spec")]);
    assert_eq!(agent.obeys(prepare()), []);
    agent.takes(Event::Prepared(ID, Ok(())));
    assert_eq!(agent.says(), [Word::TargetReady(ID)]);
    assert_eq!(agent.obeys(prepare()), [Effect::Prepare(ID, "spec")], "its word may be lost");
}

#[test]
fn a_failure_is_said() {
    let mut agent = Agent::connected();
    agent.obeys(prepare());
    assert_eq!(agent.takes(Event::Prepared(ID, Err("full".to_owned()))), []);
    assert_eq!(agent.says(), [ended(Outcome::RolledBack, "full")]);
    assert_eq!(agent.takes(called(GENERATION)), [Effect::Refuse(ID)]);
}

#[test]
fn only_the_expected_source_is_received_and_once() {
    let mut agent = expecting();
    assert_eq!(agent.takes(called(GENERATION + 1)), [Effect::Refuse(ID)]);
    assert_eq!(agent.takes(called_by(Some("a"), 8, GENERATION)), [Effect::Refuse(ID)]);
    assert_eq!(agent.takes(called(GENERATION)), [Effect::Receive(ID, "spec")]);
    assert_eq!(agent.takes(called(GENERATION)), [Effect::Refuse(ID)]);
}

/// It knows migration, session and generation, and has a certificate of the site.
#[test]
fn another_host_is_not_received_in_the_place_of_the_source() {
    let mut agent = expecting();
    assert_eq!(agent.takes(called_by(Some("b"), SESSION, GENERATION)), [Effect::Refuse(ID)]);
    assert_eq!(agent.takes(called(GENERATION)), [Effect::Receive(ID, "spec")], "it still may");
}

#[test]
fn without_tls_or_with_an_older_coordinator_any_caller_may_be_the_source() {
    let mut agent = expecting();
    assert_eq!(agent.takes(called_by(None, SESSION, GENERATION)), [Effect::Receive(ID, "spec")]);
    let mut agent = Agent::connected();
    let (session, generation, source) = (SESSION, GENERATION, None);
    let order =
        Order::PrepareTarget { migration: ID, session, generation, source, prepare: "spec" };
    assert_eq!(agent.obeys(order), [Effect::Prepare(ID, "spec")]);
    agent.takes(Event::Prepared(ID, Ok(())));
    let event = called_by(Some("b"), SESSION, GENERATION);
    assert_eq!(agent.takes(event), [Effect::Receive(ID, "spec")]);
}

/// Its source will not call again: it would be expected for ever.
#[test]
fn what_is_received_is_not_expected_again() {
    let mut agent = receiving();
    assert_eq!(agent.obeys(prepare()), [Effect::Prepare(ID, "spec")]);
    agent.takes(Event::Prepared(ID, Ok(())));
    assert_eq!(agent.says(), [Word::TargetReady(ID)]);
    assert_eq!(agent.core.expected().count(), 0);
}

#[test]
fn a_session_is_told_and_what_it_does_not_take_is_done_without_it() {
    let mut agent = receiving();
    let (resume, off) = (TargetCommand::Resume(4), TargetCommand::Discard("over".to_owned()));
    let told = agent.obeys(Order::ResumeTarget(ID, 4));
    assert_eq!(told, [Effect::TellTarget(ID, resume.clone())]);
    assert_eq!(agent.obeys(discard()), [Effect::TellTarget(ID, off.clone())]);
    let alone = agent.takes(Event::Undelivered(ID, resume));
    assert_eq!(alone, [Effect::Act(act(What::Resume(4)))]);
    let alone = agent.takes(Event::Undelivered(ID, off));
    assert_eq!(alone, [Effect::Act(act(What::Discard))]);
}

#[test]
fn each_end_has_its_consequence() {
    let why = || "why".to_owned();
    let cases = [
        (TargetEnd::Running, Some(What::Own(GENERATION)), vec![]),
        (TargetEnd::Discard(why()), Some(What::Discard), vec![]),
        (TargetEnd::NotBegun, Some(What::Discard), vec![]),
        (TargetEnd::LeftLoaded, None, vec![]),
        (TargetEnd::Stuck(why()), None, vec![ended(Outcome::Stopped, "why")]),
    ];
    for (end, what, words) in cases {
        let mut agent = receiving();
        let effects: Vec<_> = what.into_iter().map(|what| Effect::Act(act(what))).collect();
        assert_eq!(agent.takes(Event::TargetOver(ID, end.clone())), effects, "{end:?}");
        assert_eq!(agent.says(), words, "{end:?}");
        assert_eq!(agent.takes(Event::TargetOver(ID, end)), [], "it is over once");
    }
}

#[test]
fn that_it_runs_is_said_when_it_is_written_down() {
    let mut agent = receiving();
    agent.takes(Event::TargetOver(ID, TargetEnd::Running));
    assert_eq!(agent.says(), []);
    agent.takes(Event::Acted(act(What::Own(GENERATION)), Ok(true)));
    assert_eq!(agent.says(), [Word::TargetRunning(ID, GENERATION)]);
}

#[test]
fn a_loaded_vm_runs_when_the_log_says_so() {
    let mut agent = Agent::connected();
    let resumed = act(What::Resume(4));
    assert_eq!(agent.obeys(Order::ResumeTarget(ID, 4)), [Effect::Act(resumed.clone())]);
    for (result, words) in [
        (Err("cont".to_owned()), vec![]),
        (Ok(false), vec![]),
        (Ok(true), vec![Word::TargetRunning(ID, 4)]),
    ] {
        agent.takes(Event::Acted(resumed.clone(), result));
        assert_eq!(agent.says(), words);
    }
}

#[test]
fn that_nothing_is_left_is_said_also_if_nothing_was_there() {
    for there in [true, false] {
        let mut agent = expecting();
        assert_eq!(agent.obeys(discard()), [Effect::Act(act(What::Discard))]);
        assert_eq!(agent.obeys(discard()), [], "the same is not begun twice");
        assert_eq!(agent.takes(called(GENERATION)), [Effect::Refuse(ID)]);
        agent.takes(Event::Acted(act(What::Discard), Ok(there)));
        assert_eq!(agent.says(), [Word::TargetDiscarded(ID)]);
    }
}

#[test]
fn what_could_not_be_removed_is_not_called_gone() {
    let mut agent = receiving();
    agent.takes(Event::TargetOver(ID, TargetEnd::Discard("why".to_owned())));
    agent.takes(Event::Acted(act(What::Discard), Err("it runs".to_owned())));
    assert_eq!(agent.says(), [ended(Outcome::RolledBack, "why")]);
}

/// The order to prepare came again while the copy was being removed.
#[test]
fn a_copy_that_is_gone_is_not_expected() {
    let mut agent = expecting();
    agent.obeys(discard());
    agent.obeys(prepare());
    agent.takes(Event::Prepared(ID, Ok(())));
    agent.takes(Event::Acted(act(What::Discard), Ok(true)));
    assert_eq!(agent.core.expected().count(), 0);
    assert_eq!(agent.says(), [Word::TargetReady(ID), Word::TargetDiscarded(ID)]);
}

/// Its QEMU is there a moment later: that nothing is left would not be true.
#[test]
fn what_is_being_prepared_is_removed_when_it_is_there() {
    for prepared in [Ok(()), Err("full".to_owned())] {
        let mut agent = Agent::connected();
        agent.obeys(prepare());
        assert_eq!(agent.obeys(discard()), []);
        assert_eq!(agent.says(), []);
        let failed = prepared.is_err();
        let then = agent.takes(Event::Prepared(ID, prepared));
        assert_eq!(then, [Effect::Act(act(What::Discard))]);
        let words = if failed { vec![ended(Outcome::RolledBack, "full")] } else { vec![] };
        assert_eq!(agent.says(), words);
        agent.takes(Event::Acted(act(What::Discard), Ok(true)));
        assert_eq!(agent.says(), [Word::TargetDiscarded(ID)]);
    }
}

/// The order to prepare came again, and its work goes on while the session's copy is discarded: it makes another.
#[test]
fn nothing_is_called_gone_while_a_repeated_order_is_at_work() {
    for late in [false, true] {
        let mut agent = receiving();
        let over = Event::TargetOver(ID, TargetEnd::Discard("why".to_owned()));
        let removed = || Event::Acted(act(What::Discard), Ok(true));
        if late {
            assert_eq!(agent.takes(over), [Effect::Act(act(What::Discard))]);
            agent.obeys(prepare());
            assert_eq!(agent.takes(removed()), []);
        } else {
            agent.obeys(prepare());
            assert_eq!(agent.takes(over), []);
        }
        assert_eq!(agent.says(), []);
        assert_eq!(agent.takes(Event::Prepared(ID, Ok(()))), [Effect::Act(act(What::Discard))]);
        agent.takes(removed());
        let words = [Word::TargetDiscarded(ID), ended(Outcome::RolledBack, "why")];
        assert_eq!(agent.says(), words);
        assert_eq!(agent.core.expected().count(), 0);
    }
}
