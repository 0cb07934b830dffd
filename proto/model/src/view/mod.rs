//! What clients see, as JSON of the command line has it: the serde form is the JSON.

mod check;
mod event;
mod migration;
mod site;

use std::fmt;

use serde::{Serialize, Serializer};

pub use check::{Finding, PlannedMove, TargetCheck, VmCheck};
pub use event::Event;
pub use migration::{Evacuation, Migration, Staying, Totals, WaitReason};
pub use site::{
    Cluster, Host, Inventory, Lane, Limit, Link, Node, Problem, Rack, Summary, Vm, VmCopy,
    VmDetail, VmSpecs,
};

/// A word as it was received: none if it is of a later version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received<T>(pub Option<T>);

impl<T: fmt::Display> fmt::Display for Received<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(word) => word.fmt(f),
            None => f.write_str("unspecified"),
        }
    }
}

impl<T: fmt::Display> Serialize for Received<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// The word of a value whose serde form is the log's.
fn word_or_none<T: fmt::Display, S: Serializer>(
    value: &Option<T>,
    to: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(word) => to.collect_str(word),
        None => to.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Phase;

    #[test]
    fn a_word_of_a_later_version_is_unspecified() {
        let json = |phase| serde_json::to_string(&Received(phase)).unwrap();
        assert_eq!(json(Some(Phase::RolledBack)), "\"rolled_back\"");
        assert_eq!(json(None), "\"unspecified\"");
    }
}
