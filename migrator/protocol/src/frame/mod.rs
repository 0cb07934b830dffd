//! The frames that travel between agents: a fixed 24-byte little-endian header and a payload.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | magic `RFRY` |
//! | 4 | 1 | kind ([`Kind`]) |
//! | 5 | 3 | zero |
//! | 8 | 4 | payload length, at most [`MAX_PAYLOAD`] |
//! | 12 | 4 | zero |
//! | 16 | 8 | XXH3-64 of the payload |
//!
//! The first frame of every connection is a [`Hello`], which carries the protocol version; frames of an
//! unknown kind are refused. Lengths are checked here, before anything is allocated for them. The checksum
//! catches what TCP's 16 bits let through; it is no protection against a forger, which is TLS's matter.

mod batch;
mod hello;
mod neighbour;
mod session;
mod supply;
mod wire;

pub use batch::{BatchHead, BatchView, MAX_BATCH_PAGES, Run, RunKind};
pub use hello::{Hello, PROTOCOL_VERSION, Role};
pub use neighbour::{
    ClaimReply, ClaimRequest, FETCH_ABSENT, FETCH_PENDING, FETCH_PRESENT, FetchReplyHead,
    FetchReplyView, FetchRequest, Forget, HoldBack, MAX_CLAIM_DIGESTS, MAX_FETCH_DIGESTS, Revoke,
};
pub use session::{Ack, FromSource, FromTarget, Lost, MemoryDigest};
pub use supply::{SupplyView, encode_supply};
pub use wire::{Put, Reader};

pub use rackferry_dedup_index::{Digest, Holder};

use thiserror::Error;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Bytes of a frame header.
pub const HEADER_LEN: usize = 24;

/// Largest payload that is accepted: a batch of 256 raw pages (1 MiB) and the run table that 1 MiB of
/// QEMU's 9-byte zero records can need in the worst case (116,508 runs of 12 bytes), rounded up.
pub const MAX_PAYLOAD: usize = 4 << 20;

const MAGIC: u32 = u32::from_le_bytes(*b"RFRY");

/// Why bytes from a peer are not a frame of ours.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FrameError {
    /// Not our protocol at all.
    #[error("the peer does not speak Rackferry's page protocol (magic {0:#010x})")]
    Magic(u32),
    /// Reserved header bytes were used: a newer protocol.
    #[error("reserved header bytes are not zero: the peer is newer than this agent")]
    Reserved,
    /// A kind that this version does not know.
    #[error("unknown frame kind {0}")]
    Kind(u8),
    /// A kind that is known but has no business here.
    #[error("frame {got:?} is out of place here")]
    Unexpected {
        /// What came.
        got: Kind,
    },
    /// The payload would be larger than allowed.
    #[error("payload of {0} bytes is over the limit of {MAX_PAYLOAD}")]
    TooLong(usize),
    /// The payload was damaged on the way.
    #[error("checksum of a {kind:?} frame does not match: the payload was damaged on the way")]
    Checksum {
        /// Kind of the damaged frame.
        kind: Kind,
    },
    /// The payload ends before its content does.
    #[error("payload ends early: {wanted} bytes wanted, {left} left")]
    Short {
        /// Bytes the next field needs.
        wanted: usize,
        /// Bytes there are.
        left: usize,
    },
    /// Bytes behind the last field.
    #[error("{0} bytes too many at the end of a payload")]
    Trailing(usize),
    /// A count that no payload can hold or that is over its own limit.
    #[error("count {0} is over its limit")]
    Count(usize),
    /// A text field is not UTF-8.
    #[error("a text field is not UTF-8")]
    Text,
    /// A field has a value outside its range.
    #[error("{field} has the impossible value {value}")]
    Value {
        /// Name of the field.
        field: &'static str,
        /// What the peer sent.
        value: u64,
    },
    /// The peer's version cannot be spoken.
    #[error("the peer speaks version {theirs} of the page protocol, this agent {PROTOCOL_VERSION}")]
    Version {
        /// The peer's version.
        theirs: u16,
    },
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $n:literal),* $(,)?) => {
        /// What a frame is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Kind { $($(#[$doc])* $name = $n),* }

        impl TryFrom<u8> for Kind {
            type Error = FrameError;
            fn try_from(n: u8) -> Result<Self, FrameError> {
                match n { $($n => Ok(Self::$name),)* _ => Err(FrameError::Kind(n)) }
            }
        }
    };
}

kinds! {
    /// First frame of a connection, both ways.
    Hello = 1,
    /// Source: bytes of QEMU's stream that do not concern RAM.
    Stream = 3,
    /// Source: ram's START section, to be forwarded unchanged.
    RamStart = 4,
    /// Source: a batch of pages.
    Batch = 5,
    /// Source: contents of references that the target could not resolve.
    Supply = 6,
    /// Source: ram's END was read; nothing after it concerns RAM.
    RamEnd = 7,
    /// Source: ownership has passed and the source QEMU is stopped for good: run.
    Go = 8,
    /// Either: the move is off.
    Abort = 9,
    /// Target: batches received and resolved.
    Ack = 10,
    /// Target: references that were lost.
    Missing = 11,
    /// Target: bytes of the return path for the source QEMU.
    ReturnPath = 12,
    /// Target: QEMU has loaded everything and is paused.
    Loaded = 13,
    /// Target: the VM runs.
    Running = 14,
    /// Source: from here QEMU's stream is forwarded verbatim, RAM records included.
    Fallback = 15,
    /// Neighbour: claim digests at this index shard.
    Claim = 32,
    /// Neighbour: answer to a claim.
    ClaimReply = 33,
    /// Neighbour: send the contents of digests.
    Fetch = 34,
    /// Neighbour: answer to a fetch.
    FetchReply = 35,
    /// Neighbour: a claim's content is not there.
    Forget = 36,
    /// Neighbour: undo all claims of a session.
    Revoke = 37,
    /// Neighbour: a VM is stopped: leave its source the way to other racks.
    HoldBack = 38,
}

/// A decoded frame header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the payload is.
    pub kind: Kind,
    /// Bytes of payload that follow; never more than [`MAX_PAYLOAD`].
    pub len: usize,
    checksum: u64,
}

impl Header {
    /// Decodes and checks a header; the length is safe to allocate afterwards.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, FrameError> {
        let mut r = Reader::new(bytes);
        let magic = r.u32()?;
        if magic != MAGIC {
            return Err(FrameError::Magic(magic));
        }
        let kind = r.u8()?;
        if r.bytes(3)? != [0; 3] {
            return Err(FrameError::Reserved);
        }
        let kind = Kind::try_from(kind)?;
        let len = r.u32()? as usize;
        if len > MAX_PAYLOAD {
            return Err(FrameError::TooLong(len));
        }
        if r.u32()? != 0 {
            return Err(FrameError::Reserved);
        }
        Ok(Self { kind, len, checksum: r.u64()? })
    }

    /// Checks the payload that came with this header.
    pub fn check(&self, payload: &[u8]) -> Result<(), FrameError> {
        if xxh3_64(payload) == self.checksum {
            Ok(())
        } else {
            Err(FrameError::Checksum { kind: self.kind })
        }
    }
}

/// The header of a frame whose payload is the concatenation of `parts` (so that pages can go to the socket
/// from where they lie).
///
/// # Panics
/// If the parts are together longer than [`MAX_PAYLOAD`]: our own senders keep below it.
pub fn header<'a>(kind: Kind, parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; HEADER_LEN] {
    let mut hash = Xxh3::new();
    let mut len = 0;
    for part in parts {
        hash.update(part);
        len += part.len();
    }
    assert!(len <= MAX_PAYLOAD, "a {kind:?} frame of {len} bytes was built");
    let mut out = [0; HEADER_LEN];
    out[..4].copy_from_slice(&MAGIC.to_le_bytes());
    out[4] = kind as u8;
    out[8..12].copy_from_slice(&(len as u32).to_le_bytes());
    out[16..].copy_from_slice(&hash.digest().to_le_bytes());
    out
}

/// Appends a whole frame to `out`.
pub fn put_frame(kind: Kind, payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&header(kind, [payload]));
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests;
