//! The record of who did what: in the write of the act, bounded, and not to be filled by callers that may do nothing.

use crate::common::{Desk, SECOND, moving, request, vm};
use rackferry_fleet::{
    Act, Action, Caller, Change, Done, Effect, Event, EventId, EventOutcome, EventRecord, Fleet,
    Gate, Key, Leader, Limits, Outcome, Record, Refusal, Refused, RunState,
};

fn act(role: &str, name: &str, action: Action, subject: &str) -> Act {
    Act::new(Caller::new(role, name), action, subject)
}

fn evacuate(desk: &mut Desk) -> Result<(), Refusal> {
    let mut out = Vec::new();
    let act = act("operator", "anna", Action::Evacuate, "a to b");
    let done = desk.fleet.act(act, desk.now, &mut out, |fleet, now, out| {
        let id = fleet.create_evacuation(&request("a", "b"), now, out)?;
        Ok(Done::new((), format!("as {id}")))
    });
    let writes = out.iter().filter(|effect| matches!(effect, Effect::Persist(_)));
    assert!(writes.count() <= 1, "one act is one write");
    desk.take(out);
    done
}

fn refuse(desk: &mut Desk, role: &str, name: &str, subject: &str) {
    let mut out = Vec::new();
    let refused = Refused {
        act: act(role, name, Action::Cordon, subject),
        reason: "NOT_PERMITTED".to_owned(),
        detail: "no".to_owned(),
        count: 1,
    };
    desk.fleet.refused(vec![refused], 0, desk.now, &mut out);
    desk.take(out);
}

/// What is durable.
fn written(desk: &Desk) -> Vec<EventRecord> {
    let records = desk.log.values().filter_map(|record| match record {
        Record::Event(event) => Some((**event).clone()),
        _ => None,
    });
    records.collect()
}

fn lines(desk: &Desk) -> Vec<String> {
    let line = |event: EventRecord| {
        let Act { by, action, subject } = event.act;
        let Caller { role, name, .. } = by;
        format!("{role} {name}: {action} {subject}: {} {}", event.outcome, event.detail)
    };
    written(desk).into_iter().map(line).collect()
}

#[test]
fn an_act_and_its_event_are_one_write_and_its_end_is_an_event() {
    let mut desk = Desk::new();
    let a = desk.connect("a1", "a", "boot-a", vec![vm("web", RunState::Running)]);
    let b = desk.connect("b1", "b", "boot-b", vec![]);
    evacuate(&mut desk).unwrap();
    assert_eq!(lines(&desk), ["operator anna: evacuate a to b: accepted as evac-1"]);
    desk.complete(a, b, 1);
    desk.report(a, vec![]);
    desk.report(b, vec![vm("web", RunState::Running)]);
    desk.pass(SECOND);
    let ended = "coordinator : evacuation-ended evac-1: happened done: 1 of 1 VMs moved";
    assert_eq!(lines(&desk)[1..], [ended]);
    // The next leader knows both, and goes on behind them.
    desk.restart();
    evacuate(&mut desk).unwrap_err();
    let ids: Vec<EventId> =
        desk.fleet.published().events_before(None).map(|event| event.id).collect();
    assert_eq!(ids, [EventId(2), EventId(1)]);
}

#[test]
fn a_leader_writes_the_event_with_the_act_of_its_turn() {
    let mut desk = Desk::new();
    desk.connect("a1", "a", "boot-a", vec![]);
    let fleet = Fleet::new(Limits::default(), desk.log.values().cloned(), desk.now);
    let mut leader: Leader<()> = Leader::new(fleet, rackferry_fleet::Connection(0));
    let places = ["a".to_owned()];
    leader.ask(desk.now, |fleet, now, out| {
        let act = act("admin", "root", Action::Cordon, "a");
        let done = fleet.act(act, now, out, |fleet, now, out| {
            fleet.cordon(&places, true, now, out).map(|_| Done::new((), ""))
        });
        done.unwrap();
    });
    let Gate::Write(changes) = leader.decide(desk.now).gate else { panic!("no write") };
    let has = |wanted: fn(&Record) -> bool| {
        changes.iter().any(|change| matches!(change, Change::Put(record) if wanted(record)))
    };
    assert!(has(|record| matches!(record, Record::Host(host) if host.cordoned)));
    assert!(has(|record| matches!(record, Record::Event(_))));
}

#[test]
fn a_refused_act_leaves_no_event_of_its_own() {
    let mut desk = Desk::new();
    let refused = evacuate(&mut desk);
    assert_eq!(refused, Err(Refusal::UnknownPlace("a".to_owned())));
    assert_eq!(lines(&desk), [""; 0]);
    refuse(&mut desk, "operator", "anna", "a");
    assert_eq!(lines(&desk), ["operator anna: cordon a: refused no"]);
}

#[test]
fn a_lost_vm_and_another_installation_are_events() {
    let mut desk = Desk::new();
    let a = desk.connect("a1", "a", "boot-a", vec![vm("web", RunState::Running)]);
    let b = desk.connect("b1", "b", "boot-b", vec![]);
    desk.evacuate("a", "b");
    desk.say(b, rackferry_fleet::Said::TargetReady(rackferry_fleet::MigrationId(1)));
    desk.handle(Event::Disconnected(a));
    let mut out = Vec::new();
    desk.fleet.declare_dead(&"a1".into(), None, desk.now, &mut out).unwrap();
    desk.take(out);
    let lost = lines(&desk);
    assert!(
        lost[0].starts_with("coordinator : vm-lost VM web in mig-1: happened lost"),
        "{lost:?}"
    );
    desk.connect("a1", "a", "boot-new", vec![]);
    let admitted = lines(&desk);
    let admitted = admitted.iter().find(|line| line.contains("installation-admitted a1"));
    assert!(admitted.is_some(), "{:?}", lines(&desk));
}

#[test]
fn an_uncertain_owner_and_its_end_are_events() {
    let mut desk = Desk::new();
    let a = desk.connect("a1", "a", "boot-a", vec![vm("web", RunState::Running)]);
    let b = desk.connect("b1", "b", "boot-b", vec![]);
    desk.evacuate("a", "b");
    let id = rackferry_fleet::MigrationId(1);
    desk.say(b, rackferry_fleet::Said::TargetReady(id));
    // The target runs what was never committed, and so does the source.
    desk.report(b, vec![moving("web", RunState::Running, 1)]);
    let uncertain = lines(&desk);
    assert!(
        uncertain[0].starts_with("coordinator : owner-uncertain VM web in mig-1"),
        "{uncertain:?}"
    );
    desk.report(b, vec![]);
    desk.say(a, rackferry_fleet::Said::Ended(id, crate::common::ended(Outcome::RolledBack)));
    desk.report(a, vec![vm("web", RunState::Running)]);
    desk.pass(SECOND);
    let settled = lines(&desk);
    assert!(
        settled.iter().any(|line| line.contains("owner-settled VM web in mig-1")),
        "{settled:?}"
    );
}

#[test]
fn what_is_repeated_is_one_event() {
    let mut desk = Desk::new();
    for _ in 0..3 {
        refuse(&mut desk, "viewer", "eve", "a");
        refuse(&mut desk, "viewer", "eve", "b");
        desk.pass(SECOND);
    }
    let counts: Vec<_> = written(&desk)
        .into_iter()
        .map(|event| (event.id, event.act.subject, event.count))
        .collect();
    // The latest of each, as a number of its own: who follows them hears of each.
    assert_eq!(counts, [(EventId(5), "a".to_owned(), 3), (EventId(6), "b".to_owned(), 3)]);
    // After ten minutes it is another one.
    desk.pass(601 * SECOND);
    refuse(&mut desk, "viewer", "eve", "a");
    assert_eq!(written(&desk).len(), 3);
}

#[test]
fn a_flood_of_refusals_is_counted_and_hides_no_other() {
    let mut desk = Desk::new();
    let begun = desk.now;
    for n in 0..10_000 {
        refuse(&mut desk, "agent", "mallory", &format!("host-{n}"));
    }
    assert_eq!(written(&desk).len(), 60);
    refuse(&mut desk, "operator", "bob", "a");
    for _ in 0..30 {
        desk.pass(SECOND);
    }
    let events = written(&desk);
    assert!(
        events.iter().any(|event| event.act.by.name == "bob"),
        "another caller's is not hidden"
    );
    let told: u64 =
        events.iter().filter(|one| one.act.by.name == "mallory").map(|one| one.count).sum();
    let rest = events.iter().find(|event| event.act.action == "refusals").expect("the rest");
    assert_eq!(told, 68);
    assert!(rest.detail.starts_with("9932 further requests"), "{}", rest.detail);
    assert!(desk.now.since(begun) < 60 * SECOND && events.len() < 80, "{}", events.len());
}

#[test]
fn the_history_is_bounded_and_refusals_do_not_drive_acts_out() {
    let limits = Limits { events: 40, ..Limits::default() };
    let mut desk = Desk::with(limits);
    desk.connect("a1", "a", "boot-a", vec![]);
    for n in 0..100 {
        let mut out = Vec::new();
        let act = act("operator", "anna", Action::Cordon, &format!("a, {n}th time"));
        let places = ["a".to_owned()];
        let done = desk.fleet.act(act, desk.now, &mut out, |fleet, now, out| {
            fleet.cordon(&places, true, now, out).map(|_| Done::new((), ""))
        });
        done.unwrap();
        desk.take(out);
        refuse(&mut desk, "viewer", "eve", &format!("{n}"));
        desk.pass(SECOND);
    }
    let events = written(&desk);
    let refused = events.iter().filter(|one| one.outcome == EventOutcome::Refused).count();
    assert_eq!((events.len() - refused, refused), (30, 10));
    let oldest = events.iter().find(|one| one.outcome == EventOutcome::Accepted);
    assert_eq!(oldest.map(|one| &*one.act.subject), Some("a, 70th time"), "the latest stay");
}

#[test]
fn old_events_are_forgotten_but_for_the_last() {
    let limits = Limits { events_age_ns: 10 * SECOND, ..Limits::default() };
    let mut desk = Desk::with(limits);
    refuse(&mut desk, "viewer", "eve", "a");
    refuse(&mut desk, "viewer", "eve", "b");
    desk.pass(11 * SECOND);
    // Its number shall not be given again.
    assert_eq!(written(&desk).into_iter().map(|one| one.id).collect::<Vec<_>>(), [EventId(2)]);
    desk.restart();
    refuse(&mut desk, "viewer", "eve", "c");
    assert_eq!(written(&desk).last().map(|one| one.id), Some(EventId(3)));
}

#[test]
fn nothing_is_written_while_a_coordinator_cannot_read_it() {
    let mut desk = Desk::new();
    desk.connect("a1", "a", "boot-a", vec![]);
    desk.fleet.keep_events(false);
    refuse(&mut desk, "viewer", "eve", "a");
    desk.pass(SECOND);
    assert_eq!(lines(&desk), [""; 0]);
    assert!(desk.notices.iter().any(|one| one.text.contains("viewer eve: cordon a")));
    desk.fleet.keep_events(true);
    desk.pass(SECOND);
    assert_eq!(
        lines(&desk),
        ["coordinator : record-begins : happened from here on acts are recorded"]
    );
    // From then on it is, also if one is away and has not said what it reads.
    desk.fleet.keep_events(false);
    refuse(&mut desk, "viewer", "eve", "a");
    assert_eq!(lines(&desk).len(), 2);
}

#[test]
fn texts_of_callers_are_cut() {
    let mut desk = Desk::new();
    refuse(&mut desk, "viewer", "eve", &"\u{fc}".repeat(10_000));
    let event = written(&desk).remove(0);
    assert!(event.act.subject.len() <= 256 && event.act.subject.ends_with(" ..."));
}

#[test]
fn an_act_costs_the_same_whatever_is_remembered() {
    let mut desk = Desk::with(Limits { events: 100, ..Limits::default() });
    desk.connect("a1", "a", "boot-a", vec![]);
    for n in 0..300 {
        desk.pass(SECOND);
        let mut out = Vec::new();
        let act = act("operator", "anna", Action::Cordon, &n.to_string());
        let places = ["a".to_owned()];
        desk.fleet
            .act(act, desk.now, &mut out, |fleet, now, out| {
                fleet.cordon(&places, n % 2 == 0, now, out).map(|_| Done::new((), ""))
            })
            .unwrap();
        let changes = out.iter().find_map(|effect| match effect {
            Effect::Persist(changes) => Some(changes),
            _ => None,
        });
        let of_events = changes.unwrap().iter().filter(|change| {
            matches!(change, Change::Put(Record::Event(_)) | Change::Remove(Key::Event(_)))
        });
        assert!(of_events.count() <= 2, "one comes, and one goes");
        desk.take(out);
    }
    assert_eq!(written(&desk).len(), 75);
}
