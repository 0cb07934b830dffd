//! Contents of references that the target could not resolve.

use super::{FrameError, Lost, MAX_BATCH_PAGES, Put, Reader};

/// A received supply, read in place.
#[derive(Debug, Clone, Copy)]
pub struct SupplyView<'a> {
    entries: &'a [u8],
    /// The data is one zstd frame.
    pub zstd: bool,
    /// The pages, in the order of the entries.
    pub data: &'a [u8],
}

/// Appends everything but the data of a supply to `out`: flags `u8`, three zero bytes, entries `u32`, bytes of
/// data `u32`, then batch `u64` and reference index `u32` of each entry.
pub fn encode_supply(lost: &[Lost], zstd: bool, data_len: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&[zstd.into(), 0, 0, 0]);
    out.put_u32(lost.len() as u32);
    out.put_u32(data_len as u32);
    for l in lost {
        out.put_u64(l.seq);
        out.put_u32(l.index);
    }
}

impl<'a> SupplyView<'a> {
    /// Decodes and checks lengths.
    pub fn decode(payload: &'a [u8]) -> Result<Self, FrameError> {
        let mut r = Reader::new(payload);
        let flags = r.u8()?;
        if flags > 1 || r.bytes(3)? != [0; 3] {
            return Err(FrameError::Value { field: "supply flags", value: flags.into() });
        }
        let n = r.u32()? as usize;
        if n > MAX_BATCH_PAGES {
            return Err(FrameError::Count(n));
        }
        let data_len = r.u32()? as usize;
        let view = Self { zstd: flags == 1, entries: r.bytes(n * 12)?, data: r.bytes(data_len)? };
        r.finish()?;
        if !view.zstd && view.data.len() != n * 4096 {
            return Err(FrameError::Value {
                field: "supply length",
                value: view.data.len() as u64,
            });
        }
        Ok(view)
    }

    /// Number of pages.
    pub fn pages(&self) -> usize {
        self.entries.len() / 12
    }

    /// Which references the pages belong to, in order.
    pub fn entries(&self) -> impl Iterator<Item = Lost> + use<'a> {
        self.entries.chunks_exact(12).map(|e| Lost {
            seq: u64::from_le_bytes(e[..8].try_into().expect("8 bytes")),
            index: u32::from_le_bytes(e[8..].try_into().expect("4 bytes")),
        })
    }
}
