//! The stream to the coordinator: what is said, when, and what is done about what does not fit.

use std::time::Duration;

use rackferry_agent_core::{Core, Effect, Event, MigrationId, Moment, Order, Word};

use crate::common::{Agent, ID, Text};

/// A word that the coordinator waits for comes of this.
fn told(agent: &mut Agent, findings: u32) -> Vec<Effect<Text>> {
    agent.takes(Event::Checked(findings))
}

fn down() -> Agent {
    Agent { core: Core::new(2), now: Moment(0) }
}

#[test]
fn words_wait_for_a_stream() {
    let mut agent = down();
    told(&mut agent, 1);
    agent.takes(Event::Dialling);
    assert_eq!(agent.says(), []);
    agent.takes(Event::Connected);
    assert_eq!(agent.says(), [Word::Findings(1)]);
}

#[test]
fn a_lost_word_restarts_the_stream() {
    let mut agent = Agent::connected();
    assert_eq!(told(&mut agent, 1), []);
    assert_eq!(told(&mut agent, 2), []);
    assert_eq!(told(&mut agent, 3), [Effect::RestartStream]);
    assert_eq!(agent.says(), [], "the stream is over");
    assert_eq!(told(&mut agent, 4), [], "once");
}

#[test]
fn lost_progress_does_not() {
    let start = || Order::StartSource {
        migration: ID,
        vm: "a".to_owned(),
        generation: 1,
        rate: None,
        start: "how",
    };
    let mut agent = Agent::connected();
    agent.obeys(start());
    for round in 0..9 {
        let progress = rackferry_agent_core::SourceWord::Progress(round);
        assert_eq!(agent.takes(Event::SourceSaid(ID, progress)), []);
    }
    assert_eq!(agent.says(), [Word::Progress(ID, 0), Word::Progress(ID, 1)]);
}

#[test]
fn what_is_lost_without_a_stream_is_in_the_next_first_message() {
    let mut agent = down();
    for findings in 0..9 {
        assert_eq!(told(&mut agent, findings), []);
    }
    agent.takes(Event::Dialling);
    assert_eq!(agent.takes(Event::Connected), []);
}

#[test]
fn what_is_lost_after_the_first_message_was_made_is_not() {
    let mut agent = down();
    agent.takes(Event::Dialling);
    for findings in 0..3 {
        assert_eq!(told(&mut agent, findings), []);
    }
    assert_eq!(agent.takes(Event::Connected), [Effect::RestartStream]);
    agent.takes(Event::Dialling);
    assert_eq!(agent.takes(Event::Connected), []);
}

#[test]
fn a_report_is_made_now_and_then_and_soon_after_a_change() {
    let at = |ms| Moment(0).after(Duration::from_millis(ms));
    let mut agent = Agent::connected();
    assert_eq!(agent.core.deadline(), Some(at(2000)));
    agent.now = at(1000);
    agent.takes(Event::Changed);
    assert_eq!(agent.core.deadline(), Some(at(1050)));
    agent.now = at(1040);
    agent.takes(Event::Changed);
    assert_eq!(agent.takes(Event::Tick), [], "not yet");
    agent.now = at(1050);
    assert_eq!(agent.takes(Event::Tick), [Effect::Report]);
    assert_eq!(agent.takes(Event::Tick), [], "one at a time");
    agent.takes(Event::Changed);
    agent.takes(Event::Reported);
    assert_eq!(agent.core.deadline(), Some(at(1100)), "it may have been too late for the list");
    agent.takes(Event::Disconnected);
    assert_eq!(agent.core.deadline(), None);
}

/// A list says how everything was when it was made: a word that comes before it must not be newer.
#[test]
fn words_wait_while_a_report_is_made() {
    let mut agent = Agent::connected();
    agent.now = Moment(0).after(Duration::from_secs(2));
    assert_eq!(agent.takes(Event::Tick), [Effect::Report]);
    told(&mut agent, 1);
    assert!(!agent.core.has_word());
    assert_eq!(agent.says(), []);
    agent.takes(Event::Reported);
    assert_eq!(agent.says(), [Word::Findings(1)]);
}

#[test]
fn migrations_are_written_as_the_coordinator_names_them() {
    assert_eq!(ID.to_string().parse(), Ok(ID));
    for text in ["", "mig-", "mig-+1", "evac-1", "mig-1x", "mig-99999999999999999999"] {
        assert!(text.parse::<MigrationId>().is_err(), "{text}");
    }
}
