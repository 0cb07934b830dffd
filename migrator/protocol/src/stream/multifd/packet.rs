//! What stands on a channel: one init packet, then headers with their pages behind them.

use super::super::blocks::Blocks;
use super::super::error::{Malformed, Problem, Refusal};
use super::super::wire::{Cursor, Halt, PAGE_SIZE, RAM_FLAGS, STREAM_MAGIC, Step};

const MAGIC: u32 = 0x1122_3344;
const VERSION: u32 = 1;
const FLAG_SYNC: u32 = 0x01;
const COMPRESSION: u32 = 0x3e;
const FLAG_DEVICE_STATE: u32 = 0x40;
const NAME_LEN: usize = 256;
/// Bytes at the end of the init packet.
const UNUSED: usize = 7 + 32;

/// Bytes of the init packet.
pub const INIT_LEN: usize = 64;
/// Most pages of a packet.
pub const PACKET_PAGES: usize = 128;

/// What a connection to the migration socket turns out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelKind {
    /// The main channel, for [`StreamParser`](crate::stream::StreamParser).
    Main,
    /// A multifd channel.
    Multifd,
    /// Neither: a postcopy-preempt channel, or no QEMU at all. To be refused.
    Unknown,
}

impl ChannelKind {
    /// Tells by the first bytes. Channels connect in any order.
    pub fn classify(first: [u8; 4]) -> Self {
        match u32::from_be_bytes(first) {
            STREAM_MAGIC => Self::Main,
            MAGIC => Self::Multifd,
            _ => Self::Unknown,
        }
    }
}

/// The init packet of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Init {
    /// UUID of the VM; zeros if it has none.
    pub uuid: [u8; 16],
    /// Number of the channel.
    pub channel: u8,
}

impl Init {
    pub(super) fn read(cursor: &mut Cursor<'_>) -> Step<Self> {
        let magic = cursor.be32()?;
        if magic != MAGIC {
            return Err(Malformed::Magic(magic).into());
        }
        let version = cursor.be32()?;
        if version != VERSION {
            return Err(Malformed::Version(version).into());
        }
        let init = Self { uuid: cursor.array()?, channel: cursor.u8()? };
        cursor.take(UNUSED)?;
        Ok(init)
    }
}

/// The header of a packet. `normal_pages().len() * 4096` bytes follow it, the pages' content in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketHeader {
    /// Whether the channel reaches a barrier *behind* this packet's pages (QEMU before 9.0 puts pages in such packets too).
    pub sync: bool,
    /// Index of the block all its pages belong to; without meaning if it has no pages.
    pub block: u16,
    normal: usize,
    zero: usize,
    pages: [u32; PACKET_PAGES],
}

impl PacketHeader {
    /// Bytes of a header.
    pub const LEN: usize = 320 + PACKET_PAGES * 8;

    /// Reads a header.
    ///
    /// # Errors
    /// If it is not well-formed, uses compression, carries device state, or names pages outside `blocks`. The offset of
    /// the error is relative to the header.
    pub fn parse(
        bytes: &[u8; Self::LEN],
        blocks: &Blocks,
    ) -> Result<Self, crate::stream::StreamError> {
        let mut cursor = Cursor::new(bytes, 0);
        Self::read(&mut cursor, blocks).map_err(|halt| {
            let problem = match halt {
                Halt::Stop(problem) => problem,
                Halt::More => Problem::Malformed(Malformed::EarlyEnd),
            };
            crate::stream::StreamError::at(problem, cursor.at as u64)
        })
    }

    /// Pages whose content follows, in order of the content.
    pub fn normal_pages(&self) -> &[u32] {
        &self.pages[..self.normal]
    }

    /// Pages full of zeros, without content.
    pub fn zero_pages(&self) -> &[u32] {
        &self.pages[self.normal..self.normal + self.zero]
    }

    /// Bytes that follow the header. (The header has a field for it, which is stale in some packets.)
    pub fn payload_len(&self) -> usize {
        self.normal * PAGE_SIZE
    }

    pub(super) fn read(cursor: &mut Cursor<'_>, blocks: &Blocks) -> Step<Self> {
        let flags = read_prefix(cursor)?;
        let _allocated = cursor.be32()?;
        let normal = cursor.be32()?;
        let _next_packet_size = cursor.be32()?;
        let _packet_number = cursor.be64()?;
        let zero = cursor.be32()?;
        cursor.take(28)?;
        let name = cursor.take(NAME_LEN)?;
        let offsets = cursor.take(PACKET_PAGES * 8)?;
        let too_many = Malformed::PacketPages { normal, zero };
        let (normal, zero) = match (usize::try_from(normal), usize::try_from(zero)) {
            (Ok(normal), Ok(zero)) if normal.saturating_add(zero) <= PACKET_PAGES => (normal, zero),
            _ => return Err(too_many.into()),
        };
        let mut header =
            Self { sync: flags & FLAG_SYNC != 0, block: 0, normal, zero, pages: [0; PACKET_PAGES] };
        if normal + zero > 0 {
            header.locate(name, offsets, blocks)?;
        }
        Ok(header)
    }

    fn locate(&mut self, name: &[u8], offsets: &[u8], blocks: &Blocks) -> Step<()> {
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        self.block = blocks.find(name).ok_or(Malformed::UnknownBlock)?;
        let known = blocks.get(self.block).ok_or(Malformed::UnknownBlock)?;
        let mut offsets = Cursor::new(offsets, 0);
        for page in &mut self.pages[..self.normal + self.zero] {
            let offset = offsets.be64()?;
            if offset & RAM_FLAGS != 0 || offset >= known.used_length {
                return Err(Malformed::PageOutsideBlock { block: self.block, offset }.into());
            }
            *page = (offset / PAGE_SIZE as u64) as u32;
        }
        Ok(())
    }
}

/// Reads what all kinds of packets have, and refuses the kinds that cannot be carried. Returns the flags.
fn read_prefix(cursor: &mut Cursor<'_>) -> Step<u32> {
    let magic = cursor.be32()?;
    if magic != MAGIC {
        return Err(Malformed::Magic(magic).into());
    }
    let version = cursor.be32()?;
    if version != VERSION {
        return Err(Malformed::Version(version).into());
    }
    let flags = cursor.be32()?;
    if flags & FLAG_DEVICE_STATE != 0 {
        return Err(Refusal::MultifdDeviceState.into());
    }
    if flags & COMPRESSION != 0 {
        return Err(Refusal::MultifdCompression((flags & COMPRESSION) >> 1).into());
    }
    if flags & !FLAG_SYNC != 0 {
        return Err(Malformed::PacketFlags(flags).into());
    }
    Ok(flags)
}
