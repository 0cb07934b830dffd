//! The batches that the device has, and when each of them is over.
//!
//! This is the rule of who owns a buffer: a value that was put in comes out when its batch's **last** work request has
//! completed, well or not, or with its queue pair. That an earlier one failed is kept in mind and changes nothing: those
//! after it are not flushed yet.

use crate::error::Status;
use crate::slab::{Key, Slab, WrId};

/// How a batch ended: its first failure, or success, and what the device says of it.
pub(crate) type Outcome = (Status, u32);

/// Batches by their keys.
#[derive(Debug)]
pub(crate) struct Table<T>(Slab<Batch<T>>);

#[derive(Debug)]
struct Batch<T> {
    value: T,
    failure: Option<Outcome>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(Slab::default())
    }
}

impl<T> Table<T> {
    /// A batch that is about to be posted.
    pub(crate) fn insert(&mut self, value: T) -> Key {
        self.0.insert(Batch { value, failure: None })
    }

    /// A batch that the device may have.
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.0.get_mut(key).map(|batch| &mut batch.value)
    }

    /// Takes out a batch of which the device got nothing.
    pub(crate) fn unpost(&mut self, key: Key) -> Option<T> {
        self.0.remove(key).map(|batch| batch.value)
    }

    /// A work request has completed; the batch, if that was its last. One that is not in the table is of a queue pair
    /// that was destroyed.
    pub(crate) fn complete(&mut self, id: WrId, outcome: Outcome) -> Option<(T, Outcome)> {
        let batch = self.0.get_mut(id.key)?;
        if outcome.0 != Status::Success && batch.failure.is_none() {
            batch.failure = Some(outcome);
        }
        if !id.last {
            return None;
        }
        let batch = self.0.remove(id.key)?;
        Some((batch.value, batch.failure.unwrap_or((Status::Success, 0))))
    }

    /// Takes out all batches of a queue pair that is destroyed.
    pub(crate) fn abandon(&mut self, is_its: impl Fn(&T) -> bool) -> Vec<(T, Outcome)> {
        let left = self.0.remove_where(|batch| is_its(&batch.value));
        let abandoned = (Status::Abandoned, 0);
        left.into_iter().map(|batch| (batch.value, batch.failure.unwrap_or(abandoned))).collect()
    }

    /// All values.
    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.0.values().map(|batch| &batch.value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(key: Key, last: bool) -> WrId {
        WrId { key, last }
    }

    #[test]
    fn an_earlier_failure_frees_nothing_and_is_the_outcome() {
        let mut table = Table::default();
        let key = table.insert("slots");
        assert_eq!(table.complete(id(key, false), (Status::RemoteAccess, 7)), None);
        assert_eq!(table.complete(id(key, false), (Status::Flushed, 8)), None);
        let over = table.complete(id(key, true), (Status::Flushed, 9));
        assert_eq!(over, Some(("slots", (Status::RemoteAccess, 7))));
        assert_eq!(table.complete(id(key, true), (Status::Success, 0)), None, "late");
    }

    #[test]
    fn a_destroyed_pair_takes_its_own_batches_along() {
        let mut table = Table::default();
        let failed = table.insert(1);
        table.insert(1);
        let other = table.insert(2);
        table.complete(id(failed, false), (Status::RetriesExceeded, 3));
        let mut over = table.abandon(|pair| *pair == 1);
        over.sort_by_key(|(_, (_, vendor))| *vendor);
        assert_eq!(over, [(1, (Status::Abandoned, 0)), (1, (Status::RetriesExceeded, 3))]);
        assert_eq!(table.complete(id(failed, true), (Status::Flushed, 0)), None);
        assert_eq!(
            table.complete(id(other, true), (Status::Success, 0)),
            Some((2, (Status::Success, 0)))
        );
        assert_eq!(table.values().count(), 0);
    }

    proptest! {
        /// Queue pairs with batches of some READs complete in order, one of them fails at one of them and flushes the rest,
        /// and is perhaps destroyed on the way; its later completions come all the same. Each value comes out once, and
        /// not while a READ of it may still be written.
        #[test]
        fn a_buffer_comes_back_once_and_not_early(
            batches in prop::collection::vec((0..3_usize, 1..5_usize), 1..20),
            fails_at in 0..60_usize,
            destroyed_at in 0..80_usize,
            picks in prop::collection::vec(0..3_usize, 0..200),
        ) {
            let mut table = Table::default();
            let mut queues = [const { Vec::new() }; 3];
            let mut left = vec![0_usize; batches.len()];
            for (number, &(pair, reads)) in batches.iter().enumerate() {
                let key = table.insert((number, pair));
                left[number] = reads;
                queues[pair].extend((1..=reads).map(|read| (number, id(key, read == reads))));
            }
            let (mut back, mut destroyed, mut steps, mut failed) = (vec![0; batches.len()], false, 0, false);
            let drain = (0..3).flat_map(|pair| [pair; 100]);
            for pair in picks.into_iter().chain(drain) {
                if steps == destroyed_at && !destroyed {
                    destroyed = true;
                    for ((number, pair), _) in table.abandon(|(_, pair)| *pair == 0) {
                        prop_assert_eq!(pair, 0);
                        back[number] += 1;
                    }
                }
                if queues[pair].is_empty() {
                    continue;
                }
                let (number, wr) = queues[pair].remove(0);
                steps += 1;
                failed |= pair == 0 && steps >= fails_at;
                let status = if pair == 0 && failed { Status::Flushed } else { Status::Success };
                left[number] -= 1;
                // Only what fails, or is signalled, completes.
                if status == Status::Success && !wr.last {
                    continue;
                }
                if let Some(((over, _), _)) = table.complete(wr, (status, 0)) {
                    prop_assert_eq!(over, number);
                    prop_assert_eq!(left[over], 0, "given back while it may be written");
                    back[over] += 1;
                }
            }
            prop_assert!(back.iter().all(|times| *times == 1), "{:?}", back);
        }
    }
}
