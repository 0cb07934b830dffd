//! The incremental parser of one channel.

use super::super::blocks::Blocks;
use super::super::error::{Malformed, Problem, StreamError};
use super::super::wire::{Cursor, Halt, PAGE_SIZE, Step};
use super::packet::{INIT_LEN, Init, PacketHeader};

/// A piece of a multifd channel. Positions are indices into the buffer given to the same call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelItem {
    /// The channel says which one it is; always the first item.
    Init(Init),
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
    /// The channel has reached a barrier; see [`MultifdBarrier`](super::MultifdBarrier).
    Sync,
}

/// Takes a multifd channel apart, as its bytes arrive. It keeps no bytes and copies no content.
#[derive(Clone, Debug, Default)]
pub struct ChannelParser {
    offset: u64,
    state: State,
    failed: Option<StreamError>,
}

#[derive(Clone, Debug, Default)]
enum State {
    #[default]
    Init,
    Header,
    /// Within a packet, before its page number `next` of those with content.
    Pages {
        header: Box<PacketHeader>,
        next: usize,
    },
}

/// What a step was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Sync,
    Other,
}

impl ChannelParser {
    /// A parser at the first byte of a channel.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads as much of `buf` as is complete **and stands before the next barrier**, and appends what it finds to
    /// `items`. Returns how many bytes that were; the rest must be given again, with more bytes behind it, at the
    /// start of the next buffer. If the last item is [`ChannelItem::Sync`], the next call must wait until the barrier lets the channel go on.
    ///
    /// No pages come before the first barrier, so `blocks` may be empty up to there.
    ///
    /// # Errors
    /// If the channel cannot be carried. Every later call returns the same error.
    pub fn parse(
        &mut self,
        buf: &[u8],
        blocks: &Blocks,
        items: &mut Vec<ChannelItem>,
    ) -> Result<usize, StreamError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let mut at = 0;
        loop {
            match self.step(buf, &mut at, blocks, items) {
                Ok(Found::Sync) => break,
                Ok(Found::Other) => {}
                Err(Halt::More) => break,
                Err(Halt::Stop(problem)) => return Err(self.fail(problem, at)),
            }
        }
        self.offset += at as u64;
        Ok(at)
    }

    /// To be called at the end of the channel, with the number of bytes that were not consumed.
    ///
    /// # Errors
    /// If it ends within a packet.
    pub fn finish(&self, unconsumed: usize) -> Result<(), StreamError> {
        match (&self.failed, &self.state) {
            (Some(error), _) => Err(error.clone()),
            (None, State::Header) if unconsumed == 0 => Ok(()),
            (None, _) => Err(StreamError::at(Malformed::EarlyEnd.into(), self.offset)),
        }
    }

    fn fail(&mut self, problem: Problem, at: usize) -> StreamError {
        let error = StreamError::at(problem, self.offset + at as u64);
        self.failed = Some(error.clone());
        error
    }

    fn step(
        &mut self,
        buf: &[u8],
        at: &mut usize,
        blocks: &Blocks,
        items: &mut Vec<ChannelItem>,
    ) -> Step<Found> {
        let mut cursor = Cursor::new(buf, *at);
        match &mut self.state {
            State::Init => {
                items.push(ChannelItem::Init(Init::read(&mut cursor)?));
                debug_assert_eq!(cursor.at - *at, INIT_LEN);
                self.state = State::Header;
            }
            State::Header => {
                let header = Box::new(PacketHeader::read(&mut cursor, blocks)?);
                self.state = State::Pages { header, next: 0 };
            }
            State::Pages { header, next } => {
                let block = header.block;
                for &page in &header.normal_pages()[*next..] {
                    let content = cursor.at;
                    cursor.take(PAGE_SIZE)?;
                    items.push(ChannelItem::Page { block, page, at: content });
                    *next += 1;
                    *at = cursor.at;
                }
                let zeros = header.zero_pages().iter();
                items.extend(zeros.map(|&page| ChannelItem::Zero { block, page }));
                let sync = header.sync;
                self.state = State::Header;
                if sync {
                    items.push(ChannelItem::Sync);
                    return Ok(Found::Sync);
                }
            }
        }
        *at = cursor.at;
        Ok(Found::Other)
    }
}
