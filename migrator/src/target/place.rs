//! Where pages end up: straight in guest memory where the agent has it mapped, as records of the rebuilt stream
//! elsewhere (ROMs, video memory, VMs whose memory is not the agent's).

use std::sync::Arc;

use rackferry_dedup_index::PAGE_SIZE;
use rackferry_migrator_protocol::session::outstanding::PageId;
use rackferry_migrator_protocol::stream::{self, PageContent, StreamWriter, WriteError};
use thiserror::Error;

use crate::memory::{GuestMemory, MemoryError};

/// A guest memory that pages are placed in.
#[derive(Debug, Clone)]
pub struct Placed {
    /// QEMU's name of the block (`pc.ram`).
    pub block: String,
    /// The memory.
    pub memory: Arc<GuestMemory>,
    /// Its number in the content store.
    pub id: u32,
}

/// Why a page cannot be put anywhere.
#[derive(Debug, Error)]
pub enum PlaceError {
    /// The source names a block or page that its stream did not announce.
    #[error("the source sent page {page} of block {block}, which the VM does not have")]
    NoSuchPage {
        /// Index of the block.
        block: u16,
        /// Number of the page.
        page: u32,
    },
    /// Source and target disagree on the size of a memory.
    #[error("block {block} has {theirs} bytes at the source and {ours} here")]
    Size {
        /// Name of the block.
        block: String,
        /// The source's.
        theirs: u64,
        /// Ours.
        ours: u64,
    },
    /// Writing guest memory failed.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The rebuilt stream would be wrong.
    #[error("rebuilding the stream: {0}")]
    Write(#[from] WriteError),
}

/// Places pages; `out` collects bytes for QEMU.
#[derive(Debug)]
pub struct Placer {
    writer: StreamWriter,
    offered: Vec<Placed>,
    /// One a block: index into `offered` if its pages are placed, and its number of pages.
    blocks: Vec<(Option<usize>, u32)>,
    /// Bytes for QEMU.
    pub out: Vec<u8>,
}

impl Placer {
    /// Nothing is known of the VM's blocks yet; those named in `offered` will be placed.
    pub fn new(offered: Vec<Placed>) -> Self {
        Self { writer: StreamWriter::new(), offered, blocks: Vec::new(), out: Vec::new() }
    }

    /// Bytes of the source's stream outside RAM.
    pub fn forward(&mut self, bytes: &[u8], boundary: bool) {
        self.writer.forward(bytes, boundary, &mut self.out);
    }

    /// ram's START section: the blocks are known from here.
    pub fn ram_start(&mut self, head: &[u8]) -> Result<(), PlaceError> {
        let blocks = self.writer.ram_start(head, &mut self.out)?;
        for block in blocks.iter() {
            let found = self.offered.iter().position(|p| *p.block == *block.name);
            if let Some(i) = found {
                let ours = self.offered[i].memory.bytes();
                if ours != block.used_length {
                    let (block, theirs) = (block.name.to_string(), block.used_length);
                    return Err(PlaceError::Size { block, theirs, ours });
                }
            }
            self.blocks.push((found, block.pages()));
        }
        Ok(())
    }

    /// Is there such a run of pages?
    pub fn check(&self, first: PageId, count: u32) -> Result<(), PlaceError> {
        self.target(first, count).map(drop)
    }

    /// Number of the memory that pages of this block lie in afterwards, for the content store.
    pub fn memory_of(&self, block: u16) -> Option<u32> {
        let (placed, _) = self.blocks.get(usize::from(block))?;
        placed.map(|i| self.offered[i].id)
    }

    /// Puts the contents of pages where they belong, from `first` on.
    pub fn pages(&mut self, first: PageId, contents: &[[u8; PAGE_SIZE]]) -> Result<(), PlaceError> {
        let PageId { block, page } = first;
        if let Some(i) = self.target(first, contents.len() as u32)? {
            return Ok(self.offered[i].memory.write_pages(page.into(), contents)?);
        }
        for (page, content) in (page..).zip(contents) {
            self.writer.page(block, page, content, &mut self.out)?;
        }
        Ok(())
    }

    /// Makes pages zero, from `first` on.
    pub fn zeros(&mut self, first: PageId, count: u32) -> Result<(), PlaceError> {
        let PageId { block, page } = first;
        let placed = self.target(first, count)?;
        for page in page..page + count {
            match placed {
                Some(i) => self.offered[i].memory.zero_page(page.into())?,
                None => self.writer.zero(block, page, &mut self.out)?,
            }
        }
        Ok(())
    }

    /// Index into `offered` if these pages are placed.
    fn target(&self, first: PageId, count: u32) -> Result<Option<usize>, PlaceError> {
        let PageId { block, page } = first;
        match (self.blocks.get(usize::from(block)), page.checked_add(count)) {
            (Some((placed, pages)), Some(end)) if end <= *pages => Ok(*placed),
            _ => Err(PlaceError::NoSuchPage { block, page }),
        }
    }

    /// ram's END: everything is in place, QEMU may load the devices.
    pub fn ram_end(&mut self) -> Result<(), PlaceError> {
        self.note_foreign_writes();
        Ok(self.writer.ram_end(&mut self.out)?)
    }

    /// From here QEMU loads the source's own records; `last` is the page the source sent last.
    pub fn fallback(&mut self, last: Option<PageId>) -> Result<(), PlaceError> {
        self.note_foreign_writes();
        let last_id = last.map(|p| stream::PageId { block: p.block, page: p.page });
        let mut content = [0; PAGE_SIZE];
        let mut known = None;
        if let Some(id) = last
            && self.writer.fallback_needs_content(last_id)
            && let Some(i) = self.target(id, 1)?
        {
            self.offered[i].memory.read_page(id.page.into(), &mut content)?;
            known = Some(PageContent::Bytes(&content));
        }
        Ok(self.writer.fallback(last_id, known, &mut self.out)?)
    }

    fn note_foreign_writes(&self) {
        self.offered.iter().for_each(|p| p.memory.mark_all());
    }
}
