//! Memory records: the part of the parser that must be fast.

use crate::stream::blocks::Blocks;
use crate::stream::error::{Malformed, Refusal};
use crate::stream::item::{Item, PageId, Sink};
use crate::stream::wire::{
    Cursor, Halt, PAGE_SIZE, RAM_COMPRESS_PAGE, RAM_CONTINUE, RAM_EOS, RAM_FLAGS, RAM_HOOK,
    RAM_MEM_SIZE, RAM_MULTIFD_FLUSH, RAM_PAGE, RAM_XBZRLE, RAM_ZERO, Step,
};

/// State of the memory section. It lives across its parts: a record may continue in the
/// block of a record of an earlier part.
#[derive(Clone, Debug, Default)]
pub(super) struct RamReader {
    pub(super) started: bool,
    pub(super) blocks: Blocks,
    pub(super) last: Option<PageId>,
}

impl RamReader {
    pub(super) fn start(&mut self, blocks: Blocks) {
        self.started = true;
        self.blocks = blocks;
    }

    /// Reads records up to the end of the section's body.
    pub(super) fn records(&mut self, buf: &[u8], at: &mut usize, sink: &mut Sink<'_>) -> Step<()> {
        loop {
            let mut cursor = Cursor::new(buf, *at);
            let word = cursor.be64()?;
            match word & RAM_FLAGS & !RAM_CONTINUE {
                RAM_PAGE => {
                    let PageId { block, page } = self.page(word, &mut cursor)?;
                    let content = cursor.at;
                    cursor.take(PAGE_SIZE)?;
                    self.last = Some(PageId { block, page });
                    sink.push(Item::Page { block, page, at: content });
                }
                RAM_ZERO => {
                    let PageId { block, page } = self.page(word, &mut cursor)?;
                    let fill = cursor.u8()?;
                    if fill != 0 {
                        return Err(Malformed::Fill(fill).into());
                    }
                    self.last = Some(PageId { block, page });
                    sink.push(Item::Zero { block, page });
                }
                _ if word & RAM_FLAGS == RAM_EOS => {
                    *at = cursor.at;
                    return Ok(());
                }
                _ if word & RAM_FLAGS == RAM_MULTIFD_FLUSH => sink.push(Item::MultifdFlush),
                _ => return Err(refuse(word & RAM_FLAGS)),
            }
            *at = cursor.at;
        }
    }

    /// The page a record is about; reads the block's name where there is one.
    fn page(&self, word: u64, cursor: &mut Cursor<'_>) -> Step<PageId> {
        let block = if word & RAM_CONTINUE != 0 {
            self.last.ok_or(Malformed::NoBlockToContinue)?.block
        } else {
            self.blocks.find(cursor.counted()?).ok_or(Malformed::UnknownBlock)?
        };
        let offset = word & !RAM_FLAGS;
        let page = u32::try_from(offset / PAGE_SIZE as u64).ok();
        let page = page.filter(|page| self.blocks.contains(block, *page));
        Ok(PageId { block, page: page.ok_or(Malformed::PageOutsideBlock { block, offset })? })
    }
}

#[cold]
fn refuse(flags: u64) -> Halt {
    match flags & !RAM_CONTINUE {
        RAM_XBZRLE => Refusal::Xbzrle.into(),
        RAM_COMPRESS_PAGE => Refusal::Compress.into(),
        RAM_HOOK => Refusal::RdmaHook.into(),
        RAM_MEM_SIZE => Malformed::BlockList.into(),
        _ => Malformed::RamFlags(flags).into(),
    }
}
