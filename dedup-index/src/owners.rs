//! Names of claims, kept once and numbered, so that an index entry needs four bytes for its owner.

use std::collections::HashMap;

use crate::Claimant;

/// Who claims, and for which crossing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    pub(crate) crossing: u64,
    pub(crate) claimant: Claimant,
}

/// The live owners and their numbers.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    /// `None`: the number is retired, or free.
    names: Vec<Option<Owner>>,
    numbers: HashMap<Owner, u32>,
    free: Vec<u32>,
    max: usize,
}

impl Owners {
    /// Bytes that each numbered owner takes at worst: when the three collections have just doubled, beside
    /// the halves they doubled from.
    pub(crate) const OWNER_BYTES: usize = 320;

    /// No more than `max` owners at a time.
    pub(crate) fn with_max(max: usize) -> Self {
        Self { max: max.min(u32::MAX as usize), ..Self::default() }
    }

    /// The number of a live owner.
    pub(crate) fn number(&self, owner: &Owner) -> Option<u32> {
        self.numbers.get(owner).copied()
    }

    /// The owner of this number, if it is live.
    pub(crate) fn name(&self, number: u32) -> Option<&Owner> {
        self.names.get(number as usize)?.as_ref()
    }

    /// Numbers an owner, unless it is numbered or there are too many.
    pub(crate) fn enter(&mut self, owner: Owner) {
        if self.numbers.contains_key(&owner) {
            return;
        }
        if self.free.is_empty() && self.names.len() < self.max {
            self.free.push(self.names.len() as u32);
            self.names.push(None);
        }
        if let Some(number) = self.free.pop() {
            self.names[number as usize] = Some(owner);
            self.numbers.insert(owner, number);
        }
    }

    /// Takes the names off the owners that `gone` selects. Their numbers, ascending, stay
    /// taken until [`free`](Self::free).
    pub(crate) fn retire(&mut self, gone: impl Fn(&Owner) -> bool) -> Vec<u32> {
        let mut retired = Vec::new();
        for (number, name) in self.names.iter_mut().enumerate() {
            if let Some(owner) = name.take_if(|owner| gone(owner)) {
                self.numbers.remove(&owner);
                retired.push(number as u32);
            }
        }
        retired
    }

    /// Frees retired numbers that no entry mentions any longer.
    pub(crate) fn free(&mut self, retired: Vec<u32>) {
        self.free.extend(retired);
    }

    /// Live owners.
    pub(crate) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Bytes held, at most: what was once numbered stays allocated.
    pub(crate) fn bytes(&self) -> usize {
        self.names.len() * Self::OWNER_BYTES
    }
}
