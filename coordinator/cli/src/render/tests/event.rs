//! The record of who did what.

use insta::assert_snapshot;
use rackferry_proto::v1;

use crate::render::{event, json};

fn events() -> Vec<v1::Event> {
    let of = |id: u64, role: &str, name: &str, action: &str, subject: &str| v1::Event {
        id: format!("event-{id}"),
        first_unix_ms: 1_790_000_000_000 + id * 61_000,
        last_unix_ms: 1_790_000_000_000 + id * 61_000,
        count: 1,
        name: name.to_owned(),
        role: role.to_owned(),
        action: action.to_owned(),
        subject: subject.to_owned(),
        ..v1::Event::default()
    };
    let evacuated = v1::Event {
        address: "10.0.0.9".to_owned(),
        outcome: v1::EventOutcome::Accepted.into(),
        detail: "as evac-3".to_owned(),
        ..of(1, "operator", "anna", "evacuate", "r1 to r2, r3")
    };
    let ended = v1::Event {
        outcome: v1::EventOutcome::Happened.into(),
        detail: "incomplete: 40 of 41 VMs moved".to_owned(),
        ..of(2, "coordinator", "", "evacuation-ended", "evac-3")
    };
    let denied = v1::Event {
        address: "10.0.0.7".to_owned(),
        outcome: v1::EventOutcome::Refused.into(),
        reason: "NOT_PERMITTED".to_owned(),
        detail: "this is for operator, admin; the certificate is one of viewer eve".to_owned(),
        count: 17,
        last_unix_ms: 1_790_000_500_000,
        ..of(3, "viewer", "eve", "call", "InventoryService/CordonHosts")
    };
    let mistaken = v1::Event {
        outcome: v1::EventOutcome::Refused.into(),
        reason: "INVALID_INVENTORY".to_owned(),
        detail: "dc1.yaml:7: \u{1b}[31mno rack\ndc1.yaml:9: no host".to_owned(),
        ..of(9, "admin", "root", "inventory-import", "dc1.yaml")
    };
    let cordoned = v1::Event {
        outcome: v1::EventOutcome::Accepted.into(),
        ..of(10, "none", "", "cordon", "r1-h1")
    };
    vec![evacuated, ended, denied, mistaken, cordoned]
}

#[test]
fn the_record_of_who_did_what() {
    assert_snapshot!("events", event::list(&events()));
    assert_snapshot!("events_none", event::list(&[]));
    assert_snapshot!("event_line", event::line(&events()[2]));
    assert_snapshot!("json_events", json::events(&events()[..3]));
    assert_snapshot!("json_event", json::line(&json::event(&events()[0])));
}
