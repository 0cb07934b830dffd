//! Which pages one READ fetches: slots that lie side by side at the holder go into as many landing slots.

use std::ops::Range;

/// A slot of the holder's arena, by the numbers that it was leased under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RemoteSlot {
    /// Which of the offered regions.
    pub region: u16,
    /// Which slot of it.
    pub slot: u32,
}

impl RemoteSlot {
    fn is_followed_by(self, next: Self) -> bool {
        self.region == next.region && self.slot.checked_add(1) == Some(next.slot)
    }
}

/// Cuts a batch into READs of at most `entries` slots each, in the batch's order.
pub(crate) fn reads(slots: &[RemoteSlot], entries: usize) -> Vec<Range<usize>> {
    debug_assert!(entries > 0, "a READ has at least one entry");
    let mut reads: Vec<Range<usize>> = Vec::new();
    for at in 0..slots.len() {
        match reads.last_mut() {
            Some(read) if read.len() < entries && slots[at - 1].is_followed_by(slots[at]) => {
                read.end = at + 1;
            }
            _ => reads.push(at..at + 1),
        }
    }
    reads
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slots(of: &[(u16, u32)]) -> Vec<RemoteSlot> {
        of.iter().map(|&(region, slot)| RemoteSlot { region, slot }).collect()
    }

    #[test]
    fn neighbours_of_one_region_share_a_read() {
        let batch = slots(&[(0, 4), (0, 5), (0, 6), (1, 7), (1, 7), (1, 6), (1, u32::MAX), (1, 0)]);
        assert_eq!(reads(&batch, 16), [0..3, 3..4, 4..5, 5..6, 6..7, 7..8]);
        assert_eq!(reads(&batch[..3], 2), [0..2, 2..3]);
        assert!(reads(&[], 16).is_empty());
    }

    proptest! {
        /// Every slot once and in order; each READ is one run of neighbours, and no two READs could have been one.
        #[test]
        fn a_batch_is_cut_without_loss(
            batch in prop::collection::vec((0..2_u16, 0..6_u32), 0..60),
            entries in 1..17_usize,
        ) {
            let batch = slots(&batch);
            let reads = reads(&batch, entries);
            prop_assert!(reads.iter().cloned().flatten().eq(0..batch.len()));
            for read in &reads {
                prop_assert!((1..=entries).contains(&read.len()));
                let run = &batch[read.clone()];
                prop_assert!(run.windows(2).all(|pair| pair[0].is_followed_by(pair[1])));
            }
            for pair in reads.windows(2) {
                let joined = batch[pair[0].end - 1].is_followed_by(batch[pair[1].start]);
                prop_assert!(!joined || pair[0].len() == entries);
            }
        }
    }
}
