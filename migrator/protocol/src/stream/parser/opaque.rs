//! Sections that are forwarded unchanged, but whose length must be found out by reading them.

use super::{forward_some, read_footer};
use crate::stream::error::Malformed;
use crate::stream::item::Sink;
use crate::stream::wire::{Cursor, Step};

/// Longest piece of data inside such a section. QEMU's own pieces are at most some MiB.
const MAX_DATA: u64 = 1 << 30;

/// A section being forwarded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opaque {
    section: u32,
    body: Body,
    /// Bytes to forward before the next thing that must be read.
    data: u64,
}

#[derive(Clone, Copy, Debug)]
enum Body {
    DirtyBitmap,
    Vfio,
    VirtioMem,
    /// Only the footer is left.
    Over,
}

impl Opaque {
    pub(super) fn dirty_bitmap(section: u32) -> Self {
        Self { section, body: Body::DirtyBitmap, data: 0 }
    }

    pub(super) fn vfio(section: u32) -> Self {
        Self { section, body: Body::Vfio, data: 0 }
    }

    pub(super) fn virtio_mem(section: u32) -> Self {
        Self { section, body: Body::VirtioMem, data: 0 }
    }

    /// Forwards one piece. Returns what is left of the section, or nothing after its footer.
    pub(super) fn step(
        self,
        buf: &[u8],
        at: &mut usize,
        sink: &mut Sink<'_>,
    ) -> Step<Option<Self>> {
        if self.data > 0 {
            let data = forward_some(self.data, buf, at, sink, false)?;
            return Ok(Some(Self { data, ..self }));
        }
        let mut cursor = Cursor::new(buf, *at);
        let (body, data) = match self.body {
            Body::DirtyBitmap => dirty_bitmap_chunk(&mut cursor)?,
            Body::Vfio => vfio_mark(&mut cursor)?,
            Body::VirtioMem => (Body::Over, virtio_mem_head(&mut cursor)?),
            Body::Over => {
                let end = read_footer(self.section, buf, *at)?;
                sink.forward(*at, end, true);
                *at = end;
                return Ok(None);
            }
        };
        if data > MAX_DATA {
            return Err(Malformed::Length { what: "section data", len: data }.into());
        }
        sink.forward(*at, cursor.at, false);
        *at = cursor.at;
        Ok(Some(Self { section: self.section, body, data }))
    }
}

/// A chunk of QEMU's block-dirty-bitmap migration up to its data.
fn dirty_bitmap_chunk(cursor: &mut Cursor<'_>) -> Step<(Body, u64)> {
    const EOS: u32 = 0x01;
    const ZEROES: u32 = 0x02;
    const BITMAP_NAME: u32 = 0x04;
    const NODE_NAME: u32 = 0x08;
    const START: u32 = 0x10;
    const COMPLETE: u32 = 0x20;
    const BITS: u32 = 0x40;
    const MORE_FLAGS: u8 = 0x80;

    let first = cursor.u8()?;
    let mut flags = u32::from(first);
    if first & MORE_FLAGS != 0 {
        let second = cursor.u8()?;
        flags = flags << 8 | u32::from(second);
        if second & MORE_FLAGS != 0 {
            flags = flags << 16 | u32::from(cursor.be16()?);
        }
    }
    if flags & NODE_NAME != 0 {
        cursor.counted()?;
    }
    if flags & BITMAP_NAME != 0 {
        cursor.counted()?;
    }
    let mut data = 0;
    if flags & START != 0 {
        let _granularity = cursor.be32()?;
        let _bitmap_flags = cursor.u8()?;
    } else if flags & COMPLETE == 0 && flags & BITS != 0 {
        let _sector = cursor.be64()?;
        let _count = cursor.be32()?;
        if flags & ZEROES == 0 {
            data = cursor.be64()?;
        }
    }
    let body = if flags & EOS != 0 { Body::Over } else { Body::DirtyBitmap };
    Ok((body, data))
}

/// A mark in a VFIO device's START or PART, and the length of its data.
fn vfio_mark(cursor: &mut Cursor<'_>) -> Step<(Body, u64)> {
    const END: u64 = 0xffff_ffff_ef10_0001;
    const SETUP: u64 = 0xffff_ffff_ef10_0003;
    const DATA: u64 = 0xffff_ffff_ef10_0004;
    const INIT_DATA_SENT: u64 = 0xffff_ffff_ef10_0005;
    const CONFIG_LOAD_READY: u64 = 0xffff_ffff_ef10_0006;

    match cursor.be64()? {
        SETUP => Ok((Body::Vfio, 0)),
        DATA => Ok((Body::Vfio, cursor.be64()?)),
        END | INIT_DATA_SENT | CONFIG_LOAD_READY => Ok((Body::Over, 0)),
        other => Err(Malformed::VfioMark(other).into()),
    }
}

/// The fixed part of `virtio-mem-device-early`; returns the bytes of its bitmap.
fn virtio_mem_head(cursor: &mut Cursor<'_>) -> Step<u64> {
    let _address = cursor.be64()?;
    let size = cursor.be64()?;
    let block = cursor.be64()?;
    let _node = cursor.be32()?;
    let _plugged = cursor.be64()?;
    if block == 0 || size % block != 0 {
        return Err(Malformed::VirtioMem { size, block }.into());
    }
    Ok((size / block).div_ceil(64) * 8)
}
