//! The incremental reader of return path messages.

use super::barrier::BarrierError;
use super::message::{
    BITMAP_END, Message, PONG, RECV_BITMAP, REQ_PAGES, REQ_PAGES_ID, RESUME_ACK, SHUT,
    SWITCHOVER_ACK,
};
use crate::stream::blocks::read_name;
use crate::stream::wire::{Cursor, Halt};

/// Longest payload of a message, without the bitmap of RECV_BITMAP.
pub const MAX_MESSAGE: usize = 512;
/// Most bytes of a RECV_BITMAP's bitmap: enough for a block of 1 TiB.
pub const MAX_BITMAP: u64 = 32 << 20;

const MESSAGE_HEAD: usize = 4;

/// The return path cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReturnPathError {
    /// A type of message that is not known.
    #[error("return path message of type {0}")]
    Type(u16),
    /// A payload of the wrong form or too long.
    #[error("return path message of type {kind} with {len} bytes is malformed")]
    Payload {
        /// Type of the message.
        kind: u16,
        /// Bytes of its payload.
        len: usize,
    },
    /// A bitmap that is too long.
    #[error("bitmap of {0} bytes; the limit is {MAX_BITMAP}")]
    BitmapLength(u64),
    /// A bitmap that does not end with its mark.
    #[error("bitmap ends with {0:#x}")]
    BitmapEnd(u64),
    /// An answer to a barrier that does not wait for one.
    #[error(transparent)]
    Barrier(#[from] BarrierError),
}

/// Reads return path messages as their bytes arrive. Keeps the bytes of a message that is not complete,
/// [`MAX_BITMAP`] and a little at most.
#[derive(Debug, Default)]
pub struct ReturnPathParser {
    pending: Vec<u8>,
    /// Bytes of `pending` before which reading again is of no use.
    wanted: usize,
    failed: Option<ReturnPathError>,
}

impl ReturnPathParser {
    /// A parser at the first byte.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads `bytes`, all of them, and appends the messages that are complete.
    ///
    /// # Errors
    /// If they are no messages. Every later call returns the same error.
    pub fn push(
        &mut self,
        mut bytes: &[u8],
        messages: &mut Vec<Message>,
    ) -> Result<(), ReturnPathError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        loop {
            // Taking no more than is wanted keeps `pending` bounded by one message.
            let missing = self.wanted.max(MESSAGE_HEAD).saturating_sub(self.pending.len());
            let (now, later) = bytes.split_at(missing.min(bytes.len()));
            self.pending.extend_from_slice(now);
            bytes = later;
            if now.len() < missing {
                return Ok(());
            }
            match read(&self.pending) {
                Ok(Read::Message(message)) => {
                    messages.push(message);
                    self.pending.clear();
                    self.wanted = 0;
                }
                Ok(Read::Want(len)) => self.wanted = len,
                Err(error) => {
                    self.failed = Some(error.clone());
                    return Err(error);
                }
            }
        }
    }
}

enum Read {
    Message(Message),
    /// The message has at least so many bytes.
    Want(usize),
}

fn read(bytes: &[u8]) -> Result<Read, ReturnPathError> {
    let Some(([t0, t1, l0, l1], rest)) = bytes.split_first_chunk::<MESSAGE_HEAD>() else {
        return Ok(Read::Want(MESSAGE_HEAD));
    };
    let kind = u16::from_be_bytes([*t0, *t1]);
    let len = usize::from(u16::from_be_bytes([*l0, *l1]));
    if !(SHUT..=SWITCHOVER_ACK).contains(&kind) {
        return Err(ReturnPathError::Type(kind));
    }
    let malformed = ReturnPathError::Payload { kind, len };
    if len > MAX_MESSAGE {
        return Err(malformed);
    }
    let Some((payload, trailer)) = rest.split_at_checked(len) else {
        return Ok(Read::Want(MESSAGE_HEAD + len));
    };
    if kind == RECV_BITMAP {
        return read_bitmap(MESSAGE_HEAD + len, payload, trailer, malformed);
    }
    let mut cursor = Cursor::new(payload, 0);
    let message = read_payload(kind, &mut cursor).map_err(|_| malformed.clone())?;
    if cursor.remaining() > 0 {
        return Err(malformed);
    }
    Ok(Read::Message(message))
}

fn read_payload(kind: u16, cursor: &mut Cursor<'_>) -> Result<Message, Halt> {
    Ok(match kind {
        SHUT => Message::Shut(cursor.be32()?),
        PONG => Message::Pong(cursor.be32()?),
        RESUME_ACK => Message::ResumeAck(cursor.be32()?),
        REQ_PAGES | REQ_PAGES_ID => {
            let start = cursor.be64()?;
            let len = cursor.be32()?;
            let block = if kind == REQ_PAGES { None } else { Some(read_name(cursor)?) };
            Message::ReqPages { block, start, len }
        }
        _ => Message::SwitchoverAck,
    })
}

/// Outside the message's own length a bitmap follows: its length, its bytes, a mark.
fn read_bitmap(
    before: usize,
    payload: &[u8],
    trailer: &[u8],
    malformed: ReturnPathError,
) -> Result<Read, ReturnPathError> {
    let mut cursor = Cursor::new(payload, 0);
    let Ok(block) = read_name(&mut cursor) else { return Err(malformed) };
    if cursor.remaining() > 0 {
        return Err(malformed);
    }
    let mut cursor = Cursor::new(trailer, 0);
    let Ok(len) = cursor.be64() else { return Ok(Read::Want(before + 8)) };
    if len > MAX_BITMAP {
        return Err(ReturnPathError::BitmapLength(len));
    }
    let len = len as usize;
    let (Ok(bitmap), Ok(end)) = (cursor.take(len), cursor.be64()) else {
        return Ok(Read::Want(before + 8 + len + 8));
    };
    if end != BITMAP_END {
        return Err(ReturnPathError::BitmapEnd(end));
    }
    Ok(Read::Message(Message::RecvBitmap { block, bitmap: bitmap.into() }))
}
