//! Parts of a write, until the last of them is applied.

use rackferry_fleet::Change;
use serde::{Deserialize, Serialize};

use super::packed::Packed;

/// The parts of a write so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Staged {
    term: u64,
    /// The number of the part that comes next.
    next: u32,
    changes: Vec<Change>,
}

impl Staged {
    /// Takes up one more part; the first begins anew. Nothing if it does not follow those before.
    pub fn take_up(before: Option<Self>, term: u64, number: u32, part: Packed) -> Option<Self> {
        let new = || Self { term, next: 0, changes: Vec::new() };
        let mut staged = if number == 0 { new() } else { before? };
        if (staged.term, staged.next) != (term, number) {
            return None;
        }
        staged.next += 1;
        staged.changes.extend(part.into_changes());
        Some(staged)
    }

    /// All of it.
    pub fn into_changes(self) -> Vec<Change> {
        self.changes
    }
}
