//! The messages and how they are written.

pub(super) const SHUT: u16 = 1;
pub(super) const PONG: u16 = 2;
pub(super) const REQ_PAGES_ID: u16 = 3;
pub(super) const REQ_PAGES: u16 = 4;
pub(super) const RECV_BITMAP: u16 = 5;
pub(super) const RESUME_ACK: u16 = 6;
pub(super) const SWITCHOVER_ACK: u16 = 7;
/// Ends the bitmap behind RECV_BITMAP.
pub(super) const BITMAP_END: u64 = 0x0123_4567_89ab_cdef;

/// A message of the return path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The destination's last word: 0 if it has loaded everything.
    Shut(u32),
    /// The answer to a PING with this value.
    Pong(u32),
    /// The destination's guest waits for memory (postcopy).
    ReqPages {
        /// The block's name; the block of the last request where it is missing.
        block: Option<Box<str>>,
        /// Byte offset in the block.
        start: u64,
        /// Bytes wanted.
        len: u32,
    },
    /// Which pages of a block the destination has (postcopy recovery).
    RecvBitmap {
        /// The block's name, at most 255 bytes.
        block: Box<str>,
        /// One bit for a page, least significant first.
        bitmap: Box<[u8]>,
    },
    /// The destination is ready to go on (postcopy recovery).
    ResumeAck(u32),
    /// The destination agrees to the switchover (QEMU 8.1).
    SwitchoverAck,
}

impl Message {
    /// Appends the message as it goes over the wire. Names are cut to the 255 bytes that a name can have.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Shut(code) => put(SHUT, &[&code.to_be_bytes()], out),
            Self::Pong(value) => put(PONG, &[&value.to_be_bytes()], out),
            Self::ReqPages { block: None, start, len } => {
                put(REQ_PAGES, &[&start.to_be_bytes(), &len.to_be_bytes()], out);
            }
            Self::ReqPages { block: Some(block), start, len } => {
                let (count, name) = counted(block);
                let parts = [&start.to_be_bytes()[..], &len.to_be_bytes(), &count, name];
                put(REQ_PAGES_ID, &parts, out);
            }
            Self::RecvBitmap { block, bitmap } => {
                let (count, name) = counted(block);
                put(RECV_BITMAP, &[&count, name], out);
                out.extend_from_slice(&(bitmap.len() as u64).to_be_bytes());
                out.extend_from_slice(bitmap);
                out.extend_from_slice(&BITMAP_END.to_be_bytes());
            }
            Self::ResumeAck(value) => put(RESUME_ACK, &[&value.to_be_bytes()], out),
            Self::SwitchoverAck => put(SWITCHOVER_ACK, &[], out),
        }
    }
}

fn put(kind: u16, parts: &[&[u8]], out: &mut Vec<u8>) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&(len as u16).to_be_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
}

fn counted(name: &str) -> ([u8; 1], &[u8]) {
    let len = name.len().min(usize::from(u8::MAX));
    ([len as u8], &name.as_bytes()[..len])
}
