//! References whose content is still on its way, and which of them a newer record has overtaken.
//!
//! Records of one page must take effect in the order QEMU sent them. A reference is resolved later than it was
//! received, so a newer record of the same page may arrive first: then the reference's content must not be
//! placed any more. This table knows the newest record of every page that has a reference outstanding; it is
//! bounded by the source's window.

use hashbrown::HashMap;

/// A page of the VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PageId {
    /// Index into the block list.
    pub block: u16,
    /// Offset / 4096.
    pub page: u32,
}

/// Names one reference of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReferenceId {
    /// Number of the batch.
    pub seq: u64,
    /// Position among the batch's references.
    pub index: u32,
}

/// The outstanding references of one target session.
#[derive(Debug, Default)]
pub struct Outstanding {
    newest: HashMap<PageId, ReferenceId>,
    left: HashMap<u64, u32>,
    total: usize,
}

impl Outstanding {
    /// A batch arrived, `references` of which cannot be placed at once. A batch without any is not entered.
    pub fn open_batch(&mut self, seq: u64, references: u32) {
        if references > 0 {
            self.left.insert(seq, references);
            self.total += references as usize;
        }
    }

    /// This reference is now the newest record of its page.
    pub fn wait(&mut self, page: PageId, reference: ReferenceId) {
        self.newest.insert(page, reference);
    }

    /// Records with content arrived for `count` pages from `first` on: whatever is outstanding for them is overtaken.
    /// Cheap when nothing is outstanding at all.
    pub fn overtake(&mut self, first: PageId, count: u32) {
        if !self.newest.is_empty() {
            let PageId { block, page } = first;
            (page..page + count).for_each(|page| {
                self.newest.remove(&PageId { block, page });
            });
        }
    }

    /// The content of a reference is here. True if it must be placed, false if a newer record has overtaken it.
    /// It still counts as outstanding until [`Self::settle`].
    pub fn is_newest(&self, page: PageId, reference: ReferenceId) -> bool {
        self.newest.get(&page) == Some(&reference)
    }

    /// The reference was placed or overtaken. Returns true if it was the last one of its batch.
    pub fn settle(&mut self, page: PageId, reference: ReferenceId) -> bool {
        if self.newest.get(&page) == Some(&reference) {
            self.newest.remove(&page);
        }
        let Some(left) = self.left.get_mut(&reference.seq) else { return false };
        *left -= 1;
        self.total -= 1;
        let last = *left == 0;
        if last {
            self.left.remove(&reference.seq);
        }
        last
    }

    /// References that are not settled.
    pub fn len(&self) -> usize {
        self.total
    }

    /// Nothing is outstanding.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGE: PageId = PageId { block: 0, page: 9 };

    #[test]
    fn a_newer_raw_page_overtakes_a_reference() {
        let mut o = Outstanding::default();
        let r = ReferenceId { seq: 1, index: 0 };
        o.open_batch(1, 1);
        o.wait(PAGE, r);
        assert!(o.is_newest(PAGE, r));
        o.overtake(PAGE, 1);
        assert!(!o.is_newest(PAGE, r));
        assert!(o.settle(PAGE, r) && o.is_empty());
    }

    proptest! {
        /// Whatever the order of arrival and resolution, memory ends as if every record had been applied in order.
        #[test]
        fn the_last_record_of_a_page_wins(
            records in prop::collection::vec((0u32..4, any::<bool>(), any::<u16>()), 1..60),
            resolve in prop::collection::vec(any::<prop::sample::Index>(), 60),
        ) {
            let (mut o, mut memory, mut expected) = (Outstanding::default(), [0u64; 4], [0u64; 4]);
            let mut waiting = Vec::new();
            for (seq, (page, by_reference, when)) in records.iter().enumerate() {
                let (seq, id) = (seq as u64 + 1, PageId { block: 0, page: *page });
                expected[*page as usize] = seq;
                if *by_reference {
                    let r = ReferenceId { seq, index: 0 };
                    o.open_batch(seq, 1);
                    o.wait(id, r);
                    waiting.push((id, r));
                } else {
                    o.overtake(id, 1);
                    memory[*page as usize] = seq;
                }
                if when % 3 == 0 && !waiting.is_empty() {
                    let (id, r) = waiting.swap_remove(resolve[seq as usize % 60].index(waiting.len()));
                    if o.is_newest(id, r) { memory[id.page as usize] = r.seq; }
                    prop_assert!(o.settle(id, r));
                }
            }
            for (id, r) in waiting {
                if o.is_newest(id, r) { memory[id.page as usize] = r.seq; }
                prop_assert!(o.settle(id, r));
            }
            prop_assert!(o.is_empty());
            prop_assert_eq!(memory, expected);
        }
    }
}
