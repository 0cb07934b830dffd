//! The list of memory blocks at the head of the memory section.

use std::collections::HashMap;

use super::error::{Malformed, Refusal, StreamError};
use super::wire::{
    Cursor, Halt, PAGE_SIZE, RAM, RAM_FLAGS, RAM_MEM_SIZE, RAM_VERSION, SECTION_START, Step,
};

/// Most memory blocks a VM may have.
pub const MAX_BLOCKS: usize = 1024;
/// Most bytes the head of the memory section may have: section header and block list.
pub const MAX_HEAD: usize = 64 << 10;

/// A block of guest memory, as the source announced it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// QEMU's name of it, equal at both sides, e.g. `pc.ram`.
    pub name: Box<str>,
    /// Bytes in use, a multiple of the page size.
    pub used_length: u64,
    /// Host page size in bytes, where the source announced one that is not the usual
    /// (huge pages while the capability postcopy-ram is on).
    pub page_size: Option<u64>,
}

impl Block {
    /// Number of 4 KiB pages in use.
    pub fn pages(&self) -> u32 {
        (self.used_length / PAGE_SIZE as u64) as u32
    }
}

/// All blocks of a VM in the order of the stream; records name them by their index here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    list: Vec<Block>,
    by_name: HashMap<Box<[u8]>, u16>,
}

impl Blocks {
    /// The block with this index.
    pub fn get(&self, index: u16) -> Option<&Block> {
        self.list.get(usize::from(index))
    }

    /// The index of the block with this name.
    pub fn find(&self, name: &[u8]) -> Option<u16> {
        self.by_name.get(name).copied()
    }

    /// The blocks in order of their index.
    pub fn iter(&self) -> std::slice::Iter<'_, Block> {
        self.list.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether no block is known (yet).
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Pages of all blocks together.
    pub fn total_pages(&self) -> u64 {
        self.list.iter().map(|block| u64::from(block.pages())).sum()
    }

    /// Checks that a page exists.
    pub fn contains(&self, block: u16, page: u32) -> bool {
        self.get(block).is_some_and(|block| page < block.pages())
    }

    fn push(&mut self, block: Block) -> Step<()> {
        if self.list.len() == MAX_BLOCKS {
            return Err(Refusal::TooMany { what: "memory blocks", limit: MAX_BLOCKS }.into());
        }
        let index = self.list.len() as u16;
        if self.by_name.insert(block.name.as_bytes().into(), index).is_some() {
            return Err(Malformed::DuplicateBlock.into());
        }
        self.list.push(block);
        Ok(())
    }
}

impl<'a> IntoIterator for &'a Blocks {
    type Item = &'a Block;
    type IntoIter = std::slice::Iter<'a, Block>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// What begins a START or FULL section.
#[derive(Debug)]
pub(crate) struct SectionHead<'a> {
    pub(crate) kind: u8,
    pub(crate) id: u32,
    pub(crate) name: &'a [u8],
    pub(crate) version: u32,
}

impl<'a> SectionHead<'a> {
    pub(crate) fn read(cursor: &mut Cursor<'a>) -> Step<Self> {
        let kind = cursor.u8()?;
        let id = cursor.be32()?;
        let name = cursor.counted()?;
        let _instance = cursor.be32()?;
        let version = cursor.be32()?;
        Ok(Self { kind, id, name, version })
    }
}

/// The head of the memory section: everything from the section's type byte to the end of the
/// block list. It is forwarded as it is, so both sides of a migration can read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RamHead {
    /// The sender's number for the section, which all later parts of it repeat.
    pub section_id: u32,
    /// The blocks.
    pub blocks: Blocks,
}

impl RamHead {
    /// Reads a complete head.
    ///
    /// # Errors
    /// If it is not exactly one well-formed head within the limits.
    pub fn parse(head: &[u8]) -> Result<Self, StreamError> {
        let too_long = Malformed::Length { what: "memory section head", len: head.len() as u64 };
        let mut cursor = Cursor::new(head, 0);
        let result = SectionHead::read(&mut cursor)
            .and_then(|section| Self::read(&section, &mut cursor, Rest::Nothing));
        match result {
            Ok(parsed) if cursor.remaining() == 0 => Ok(parsed),
            Ok(_) | Err(Halt::More) => {
                Err(StreamError::Malformed { malformed: too_long, offset: cursor.at as u64 })
            }
            Err(Halt::Stop(problem)) => Err(StreamError::at(problem, cursor.at as u64)),
        }
    }

    /// Reads the block list behind a section head that was read already.
    pub(crate) fn read(
        section: &SectionHead<'_>,
        cursor: &mut Cursor<'_>,
        rest: Rest,
    ) -> Step<Self> {
        if section.kind != SECTION_START || section.name != RAM {
            return Err(Malformed::BlockList.into());
        }
        if section.version != RAM_VERSION {
            return Err(Refusal::RamVersion(section.version).into());
        }
        let word = cursor.be64()?;
        if word & RAM_FLAGS != RAM_MEM_SIZE {
            return Err(Malformed::BlockList.into());
        }
        let blocks = read_blocks(word & !RAM_FLAGS, cursor, rest)?;
        Ok(Self { section_id: section.id, blocks })
    }
}

/// What follows the block list in the bytes at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// The bytes end with the list.
    Nothing,
    /// The section goes on with a record.
    Records,
}

fn read_blocks(total: u64, cursor: &mut Cursor<'_>, rest: Rest) -> Step<Blocks> {
    let start = cursor.at;
    let mut blocks = Blocks::default();
    let mut left = total;
    while left > 0 {
        if cursor.at - start > MAX_HEAD - 1024 {
            return Err(Refusal::TooMany { what: "bytes of block names", limit: MAX_HEAD }.into());
        }
        let name = read_name(cursor)?;
        let used_length = cursor.be64()?;
        let pages = used_length / PAGE_SIZE as u64;
        if used_length & RAM_FLAGS != 0 || used_length > left || pages > u64::from(u32::MAX) {
            return Err(Malformed::BlockLength(used_length).into());
        }
        left -= used_length;
        let page_size = read_page_size(cursor, left == 0, rest)?;
        blocks.push(Block { name, used_length, page_size })?;
    }
    Ok(blocks)
}

pub(crate) fn read_name(cursor: &mut Cursor<'_>) -> Step<Box<str>> {
    let name = cursor.counted()?;
    match std::str::from_utf8(name) {
        Ok(name) if !name.is_empty() => Ok(name.into()),
        _ => Err(Malformed::Name.into()),
    }
}

/// A block's entry may end with its page size, and nothing says whether it does. It can be told all the
/// same: names are never empty, so a first byte of zero cannot begin the next entry, and behind the
/// last entry comes a record word, whose flags are never all clear.
fn read_page_size(cursor: &mut Cursor<'_>, last: bool, rest: Rest) -> Step<Option<u64>> {
    let present = match (last, rest) {
        (false, _) => cursor.peek_u8()? == 0,
        (true, Rest::Records) => cursor.peek_be64()? & RAM_FLAGS == 0,
        (true, Rest::Nothing) => cursor.remaining() > 0,
    };
    if !present {
        return Ok(None);
    }
    let size = cursor.be64()?;
    if !size.is_power_of_two() || size <= PAGE_SIZE as u64 {
        return Err(Malformed::BlockPageSize(size).into());
    }
    Ok(Some(size))
}
