//! Events.

use rackferry_fleet::{Act, Caller, EventRecord};
use rackferry_proto::v1;

/// An event for clients.
pub fn event(event: &EventRecord) -> v1::Event {
    let EventRecord { id, act, outcome, reason, detail, first, last, count } = event.clone();
    let Act { by: Caller { name, role, from }, action, subject } = act;
    v1::Event {
        id: id.to_string(),
        first_unix_ms: first.unix_ms(),
        last_unix_ms: last.unix_ms(),
        count,
        name,
        role,
        address: from,
        action,
        subject,
        outcome: v1::EventOutcome::from(outcome).into(),
        reason,
        detail,
    }
}
