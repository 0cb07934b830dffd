//! The small frames of a session connection. Batches have a file of their own.

use super::{FrameError, Kind, Put, Reader};

/// Most RAM blocks a VM may have. QEMU's own guests have fewer than 30.
pub const MAX_BLOCKS: usize = 1024;

/// Digest of a VM's memory blocks, for verify mode.
pub type MemoryDigest = [u8; 16];

/// One RAM block as the source's stream announced it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockInfo {
    /// QEMU's name of the block (`pc.ram`).
    pub name: String,
    /// Bytes in use.
    pub used_length: u64,
}

/// What a source sends besides batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromSource {
    /// The RAM blocks, before the first batch.
    Blocks(Vec<BlockInfo>),
    /// Bytes of QEMU's stream outside RAM.
    Stream(Vec<u8>),
    /// ram's START section up to the end of its block list.
    RamStart {
        /// QEMU's section number, needed to write PART and END.
        section_id: u32,
        /// Its bytes.
        head: Vec<u8>,
    },
    /// Nothing after this concerns RAM.
    RamEnd,
    /// Everything after this is QEMU's stream as it is, RAM records included. `last_block` is the block that
    /// CONTINUE refers to at the source, none if no page was sent yet.
    Fallback {
        /// Index into the block list, or none.
        last_block: Option<u16>,
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
            Self::Blocks(blocks) => {
                out.put_u32(blocks.len() as u32);
                for b in blocks {
                    out.put_u64(b.used_length);
                    out.put_text(&b.name);
                }
                Kind::Blocks
            }
            Self::Stream(bytes) => {
                out.extend_from_slice(bytes);
                Kind::Stream
            }
            Self::RamStart { section_id, head } => {
                out.put_u32(*section_id);
                out.extend_from_slice(head);
                Kind::RamStart
            }
            Self::RamEnd => Kind::RamEnd,
            Self::Fallback { last_block } => {
                out.put_u32(last_block.map_or(u32::MAX, u32::from));
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
            Kind::Blocks => {
                let n = r.count(10)?;
                if n > MAX_BLOCKS {
                    return Err(FrameError::Count(n));
                }
                let block = |r: &mut Reader<'_>| {
                    Ok(BlockInfo { used_length: r.u64()?, name: r.text()?.to_owned() })
                };
                Self::Blocks((0..n).map(|_| block(&mut r)).collect::<Result<_, FrameError>>()?)
            }
            Kind::Stream => return Ok(Self::Stream(payload.to_vec())),
            Kind::RamStart => {
                return Ok(Self::RamStart { section_id: r.u32()?, head: r.rest().to_vec() });
            }
            Kind::RamEnd => Self::RamEnd,
            Kind::Fallback => Self::Fallback {
                last_block: match r.u32()? {
                    u32::MAX => None,
                    n => Some(u16::try_from(n).map_err(|_| FrameError::Count(n as usize))?),
                },
            },
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
                Self::Loaded(Some(r.bytes(16)?.try_into().expect("bytes(16) returns 16 bytes")))
            }
            Kind::Running => Self::Running,
            Kind::Abort => Self::Abort(r.text()?.to_owned()),
            got => return Err(FrameError::Unexpected { got }),
        };
        r.finish()?;
        Ok(frame)
    }
}
