//! Events for people.

use rackferry_proto::v1::{Event, EventOutcome};
use time::OffsetDateTime;

use super::{table, word};

/// All of them, the latest last.
pub fn list(events: &[Event]) -> String {
    if events.is_empty() {
        return "No events.".to_owned();
    }
    let header = ["time", "who", "from", "action", "subject", "outcome"];
    table(&header, &[], events.iter().map(|event| cells(event).to_vec()))
}

/// One of them, as it comes.
pub fn line(event: &Event) -> String {
    cells(event).join("  ")
}

fn cells(event: &Event) -> [String; 6] {
    [
        utc(event.last_unix_ms),
        who(event),
        some(&event.address),
        event.action.clone(),
        some(&event.subject),
        outcome(event),
    ]
}

/// `2026-01-31T08:00:00Z`: what `--since` takes.
fn utc(unix_ms: u64) -> String {
    let seconds = i64::try_from(unix_ms / 1000).unwrap_or(i64::MAX);
    let Ok(at) = OffsetDateTime::from_unix_timestamp(seconds) else { return "-".to_owned() };
    let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
    let (hour, minute, second) = (at.hour(), at.minute(), at.second());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

fn who(event: &Event) -> String {
    match (event.role.as_str(), event.name.as_str()) {
        ("none", _) => "-".to_owned(),
        (role, "") => role.to_owned(),
        (role, name) => format!("{role} {name}"),
    }
}

/// A caller chose it: it has no line of its own, and no other sign that a terminal obeys.
fn plain(text: &str) -> String {
    let first = text.lines().next().unwrap_or_default();
    let more = if text.lines().nth(1).is_some() { " ..." } else { "" };
    first.chars().filter(|one| !one.is_control()).collect::<String>() + more
}

fn some(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { plain(text) }
}

fn outcome(event: &Event) -> String {
    let (word, detail) = (word::event(event.outcome()), plain(&event.detail));
    let mut text = match (event.outcome(), detail.as_str()) {
        (EventOutcome::Happened, detail) if !detail.is_empty() => detail.to_owned(),
        (EventOutcome::Refused, detail) => format!("{word}: {}: {detail}", event.reason),
        (_, "") => word,
        (_, detail) if detail.starts_with("as ") => format!("{word} {detail}"),
        (_, detail) => format!("{word}: {detail}"),
    };
    if event.count > 1 {
        text.push_str(&format!(" ({} times since {})", event.count, utc(event.first_unix_ms)));
    }
    text
}
