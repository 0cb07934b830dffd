//! Contents that were written into a QEMU's stream and lie in no guest memory this host has mapped: ROMs, video memory,
//! VMs whose memory belongs to QEMU. Others refer to them all the same, so the latest are kept.

use rackferry_dedup_index::{Digest, PAGE_SIZE};

use crate::limits::POOL_PAGES;
use crate::memory::{GuestMemory, MemoryError};

/// A ring of the latest contents. Its pages are verified like all others, so overwriting one is no harm.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) memory: std::sync::Arc<GuestMemory>,
    /// The ring's number in the content map on this lap, and on the one before.
    pub(super) lap: u32,
    pub(super) last_lap: Option<u32>,
    next: u32,
}

impl Pool {
    /// An empty ring. Takes host memory only as it fills.
    pub(super) fn new(lap: u32) -> Result<Self, MemoryError> {
        let bytes = u64::from(POOL_PAGES) * PAGE_SIZE as u64;
        // No guest's memory can have this name: those begin with "rackferry-".
        let memory = GuestMemory::create("rackferry.pool", bytes, None)?;
        Ok(Self { memory: memory.into(), lap, last_lap: None, next: 0 })
    }

    /// Pages until the ring's end, at least one.
    pub(super) fn room(&self) -> usize {
        (POOL_PAGES - self.next) as usize
    }

    /// Writes contents, at most [`Pool::room`], and appends where they lie.
    pub(super) fn write(
        &mut self,
        digests: &[Digest],
        contents: &[[u8; PAGE_SIZE]],
        entries: &mut Vec<(Digest, u32)>,
    ) -> Result<(), MemoryError> {
        self.memory.write_pages(self.next.into(), contents)?;
        entries.extend(digests.iter().copied().zip(self.next..));
        self.next += contents.len() as u32;
        Ok(())
    }

    /// At the ring's end: begins a new lap, and returns the number of the one that is overwritten by now.
    pub(super) fn turn(&mut self, lap: u32) -> Option<u32> {
        self.next = 0;
        self.last_lap.replace(std::mem::replace(&mut self.lap, lap))
    }
}
