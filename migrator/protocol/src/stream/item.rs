//! What the parser finds in a stream.

use std::ops::Range;

/// A piece of the stream. Ranges and positions are indices into the buffer given to the same call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// Bytes to forward unchanged.
    Bytes {
        /// Where they are.
        range: Range<usize>,
        /// Whether a section (or command) is known to end with the last of them, so that something may be put
        /// into the stream here. Never set once the stream is opaque.
        boundary: bool,
    },
    /// The memory section starts; its blocks are known from now on.
    RamStart {
        /// The sender's number for the section.
        section_id: u32,
        /// The head to forward unchanged; [`RamHead`](super::RamHead) reads it at the other side.
        head: Range<usize>,
        /// Whether multifd channels, if there are any, are synchronised at every [`Item::MultifdFlush`]
        /// (QEMU 8.1 with a machine type of 8.1 or later) and not at every [`Item::SectionEnd`].
        modern_multifd: bool,
    },
    /// A page with content: the 4096 bytes at `at`.
    Page {
        /// Index of the block.
        block: u16,
        /// Number of the page in its block.
        page: u32,
        /// Where its content begins.
        at: usize,
    },
    /// A page full of zeros.
    Zero {
        /// Index of the block.
        block: u16,
        /// Number of the page in its block.
        page: u32,
    },
    /// Multifd channels are synchronised here (modern mode). Not to be forwarded to a destination without multifd.
    MultifdFlush,
    /// A START, PART or END of the memory section is over; in multifd's legacy mode the channels are synchronised here.
    SectionEnd,
    /// Guest memory is complete. All that follows is [`Item::Bytes`].
    RamEnd,
    /// Something unknown came up. All that follows is [`Item::Bytes`], to be forwarded unchanged, memory records
    /// included. What was placed in memory so far must be in place before they are.
    Fallback {
        /// What came up.
        reason: FallbackReason,
        /// The last page the source sent: its following records may continue in the same block
        /// without naming it, see [`StreamWriter::fallback`](super::StreamWriter::fallback).
        last: Option<PageId>,
    },
}

/// A page of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageId {
    /// Index of the block.
    pub block: u16,
    /// Number of the page in its block.
    pub page: u32,
}

/// What made the parser stop looking into the stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FallbackReason {
    /// A subsection of the configuration that is not known, or an unknown capability in it.
    #[error("unknown configuration {0:?}")]
    Configuration(Box<str>),
    /// An iterable section with a body of unknown length.
    #[error("unknown iterable section {0:?}")]
    Iterable(Box<str>),
    /// A device section before the end of memory (a background snapshot has no such end).
    #[error("device section {0:?} before the end of memory")]
    Device(Box<str>),
}

/// Where the parser puts what it finds.
#[derive(Debug)]
pub(crate) struct Sink<'a> {
    items: &'a mut Vec<Item>,
    /// Items before this index belong to another buffer.
    own: usize,
}

impl<'a> Sink<'a> {
    pub(crate) fn new(items: &'a mut Vec<Item>) -> Self {
        let own = items.len();
        Self { items, own }
    }

    pub(crate) fn push(&mut self, item: Item) {
        self.items.push(item);
    }

    /// Adds bytes to forward, to those before them where they touch.
    pub(crate) fn forward(&mut self, from: usize, to: usize, boundary: bool) {
        if from == to {
            return;
        }
        match self.items[self.own..].last_mut() {
            Some(Item::Bytes { range, boundary: last }) if range.end == from => {
                range.end = to;
                *last = boundary;
            }
            _ => self.items.push(Item::Bytes { range: from..to, boundary }),
        }
    }
}
