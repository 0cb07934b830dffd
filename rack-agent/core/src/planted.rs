//! Bugs made on purpose: the simulation must find each of them. Only with the feature `planted-bugs`.

use std::cell::Cell;

/// A bug made on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlantedBug {
    /// A word that did not fit into the outbox is lost without a new stream.
    LossUnnoticed,
    /// A VM that arrived is let run before it is written down that it may run.
    RunsUnwritten,
    /// A target told twice to prepare expects a source that has called already.
    ExpectsTheCalled,
    /// A VM that is being prepared is said to be gone before it is there.
    DiscardedInPrepare,
}

thread_local! {
    static PLANTED: Cell<Option<PlantedBug>> = const { Cell::new(None) };
}

/// Puts a bug into every agent of this thread, or takes it out.
pub fn plant(bug: Option<PlantedBug>) {
    PLANTED.set(bug);
}

pub(crate) fn is(bug: PlantedBug) -> bool {
    PLANTED.get() == Some(bug)
}
