use std::time::Instant;

use serde::Deserialize;

use super::MigrationStatus;

/// One event of QEMU with its times.
#[derive(Clone, Debug)]
pub struct TimedEvent {
    /// When this process read it.
    pub received_at: Instant,
    /// When QEMU sent it: microseconds since the epoch by this host's wall clock.
    pub sent_at_us: u64,
    /// What happened.
    pub event: Event,
}

/// The events a migration needs; others are ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The migration changed its state (capability `events`).
    Migration(MigrationStatus),
    /// The VM stopped running.
    Stop,
    /// The VM runs again.
    Resume,
    /// The VM was shut down; QEMU usually exits after it.
    Shutdown {
        /// Its guest powered itself off: neither from outside, nor by a panic, nor as a reset.
        by_guest: bool,
    },
}

#[derive(Debug, Deserialize)]
pub(super) struct RawEvent {
    event: String,
    #[serde(default)]
    data: serde_json::Value,
    #[serde(default)]
    timestamp: RawTimestamp,
}

#[derive(Debug, Default, Deserialize)]
struct RawTimestamp {
    seconds: i64,
    microseconds: i64,
}

/// An event as the connection task sees it.
pub(super) enum Parsed {
    Event(TimedEvent),
    Pass(u64),
    Unknown(String),
}

impl RawEvent {
    pub(super) fn parse(self, received_at: Instant) -> Parsed {
        let text = |key: &str| self.data.get(key).and_then(|v| v.as_str()).unwrap_or_default();
        let event = match self.event.as_str() {
            "MIGRATION" => Event::Migration(MigrationStatus::from_name(text("status"))),
            "MIGRATION_PASS" => {
                return Parsed::Pass(self.data.get("pass").and_then(|v| v.as_u64()).unwrap_or(0));
            }
            "STOP" => Event::Stop,
            "RESUME" => Event::Resume,
            "SHUTDOWN" => Event::Shutdown { by_guest: text("reason") == "guest-shutdown" },
            _ => return Parsed::Unknown(self.event),
        };
        let RawTimestamp { seconds, microseconds } = self.timestamp;
        let sent_at_us = seconds.saturating_mul(1_000_000).saturating_add(microseconds);
        let sent_at_us = u64::try_from(sent_at_us).unwrap_or(0);
        Parsed::Event(TimedEvent { received_at, sent_at_us, event })
    }
}
