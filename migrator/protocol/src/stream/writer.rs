//! The writer of a stream for a destination QEMU.

use super::blocks::{Block, Blocks, RamHead};
use super::error::StreamError;
use super::item::PageId;
use super::wire::{
    COMMAND_OPEN_RETURN_PATH, COMMAND_PING, PAGE_SIZE, RAM_CONTINUE, RAM_EOS, RAM_PAGE, RAM_ZERO,
    SECTION_COMMAND, SECTION_END, SECTION_FOOTER, SECTION_PART,
};

/// Pages that are kept until the source's section ends: more than the window of a session has references.
pub const LATE_PAGES_MAX: usize = 8192;

/// Makes a stream for a destination QEMU. Every call appends to `out`.
///
/// The stream has one channel whatever the source used, sections of its own making and pages in
/// the order of the calls: of two records of one page the later one counts, pages may be left out
/// if they get into the destination's memory in another way.
#[derive(Clone, Debug, Default)]
pub struct StreamWriter {
    phase: Phase,
    section_id: u32,
    blocks: Blocks,
    /// Block of the last record written, which the destination remembers too.
    last: Option<u16>,
    /// Whether a PART of the memory section is open.
    open: bool,
    /// Whether what was written ends between sections.
    boundary: bool,
    /// Pages that came in the midst of a section of the source's, in their order; written when it ends.
    late: Vec<(PageId, Box<[u8; PAGE_SIZE]>)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Setup,
    Memory,
    Opaque,
}

/// A page's content, for [`StreamWriter::fallback`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageContent<'a> {
    /// Nothing but zeros.
    Zero,
    /// These bytes.
    Bytes(&'a [u8; PAGE_SIZE]),
}

/// A call that would break the stream; nothing was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The head of the memory section is not one.
    #[error("head of the memory section: {0}")]
    Head(#[from] StreamError),
    /// The memory section was started already, or is over.
    #[error("the memory section starts twice")]
    SecondStart,
    /// A record or the end of memory outside the memory section.
    #[error("no memory section is open")]
    NoMemory,
    /// A page that no block has.
    #[error("there is no page {} in block {}", .0.page, .0.block)]
    NoSuchPage(PageId),
    /// Something of the writer's own in the midst of forwarded bytes.
    #[error("the stream is not between sections")]
    NotBetween,
    /// The content of a page is needed to fall back.
    #[error("falling back needs the content of page {} of block {}", .0.page, .0.block)]
    NeedsContent(PageId),
}

impl StreamWriter {
    /// A writer at the first byte of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// The memory blocks; empty before [`StreamWriter::ram_start`].
    pub fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// Forwards bytes of the source. `boundary` tells that the source's section ends with them, as in
    /// [`Item::Bytes`](super::Item::Bytes).
    pub fn forward(&mut self, bytes: &[u8], boundary: bool, out: &mut Vec<u8>) {
        self.flush_section(out);
        out.extend_from_slice(bytes);
        self.boundary = boundary && self.phase != Phase::Opaque;
        if self.boundary {
            for (id, content) in std::mem::take(&mut self.late) {
                // It was checked when it was kept, and this is between sections.
                if self.record(id, RAM_PAGE, out).is_ok() {
                    out.extend_from_slice(&*content);
                }
            }
        }
    }

    /// Starts the memory section with the source's head of it; returns the blocks it lists.
    ///
    /// # Errors
    /// If the head is malformed or not the first.
    pub fn ram_start(&mut self, head: &[u8], out: &mut Vec<u8>) -> Result<&Blocks, WriteError> {
        if self.phase != Phase::Setup {
            return Err(WriteError::SecondStart);
        }
        let RamHead { section_id, blocks } = RamHead::parse(head)?;
        self.section_id = section_id;
        self.blocks = blocks;
        self.phase = Phase::Memory;
        out.extend_from_slice(head);
        self.close(out);
        Ok(&self.blocks)
    }

    /// Writes a page; in the midst of a section of the source's (of VFIO, of a dirty bitmap) it is kept until that ends: a
    /// reference may be resolved at any time.
    ///
    /// # Errors
    /// If there is no such page, the stream is not in its memory phase, or [`LATE_PAGES_MAX`] are kept already.
    pub fn page(
        &mut self,
        block: u16,
        page: u32,
        content: &[u8; PAGE_SIZE],
        out: &mut Vec<u8>,
    ) -> Result<(), WriteError> {
        let id = PageId { block, page };
        let between = self.need_memory();
        if between == Err(WriteError::NotBetween) && self.late.len() < LATE_PAGES_MAX {
            self.block_of(id)?;
            self.late.push((id, Box::new(*content)));
            return Ok(());
        }
        self.record(id, RAM_PAGE, out)?;
        out.extend_from_slice(content);
        Ok(())
    }

    /// Writes a page of zeros.
    ///
    /// # Errors
    /// If there is no such page, or the stream is not in its memory phase between the source's sections.
    pub fn zero(&mut self, block: u16, page: u32, out: &mut Vec<u8>) -> Result<(), WriteError> {
        self.record(PageId { block, page }, RAM_ZERO, out)?;
        out.push(0);
        Ok(())
    }

    /// Closes the part of the memory section that is open, if any.
    pub fn flush_section(&mut self, out: &mut Vec<u8>) {
        if self.open {
            self.close(out);
        }
    }

    /// Ends the memory section. Only the source's bytes may follow.
    ///
    /// # Errors
    /// If the stream is not in its memory phase between the source's sections.
    pub fn ram_end(&mut self, out: &mut Vec<u8>) -> Result<(), WriteError> {
        self.need_memory()?;
        self.flush_section(out);
        self.head(SECTION_END, out);
        self.close(out);
        self.phase = Phase::Opaque;
        Ok(())
    }

    /// Makes the destination open its return path, if the source does not do so itself.
    ///
    /// # Errors
    /// If the stream is not between sections.
    pub fn inject_open_return_path(&mut self, out: &mut Vec<u8>) -> Result<(), WriteError> {
        self.command(COMMAND_OPEN_RETURN_PATH, &[], out)
    }

    /// Makes the destination answer with a PONG of this value when it has loaded all that was written before.
    /// The return path must be open. [`Barriers`](super::return_path::Barriers) has values for it.
    ///
    /// # Errors
    /// If the stream is not between sections.
    pub fn inject_ping(&mut self, value: u32, out: &mut Vec<u8>) -> Result<(), WriteError> {
        self.command(COMMAND_PING, &value.to_be_bytes(), out)
    }

    /// Whether [`StreamWriter::fallback`] will need the content of the source's last page.
    pub fn fallback_needs_content(&self, last: Option<PageId>) -> bool {
        last.is_some_and(|last| Some(last.block) != self.last)
    }

    /// Prepares for the source's own records: they may continue in the block of the source's last page, so the
    /// destination must have seen that block last. If it has not, that page is written once more, with `content`, which must be
    /// its latest. Everything placed in memory must be in place before the bytes forwarded next.
    ///
    /// # Errors
    /// If the content is needed and missing, or the stream is not between sections.
    pub fn fallback(
        &mut self,
        last: Option<PageId>,
        content: Option<PageContent<'_>>,
        out: &mut Vec<u8>,
    ) -> Result<(), WriteError> {
        if !self.late.is_empty() {
            return Err(WriteError::NotBetween);
        }
        if let Some(last) = last.filter(|last| Some(last.block) != self.last) {
            match content.ok_or(WriteError::NeedsContent(last))? {
                PageContent::Zero => self.zero(last.block, last.page, out)?,
                PageContent::Bytes(content) => self.page(last.block, last.page, content, out)?,
            }
        }
        self.flush_section(out);
        self.phase = Phase::Opaque;
        self.boundary = false;
        Ok(())
    }

    fn record(&mut self, id: PageId, flags: u64, out: &mut Vec<u8>) -> Result<(), WriteError> {
        self.need_memory()?;
        self.block_of(id)?;
        if !self.open {
            self.open = true;
            out.push(SECTION_PART);
            out.extend_from_slice(&self.section_id.to_be_bytes());
        }
        let word = (u64::from(id.page) * PAGE_SIZE as u64) | flags;
        if self.last == Some(id.block) {
            out.extend_from_slice(&(word | RAM_CONTINUE).to_be_bytes());
        } else {
            out.extend_from_slice(&word.to_be_bytes());
            let name = &self.block_of(id)?.name;
            out.push(name.len() as u8);
            out.extend_from_slice(name.as_bytes());
            self.last = Some(id.block);
        }
        Ok(())
    }

    fn block_of(&self, id: PageId) -> Result<&Block, WriteError> {
        let block = self.blocks.get(id.block).filter(|block| id.page < block.pages());
        block.ok_or(WriteError::NoSuchPage(id))
    }

    fn need_memory(&self) -> Result<(), WriteError> {
        match (self.phase, self.open || self.boundary) {
            (Phase::Memory, true) => Ok(()),
            (Phase::Memory, false) => Err(WriteError::NotBetween),
            _ => Err(WriteError::NoMemory),
        }
    }

    fn command(&mut self, command: u16, data: &[u8], out: &mut Vec<u8>) -> Result<(), WriteError> {
        if !self.open && !self.boundary {
            return Err(WriteError::NotBetween);
        }
        self.flush_section(out);
        out.push(SECTION_COMMAND);
        out.extend_from_slice(&command.to_be_bytes());
        out.extend_from_slice(&(data.len() as u16).to_be_bytes());
        out.extend_from_slice(data);
        Ok(())
    }

    fn head(&self, kind: u8, out: &mut Vec<u8>) {
        out.push(kind);
        out.extend_from_slice(&self.section_id.to_be_bytes());
    }

    /// Ends the section that is open with its last word and its footer.
    fn close(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&RAM_EOS.to_be_bytes());
        self.head(SECTION_FOOTER, out);
        self.open = false;
        self.boundary = true;
    }
}
