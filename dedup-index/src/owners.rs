//! Names of claims, kept once and numbered, so that an index entry needs four bytes for its owner.

use std::collections::HashMap;

use crate::Holder;

/// A claimant, and the crossing it claims for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    pub(crate) crossing: u64,
    pub(crate) claimant: Holder,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(session: u64) -> Owner {
        Owner { crossing: session % 3, claimant: Holder { host: 1, session } }
    }

    #[test]
    fn a_number_is_used_anew_only_when_freed() {
        let mut owners = Owners::with_max(2);
        (0..3).for_each(|session| owners.enter(owner(session)));
        assert_eq!(owners.number(&owner(0)), Some(0));
        assert_eq!(owners.number(&owner(1)), Some(1));
        assert_eq!(owners.number(&owner(2)), None, "there are two at most");

        let retired = owners.retire(|owner| owner.claimant.session == 0);
        assert_eq!((retired.as_slice(), owners.name(0)), ([0].as_slice(), None));
        owners.enter(owner(2));
        assert_eq!(owners.number(&owner(2)), None, "0 may still be in the table");
        owners.free(retired);
        owners.enter(owner(2));
        assert_eq!((owners.number(&owner(2)), owners.name(0)), (Some(0), Some(&owner(2))));
        assert_eq!(owners.len(), 2);
    }

    #[test]
    fn takes_no_more_bytes_than_stated() {
        for count in [1, 2, 3, 4, 5, 8, 9, 15, 29, 100, 1_000, 14_337, 65_536] {
            let mut told = 0;
            let info = allocation_counter::measure(|| {
                let mut owners = Owners::with_max(count);
                (0..count as u64 + 2).for_each(|session| owners.enter(owner(session)));
                let retired = owners.retire(|_| true);
                owners.free(retired);
                told = owners.bytes();
            });
            assert_eq!(told, count * Owners::OWNER_BYTES);
            assert!(info.bytes_max as usize <= told, "{count}: {info:?}, said {told}");
        }
    }
}
