//! What an agent says to the coordinator.

use rackferry_migrator_protocol::session::source;

use crate::{Carried, MigrationId, Outcome, Side};

/// Something the coordinator is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Word<C: Carried> {
    /// The target waits for its source.
    TargetReady(MigrationId),
    /// The target runs the VM, with this generation.
    TargetRunning(MigrationId, u64),
    /// Nothing of this migration is left at the target.
    TargetDiscarded(MigrationId),
    /// A source session waits for an answer.
    Asked(MigrationId, Question),
    /// The source cannot run the VM any more; the target owns it with this generation.
    SourceStopped(MigrationId, u64),
    /// A source session goes on.
    Progress(MigrationId, C::Progress),
    /// A session is over, or did not begin.
    Ended(MigrationId, End<C>),
    /// A check has found this.
    Findings(C::Findings),
}

/// What a source session waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// A switchover slot.
    Slot,
    /// May ownership pass, with this generation?
    Commit {
        /// The target's.
        generation: u64,
    },
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq)]
pub struct End<C: Carried> {
    /// Which session.
    pub side: Side,
    /// What became of the VM.
    pub outcome: Outcome,
    /// For people.
    pub reason: String,
    /// Of a source session that ran.
    pub figures: Option<C::Figures>,
}

impl<C: Carried> End<C> {
    /// The end of a session that did not begin or brought nothing, without figures.
    pub fn of(side: Side, outcome: Outcome, reason: impl Into<String>) -> Self {
        Self { side, outcome, reason: reason.into(), figures: None }
    }
}

/// What became of the VM, as a source session says it, and the reason.
pub(crate) fn outcome(said: source::Outcome) -> (Outcome, String) {
    match said {
        source::Outcome::Moved => (Outcome::Moved, String::new()),
        source::Outcome::RolledBack(why) => (Outcome::RolledBack, why),
        source::Outcome::VmLost(why) => (Outcome::VmLost, why),
        source::Outcome::Stopped(why) => (Outcome::Stopped, why),
    }
}
