//! Moments, and what the rules carry without looking at it.

use std::fmt;
use std::time::Duration;

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
