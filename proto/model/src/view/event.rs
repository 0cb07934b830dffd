//! Events as clients see them.

use serde::Serialize;

use super::Received;
use crate::EventOutcome;

/// An event: what was done or has happened, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Its id.
    pub id: String,
    /// When it was first.
    pub first_unix_ms: u64,
    /// When it was last.
    pub last_unix_ms: u64,
    /// How often it was.
    pub count: u64,
    /// The name in the caller's certificate.
    pub name: Option<String>,
    /// The caller's role.
    pub role: String,
    /// The caller's address.
    pub address: Option<String>,
    /// What was done.
    pub action: String,
    /// What it was done to.
    pub subject: Option<String>,
    /// What became of it.
    pub outcome: Received<EventOutcome>,
    /// The reason of a refusal.
    pub reason: Option<String>,
    /// For people.
    pub detail: Option<String>,
}
