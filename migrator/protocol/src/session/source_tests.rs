use super::*;
use proptest::prelude::*;

fn drive(verify: bool, events: &[Event]) -> (Source, Vec<Effect>) {
    let (mut source, mut out) = (Source::new(verify), Vec::new());
    events.iter().for_each(|e| source.handle(e.clone(), &mut out));
    (source, out)
}

fn granted() -> Event {
    Event::Decision { granted: true, reason: String::new() }
}

fn until_loaded() -> Vec<Event> {
    let ready = Event::Ready { predicted_ms: 20 };
    vec![
        Event::Accepted,
        ready,
        Event::SlotGranted,
        Event::VmStopped,
        Event::Loaded { digest: None },
    ]
}

fn then(events: &[Event]) -> Vec<Event> {
    until_loaded().into_iter().chain(events.iter().cloned()).collect()
}

#[test]
fn a_move_takes_the_steps_in_order() {
    let (source, out) = drive(false, &then(&[granted(), Event::Postmigrate, Event::Running]));
    assert_eq!(
        out,
        [
            Effect::StartMigrate,
            Effect::AskSlot { predicted_ms: 20 },
            Effect::OpenValve,
            Effect::AskCommit,
            Effect::ForwardShut,
            Effect::AttestStopped,
            Effect::SendGo,
            Effect::QuitQemu,
            Effect::Finish(Outcome::Moved),
        ]
    );
    assert_eq!(source.phase(), &Phase::Ended);
}

#[test]
fn different_memory_is_never_committed() {
    let ready = Event::Ready { predicted_ms: 1 };
    let mut events = vec![Event::Accepted, ready, Event::SlotGranted];
    events.extend([Event::Loaded { digest: Some([1; 32]) }, Event::Hashed([2; 32]), granted()]);
    let (source, out) = drive(true, &events);
    assert!(!out.contains(&Effect::AskCommit) && out.ends_with(&[Effect::FindUnsent]));
    assert_eq!(source.phase(), &Phase::Differing);
    events.push(Event::Recorded(Unsent::default()));
    let (source, out) = drive(true, &events);
    assert!(!out.contains(&Effect::AskCommit) && out.contains(&Effect::CloseStream));
    assert!(matches!(source.phase(), Phase::RollingBack { .. }));
}

#[test]
fn a_missing_digest_is_never_committed() {
    let (_, out) = drive(true, &until_loaded());
    assert!(!out.contains(&Effect::AskCommit) && out.contains(&Effect::CloseStream));
}

#[test]
fn a_lost_peer_rolls_back_until_shut_is_forwarded() {
    let lost = Event::PeerLost("reset".into());
    for n in 1..=until_loaded().len() {
        let mut events = until_loaded()[..n].to_vec();
        events.extend([lost.clone(), Event::Resumed]);
        let (_, out) = drive(false, &events);
        assert!(out.contains(&Effect::CloseStream), "after {n} events");
        assert!(
            matches!(out.last(), Some(Effect::Finish(Outcome::RolledBack(_)))),
            "after {n} events"
        );
    }
    let (_, out) = drive(false, &then(&[granted(), lost, Event::Postmigrate, Event::Resumed]));
    assert!(!out.contains(&Effect::CloseStream));
    assert!(out.contains(&Effect::AttestStopped));
    // The session is told of the lost peer once: no peer would answer Go.
    assert!(matches!(out.last(), Some(Effect::Finish(Outcome::Stopped(_)))));
}

#[test]
fn a_peer_lost_after_go_leaves_the_decision_to_the_log() {
    let lost = Event::PeerLost("reset".into());
    let (_, out) = drive(false, &then(&[granted(), Event::Postmigrate, lost]));
    assert!(matches!(out.last(), Some(Effect::Finish(Outcome::Stopped(_)))));
    assert!(!out.contains(&Effect::QuitQemu));
}

#[test]
fn an_overdue_decision_rolls_back_and_a_late_grant_changes_nothing() {
    let (_, out) = drive(false, &then(&[Event::DecisionOverdue, granted(), Event::Resumed]));
    assert!(!out.contains(&Effect::ForwardShut));
    assert!(matches!(out.last(), Some(Effect::Finish(Outcome::RolledBack(_)))));
}

#[test]
fn a_stopped_vm_that_is_not_loaded_in_time_goes_on_at_the_source() {
    let ready = Event::Ready { predicted_ms: 1 };
    let stopped = [Event::Accepted, ready, Event::SlotGranted, Event::VmStopped];
    let overdue = [&stopped[..], &[Event::LoadOverdue, Event::Resumed]].concat();
    let (_, out) = drive(false, &overdue);
    assert!(out.contains(&Effect::CloseStream));
    assert!(matches!(out.last(), Some(Effect::Finish(Outcome::RolledBack(_)))));
    let (_, out) = drive(false, &then(&[Event::LoadOverdue, granted()]));
    assert!(out.contains(&Effect::ForwardShut), "too late to matter once it is loaded");
}

#[test]
fn a_source_that_dies_after_the_target_has_loaded_is_carried_on() {
    let (_, out) = drive(false, &then(&[Event::QemuDied, granted(), Event::Running]));
    assert_eq!(out[4..], [Effect::AttestStopped, Effect::SendGo, Effect::Finish(Outcome::Moved)]);
    let (_, out) = drive(false, &[Event::Accepted, Event::QemuDied]);
    assert!(matches!(out.last(), Some(Effect::Finish(Outcome::VmLost(_)))));
}

#[test]
fn qemu_completing_by_itself_needs_no_slot() {
    let events = [Event::Accepted, Event::VmStopped, Event::Loaded { digest: None }];
    let (_, out) = drive(false, &events);
    assert_eq!(out, [Effect::StartMigrate, Effect::AskCommit]);
}

#[test]
fn a_slot_is_asked_for_until_it_is_there() {
    let ready = Event::Ready { predicted_ms: 1 };
    let asked = Effect::AskSlot { predicted_ms: 1 };
    let events = [Event::Accepted, ready.clone(), ready.clone(), Event::SlotGranted, ready];
    let (_, out) = drive(false, &events);
    assert_eq!(out, [Effect::StartMigrate, asked.clone(), asked, Effect::OpenValve]);
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::Accepted),
        Just(Event::Ready { predicted_ms: 1 }),
        Just(Event::SlotGranted),
        Just(Event::VmStopped),
        Just(Event::Loaded { digest: None }),
        Just(granted()),
        Just(Event::Decision { granted: false, reason: "no".into() }),
        Just(Event::LoadOverdue),
        Just(Event::DecisionOverdue),
        Just(Event::Postmigrate),
        Just(Event::QemuFailed("x".into())),
        Just(Event::QemuDied),
        Just(Event::Resumed),
        Just(Event::Running),
        Just(Event::PeerLost("x".into())),
        Just(Event::PeerAbort("x".into())),
        Just(Event::Cancel("x".into())),
        Just(Event::Loaded { digest: Some([1; 32]) }),
        Just(Event::Hashed([1; 32])),
        Just(Event::Hashed([2; 32])),
        Just(Event::Recorded(Unsent::default())),
    ]
}

proptest! {
    /// The heart of P1, for any order of events: Go only after a granted commit and a source that is stopped
    /// for good or dead; nothing that makes the source run again after SHUT; one end.
    #[test]
    fn no_order_of_events_lets_two_copies_run(
        events in prop::collection::vec(any_event(), 0..40),
        in_order in any::<bool>(),
        verify in any::<bool>(),
    ) {
        let mut all = if in_order { until_loaded() } else { Vec::new() };
        all.extend(events);
        let mut source = Source::new(verify);
        let (mut shut, mut attested, mut stopped, mut grants, mut ends) = (false, false, false, false, 0);
        for event in all {
            let was_committing = matches!(source.phase(), Phase::Committing { .. });
            grants |= was_committing && event == granted();
            stopped |= event == Event::QemuDied || (event == Event::Postmigrate && shut);
            let mut out = Vec::new();
            source.handle(event, &mut out);
            for effect in out {
                match effect {
                    Effect::ForwardShut => { prop_assert!(grants && !shut); shut = true; }
                    Effect::AttestStopped => { prop_assert!(grants && stopped); attested = true; }
                    Effect::SendGo => prop_assert!(attested),
                    Effect::CloseStream => prop_assert!(!shut),
                    Effect::QuitQemu => prop_assert!(attested),
                    Effect::Finish(_) => ends += 1,
                    _ => {}
                }
            }
        }
        prop_assert!(ends <= 1);
    }
}

#[test]
fn a_difference_tells_whose_loss_it_is() {
    let told = |unsent: Unsent| {
        let ready = Event::Ready { predicted_ms: 1 };
        let mut events = vec![Event::Accepted, ready, Event::SlotGranted];
        events.extend([Event::Loaded { digest: Some([1; 32]) }, Event::Hashed([2; 32])]);
        events.push(Event::Recorded(unsent));
        match drive(true, &events).0.phase() {
            Phase::RollingBack { reason } => reason.clone(),
            other => panic!("{other:?}"),
        }
    };
    assert!(told(Unsent::default()).ends_with("so a page changed on its way"));
    let mut unsent = Unsent::default();
    (0x64c..0x64f).for_each(|page| unsent.add(page, 2));
    let lost = told(unsent);
    assert!(lost.contains("QEMU never sent the last content of 3 pages"), "{lost}");
    assert!(lost.ends_with("(0x64c, 0x64d, ...)"), "{lost}");
}
