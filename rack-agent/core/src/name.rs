//! Numbers that must not be mixed up, and what the rules carry without looking at it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A migration: one attempt to move one VM. Never used again. Written down as the coordinator names it, `mig-7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct MigrationId(pub u64);

impl fmt::Display for MigrationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mig-{}", self.0)
    }
}

/// The text is no id of a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the id of a migration")]
pub struct NotAnId;

impl FromStr for MigrationId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let digits = text.strip_prefix("mig-").ok_or(NotAnId)?;
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NotAnId);
        }
        digits.parse().map(Self).map_err(|_| NotAnId)
    }
}

impl From<MigrationId> for String {
    fn from(id: MigrationId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for MigrationId {
    type Error = NotAnId;

    fn try_from(text: String) -> Result<Self, NotAnId> {
        text.parse()
    }
}

/// Nanoseconds since an epoch of the shell's choice, handed in: the rules have no clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    /// A moment this much later.
    #[must_use]
    pub fn after(self, pause: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// What the rules carry between coordinator, sessions and shell, and never look at.
pub trait Carried {
    /// How to make the QEMU of a VM that arrives.
    type Prepare: Clone + fmt::Debug + PartialEq;
    /// How to send a VM.
    type Start: Clone + fmt::Debug + PartialEq;
    /// How far a source session is.
    type Progress: Clone + fmt::Debug + PartialEq;
    /// Figures of a source session that is over.
    type Figures: Clone + fmt::Debug + PartialEq;
    /// What a check has found.
    type Findings: Clone + fmt::Debug + PartialEq;
}
