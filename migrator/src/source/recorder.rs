//! What QEMU's stream carried last of every page of guest memory, for verify mode: when the memories of source and
//! target differ, it tells whether QEMU never sent a page's last content or the content changed on its way.

use std::sync::{Arc, Mutex, PoisonError};

use rackferry_dedup_index::{Digest, PAGE_SIZE, PageHasher};
use rackferry_migrator_protocol::session::source::Unsent;
use rackferry_migrator_protocol::stream::{Item, RamHead};

use super::pump::PageBuf;
use crate::memory::{GuestMemory, MemoryError, RAM_BLOCK};

/// Pages that are read and hashed at a time.
const BATCH_PAGES: usize = 256;

/// Pages a report names; the rest is counted.
const NAMED_PAGES: usize = 16;

/// Keeps a digest per page of [`RAM_BLOCK`]: 16 bytes, 0.4 % of the guest memory.
#[derive(Debug)]
pub struct Recorder {
    hasher: PageHasher,
    zero: Digest,
    sent: Mutex<Sent>,
}

#[derive(Debug, Default)]
struct Sent {
    /// Index of [`RAM_BLOCK`] in the stream, once it is known.
    block: Option<u16>,
    /// By page; none was not sent yet.
    last: Vec<Option<Digest>>,
}

impl Recorder {
    /// A recorder before the first byte of a stream.
    pub fn new(hasher: PageHasher) -> Self {
        let zero = hasher.digest(&[0; PAGE_SIZE]);
        Self { hasher, zero, sent: Mutex::default() }
    }

    /// Takes a piece of the stream in its order. `digests` are those of its `Page` items, or empty.
    pub fn record(&self, buf: &PageBuf, items: &[Item], digests: &[Digest]) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let mut digests = digests.iter().copied();
        for item in items {
            match item {
                Item::RamStart { head, .. } => sent.start(&buf.bytes()[head.clone()]),
                Item::Page { block, page, at } => {
                    let known = digests.next();
                    let digest = known.unwrap_or_else(|| self.hasher.digest(buf.page(*at)));
                    sent.note(*block, *page, digest);
                }
                Item::Zero { block, page } => sent.note(*block, *page, self.zero),
                _ => {}
            }
        }
    }

    /// Compares what was sent last with the memory of the stopped VM. A page that was never sent counts as zeros: the
    /// target's memory begins with them. Blocks for the time of reading and hashing the memory.
    ///
    /// # Errors
    /// The memory cannot be read.
    pub fn unsent(&self, memory: &GuestMemory) -> Result<Unsent, MemoryError> {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let mut unsent = Unsent::default();
        let mut bytes = vec![0; BATCH_PAGES * PAGE_SIZE];
        let mut digests = Vec::with_capacity(BATCH_PAGES);
        for first in (0..memory.pages()).step_by(BATCH_PAGES) {
            let count = (memory.pages() - first).min(BATCH_PAGES as u64) as usize;
            let bytes = &mut bytes[..count * PAGE_SIZE];
            memory.read_pages(first, bytes)?;
            let (pages, _) = bytes.as_chunks::<PAGE_SIZE>();
            digests.clear();
            self.hasher.digest_batch(&pages.iter().collect::<Vec<_>>(), &mut digests);
            for (page, now) in (first..).zip(&digests) {
                let last = sent.last.get(page as usize).copied().flatten();
                if *now != last.unwrap_or(self.zero) {
                    unsent.add(page, NAMED_PAGES);
                }
            }
        }
        Ok(unsent)
    }
}

impl Sent {
    fn start(&mut self, head: &[u8]) {
        // The parser has read the same head: it is well formed.
        let Ok(head) = RamHead::parse(head) else { return };
        self.block = head.blocks.find(RAM_BLOCK.as_bytes());
        let pages = self.block.and_then(|block| head.blocks.get(block)).map_or(0, |b| b.pages());
        self.last = vec![None; pages as usize];
    }

    fn note(&mut self, block: u16, page: u32, digest: Digest) {
        if Some(block) == self.block
            && let Some(last) = self.last.get_mut(page as usize)
        {
            *last = Some(digest);
        }
    }
}

/// What a session in verify mode records into.
pub type Recording = Option<Arc<Recorder>>;

#[cfg(test)]
mod tests {
    use rackferry_dedup_index::DomainKey;

    use super::*;

    const PAGES: u64 = 1000;

    /// A recorder that has seen the head of a stream whose only block is the memory.
    fn recorder() -> Recorder {
        let recorder = Recorder::new(PageHasher::new(&DomainKey([3; 32])));
        let mut sent = recorder.sent.lock().unwrap();
        sent.block = Some(2);
        sent.last = vec![None; PAGES as usize];
        drop(sent);
        recorder
    }

    fn page(fill: u8) -> [u8; PAGE_SIZE] {
        [fill; PAGE_SIZE]
    }

    #[test]
    fn the_last_content_counts_and_other_blocks_do_not() {
        let memory = GuestMemory::create("recorder-test", PAGES * PAGE_SIZE as u64, None).unwrap();
        let recorder = recorder();
        let note = |block, number, fill| {
            let digest = recorder.hasher.digest(&page(fill));
            recorder.sent.lock().unwrap().note(block, number, digest);
        };
        for (number, fill) in [(7, 1), (7, 2), (300, 5), (999, 9)] {
            note(2, number, fill);
            memory.write_page(number.into(), &page(fill)).unwrap();
        }
        note(1, 300, 6);
        assert_eq!(recorder.unsent(&memory).unwrap(), Unsent::default());

        memory.write_page(300, &page(6)).unwrap();
        memory.write_page(600, &page(1)).unwrap();
        let unsent = recorder.unsent(&memory).unwrap();
        assert_eq!((unsent.pages, unsent.first), (2, vec![300, 600]));
    }

    #[test]
    fn pages_beyond_the_block_are_left_out() {
        let recorder = recorder();
        recorder.sent.lock().unwrap().note(2, PAGES as u32, Digest::default());
        assert!(recorder.sent.lock().unwrap().last.iter().all(Option::is_none));
    }
}
