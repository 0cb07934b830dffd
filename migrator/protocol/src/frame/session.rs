//! The small frames of a session connection. Batches have a file of their own.

use super::{FrameError, Kind, Put, Reader};

/// Digest of a VM's memory blocks, for verify mode.
pub type MemoryDigest = [u8; 32];

/// What a source sends besides batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromSource {
    /// Bytes of QEMU's stream outside RAM.
    Stream {
        /// A section or command ends with the last of them.
        boundary: bool,
        /// What to forward.
        bytes: Vec<u8>,
    },
    /// ram's START section up to the end of its block list, to be forwarded unchanged.
    RamStart(Vec<u8>),
    /// Nothing after this concerns RAM.
    RamEnd,
    /// Everything after this is QEMU's stream as it is, RAM records included. `last` is the block and number of the
    /// page that QEMU sent last (its records may continue in that block), none if it sent none.
    Fallback {
        /// Block and page.
        last: Option<(u16, u32)>,
    },
    /// The VM may run at the target.
    Go,
    /// The move is off.
    Abort(String),
}

/// What a target sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromTarget {
    /// Progress of batches.
    Ack(Ack),
    /// References that cannot be resolved at the target: send the bytes.
    Missing(Vec<Lost>),
    /// Bytes of the return path (never SHUT, never a PONG of our own).
    ReturnPath(Vec<u8>),
    /// QEMU has loaded everything and is paused. The digest is there in verify mode.
    Loaded(Option<MemoryDigest>),
    /// The VM runs.
    Running,
    /// The move is off.
    Abort(String),
}

/// Batches received in order, and those of them that are resolved (in any order).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ack {
    /// All batches below this number have arrived.
    pub received: u64,
    /// Batches whose pages are all in place.
    pub resolved: Vec<u64>,
}

/// A reference of a batch that was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// Number of the batch.
    pub seq: u64,
    /// Position among the references of the batch.
    pub index: u32,
}

impl FromSource {
    /// Appends the payload to `out` and names its kind.
    pub fn encode(&self, out: &mut Vec<u8>) -> Kind {
        match self {
            Self::Stream { boundary, bytes } => {
                out.put_u8((*boundary).into());
                out.extend_from_slice(bytes);
                Kind::Stream
            }
            Self::RamStart(head) => {
                out.extend_from_slice(head);
                Kind::RamStart
            }
            Self::RamEnd => Kind::RamEnd,
            Self::Fallback { last } => {
                if let Some((block, page)) = last {
                    out.put_u16(*block);
                    out.put_u32(*page);
                }
                Kind::Fallback
            }
            Self::Go => Kind::Go,
            Self::Abort(reason) => {
                out.put_text(reason);
                Kind::Abort
            }
        }
    }

    /// Decodes a frame of a source that is not a batch, a supply or a hello.
    pub fn decode(kind: Kind, payload: &[u8]) -> Result<Self, FrameError> {
        let mut r = Reader::new(payload);
        let frame = match kind {
            Kind::Stream => {
                let boundary = r.u8()? == 1;
                return Ok(Self::Stream { boundary, bytes: r.rest().to_vec() });
            }
            Kind::RamStart => return Ok(Self::RamStart(payload.to_vec())),
            Kind::RamEnd => Self::RamEnd,
            Kind::Fallback if payload.is_empty() => Self::Fallback { last: None },
            Kind::Fallback => Self::Fallback { last: Some((r.u16()?, r.u32()?)) },
            Kind::Go => Self::Go,
            Kind::Abort => Self::Abort(r.text()?.to_owned()),
            got => return Err(FrameError::Unexpected { got }),
        };
        r.finish()?;
        Ok(frame)
    }
}

impl FromTarget {
    /// Appends the payload to `out` and names its kind.
    pub fn encode(&self, out: &mut Vec<u8>) -> Kind {
        match self {
            Self::Ack(ack) => {
                out.put_u64(ack.received);
                out.put_u32(ack.resolved.len() as u32);
                ack.resolved.iter().for_each(|seq| out.put_u64(*seq));
                Kind::Ack
            }
            Self::Missing(lost) => {
                out.put_u32(lost.len() as u32);
                for l in lost {
                    out.put_u64(l.seq);
                    out.put_u32(l.index);
                }
                Kind::Missing
            }
            Self::ReturnPath(bytes) => {
                out.extend_from_slice(bytes);
                Kind::ReturnPath
            }
            Self::Loaded(digest) => {
                if let Some(d) = digest {
                    out.extend_from_slice(d);
                }
                Kind::Loaded
            }
            Self::Running => Kind::Running,
            Self::Abort(reason) => {
                out.put_text(reason);
                Kind::Abort
            }
        }
    }

    /// Decodes a frame of a target.
    pub fn decode(kind: Kind, payload: &[u8]) -> Result<Self, FrameError> {
        let mut r = Reader::new(payload);
        let frame = match kind {
            Kind::Ack => {
                let received = r.u64()?;
                let n = r.count(8)?;
                let resolved = (0..n).map(|_| r.u64()).collect::<Result<_, _>>()?;
                Self::Ack(Ack { received, resolved })
            }
            Kind::Missing => {
                let n = r.count(12)?;
                let lost = |r: &mut Reader<'_>| Ok(Lost { seq: r.u64()?, index: r.u32()? });
                Self::Missing((0..n).map(|_| lost(&mut r)).collect::<Result<_, FrameError>>()?)
            }
            Kind::ReturnPath => return Ok(Self::ReturnPath(payload.to_vec())),
            Kind::Loaded if payload.is_empty() => Self::Loaded(None),
            Kind::Loaded => {
                Self::Loaded(Some(r.bytes(32)?.try_into().expect("bytes(32) returns 32 bytes")))
            }
            Kind::Running => Self::Running,
            Kind::Abort => Self::Abort(r.text()?.to_owned()),
            got => return Err(FrameError::Unexpected { got }),
        };
        r.finish()?;
        Ok(frame)
    }
}
