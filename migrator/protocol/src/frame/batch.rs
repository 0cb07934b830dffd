//! A batch of pages: runs of zeros, references and raw pages in the order QEMU sent them.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | number of the batch in its session, rising by one |
//! | 8 | 1 | flags: 1 = data is one zstd frame, 2 = root is valid |
//! | 9 | 3 | zero |
//! | 12 | 4 | runs |
//! | 16 | 4 | raw pages, at most [`MAX_BATCH_PAGES`] with the references |
//! | 20 | 4 | references |
//! | 24 | 4 | holders, at most 256 |
//! | 28 | 4 | bytes of data on the wire |
//! | 32 | 16 | root: digest of the digests of the raw pages, in order |
//! | 48 | 12 each | holders: host `u32`, session `u64` |
//! | | 12 each | runs: block `u16`, kind `u8`, zero `u8`, first page `u32`, pages `u32` |
//! | | 16 each | digests of the references, in order |
//! | | 1 each | which holder each reference names |
//! | | | data: the raw pages, in order |

use super::{Digest, FrameError, Holder, Put, Reader};

/// Most pages with content (raw or by reference) in one batch: 1 MiB, what one read of QEMU's stream yields.
pub const MAX_BATCH_PAGES: usize = 256;

/// Most runs of a batch: see [`super::MAX_PAYLOAD`].
const MAX_RUNS: usize = 1 << 17;
const MAX_HOLDERS: usize = 256;
const HOLDER_LEN: usize = 12;
const RUN_LEN: usize = 12;
const FLAG_ZSTD: u8 = 1;
const FLAG_ROOT: u8 = 2;

/// What the pages of a run are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RunKind {
    /// All bytes zero.
    Zero = 0,
    /// Contents are in the batch's data.
    Raw = 1,
    /// Contents are named by digest.
    Reference = 2,
}

/// Pages next to each other in one RAM block, of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Index into the block list.
    pub block: u16,
    /// What the pages are.
    pub kind: RunKind,
    /// First page (offset / 4096).
    pub first: u32,
    /// Number of pages, at least 1; `first + count` fits into `u32`.
    pub count: u32,
}

/// Collects the pages of one batch at the source; reused from batch to batch.
#[derive(Debug, Default)]
pub struct BatchHead {
    runs: Vec<Run>,
    holders: Vec<Holder>,
    digests: Vec<Digest>,
    holder_of: Vec<u8>,
    raw: u32,
}

impl BatchHead {
    /// Forgets all pages, keeps the memory.
    pub fn clear(&mut self) {
        self.runs.clear();
        self.holders.clear();
        self.digests.clear();
        self.holder_of.clear();
        self.raw = 0;
    }

    /// No page at all.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Raw pages so far.
    pub fn raw_pages(&self) -> usize {
        self.raw as usize
    }

    /// References so far.
    pub fn references(&self) -> usize {
        self.digests.len()
    }

    /// Adds a page of zeros.
    pub fn zero(&mut self, block: u16, page: u32) {
        self.push(block, page, RunKind::Zero);
    }

    /// Adds a page whose content the caller appends to the data.
    pub fn raw(&mut self, block: u16, page: u32) {
        self.raw += 1;
        self.push(block, page, RunKind::Raw);
    }

    /// Adds a page by reference. False (and nothing added) if the batch names too many holders already:
    /// send the page raw.
    #[must_use]
    pub fn reference(&mut self, block: u16, page: u32, digest: Digest, holder: Holder) -> bool {
        let known = self.holders.iter().position(|h| *h == holder);
        if known.is_none() && self.holders.len() == MAX_HOLDERS {
            return false;
        }
        let index = known.unwrap_or_else(|| {
            self.holders.push(holder);
            self.holders.len() - 1
        });
        self.digests.push(digest);
        self.holder_of.push(index as u8);
        self.push(block, page, RunKind::Reference);
        true
    }

    fn push(&mut self, block: u16, page: u32, kind: RunKind) {
        if let Some(last) = self.runs.last_mut()
            && (last.block, last.kind) == (block, kind)
            && last.first.checked_add(last.count) == Some(page)
        {
            last.count += 1;
            return;
        }
        self.runs.push(Run { block, kind, first: page, count: 1 });
    }

    /// Appends everything but the data to `out`.
    ///
    /// # Panics
    /// If the batch is over its limits, which the caller's reads of at most 1 MiB rule out.
    pub fn encode(
        &self,
        seq: u64,
        zstd: bool,
        root: Option<Digest>,
        data_len: usize,
        out: &mut Vec<u8>,
    ) {
        assert!(self.raw_pages() + self.references() <= MAX_BATCH_PAGES, "a batch is too large");
        assert!(self.runs.len() <= MAX_RUNS, "a batch has too many runs");
        let flags = if zstd { FLAG_ZSTD } else { 0 } | if root.is_some() { FLAG_ROOT } else { 0 };
        out.put_u64(seq);
        out.extend_from_slice(&[flags, 0, 0, 0]);
        out.put_u32(self.runs.len() as u32);
        out.put_u32(self.raw);
        out.put_u32(self.digests.len() as u32);
        out.put_u32(self.holders.len() as u32);
        out.put_u32(data_len as u32);
        out.extend_from_slice(&root.map_or([0; Digest::LEN], |root| root.0));
        for h in &self.holders {
            out.put_holder(*h);
        }
        for r in &self.runs {
            out.put_u16(r.block);
            out.extend_from_slice(&[r.kind as u8, 0]);
            out.put_u32(r.first);
            out.put_u32(r.count);
        }
        self.digests.iter().for_each(|d| out.extend_from_slice(&d.0));
        out.extend_from_slice(&self.holder_of);
    }
}

/// A received batch, checked once and read in place.
#[derive(Debug, Clone, Copy)]
pub struct BatchView<'a> {
    /// Number of the batch.
    pub seq: u64,
    /// The data is one zstd frame of `raw_pages * 4096` bytes.
    pub zstd: bool,
    /// Digest of the raw pages' digests.
    pub root: Option<Digest>,
    /// Raw pages.
    pub raw_pages: usize,
    /// The raw pages, compressed or not.
    pub data: &'a [u8],
    holders: &'a [u8],
    runs: &'a [u8],
    digests: &'a [u8],
    holder_of: &'a [u8],
}

impl<'a> BatchView<'a> {
    /// Checks every count, kind and index of the payload. Pages are *not* checked against the length of
    /// their block: the payload does not have it.
    pub fn decode(payload: &'a [u8]) -> Result<Self, FrameError> {
        let mut r = Reader::new(payload);
        let seq = r.u64()?;
        let flags = r.u8()?;
        if flags & !(FLAG_ZSTD | FLAG_ROOT) != 0 || r.bytes(3)? != [0; 3] {
            return Err(FrameError::Value { field: "batch flags", value: flags.into() });
        }
        let runs = limited(r.u32()?, MAX_RUNS)?;
        let raw_pages = limited(r.u32()?, MAX_BATCH_PAGES)?;
        let refs = limited(r.u32()?, MAX_BATCH_PAGES - raw_pages)?;
        let holders = limited(r.u32()?, MAX_HOLDERS)?;
        let data_len = r.u32()? as usize;
        let root = r.digest()?;
        let view = Self {
            seq,
            zstd: flags & FLAG_ZSTD != 0,
            root: (flags & FLAG_ROOT != 0).then_some(root),
            raw_pages,
            holders: r.bytes(holders * HOLDER_LEN)?,
            runs: r.bytes(runs * RUN_LEN)?,
            digests: r.bytes(refs * Digest::LEN)?,
            holder_of: r.bytes(refs)?,
            data: r.bytes(data_len)?,
        };
        r.finish()?;
        view.check(refs, holders)?;
        Ok(view)
    }

    fn check(&self, refs: usize, holders: usize) -> Result<(), FrameError> {
        if let Some(bad) = self.holder_of.iter().find(|h| usize::from(**h) >= holders) {
            return Err(FrameError::Value { field: "holder", value: (*bad).into() });
        }
        if !self.zstd && self.data.len() != self.raw_pages * 4096 {
            return Err(FrameError::Value { field: "data length", value: self.data.len() as u64 });
        }
        let (mut raw_seen, mut refs_seen) = (0u64, 0u64);
        for run in self.runs.chunks_exact(RUN_LEN) {
            let run = decode_run(run)?;
            match run.kind {
                RunKind::Zero => {}
                RunKind::Raw => raw_seen += u64::from(run.count),
                RunKind::Reference => refs_seen += u64::from(run.count),
            }
        }
        if raw_seen != self.raw_pages as u64 {
            return Err(FrameError::Value { field: "raw pages in runs", value: raw_seen });
        }
        if refs_seen != refs as u64 {
            return Err(FrameError::Value { field: "references in runs", value: refs_seen });
        }
        Ok(())
    }

    /// The runs, in order.
    pub fn runs(&self) -> impl Iterator<Item = Run> + use<'a> {
        self.runs.chunks_exact(RUN_LEN).map(|b| decode_run(b).expect("decode() checked every run"))
    }

    /// Number of references.
    pub fn references(&self) -> usize {
        self.holder_of.len()
    }

    /// Digest and holder of the `index`-th reference.
    ///
    /// # Panics
    /// If `index` is not below [`Self::references`].
    pub fn reference(&self, index: usize) -> (Digest, Holder) {
        let mut digests = Reader::new(&self.digests[index * Digest::LEN..]);
        let holder = usize::from(self.holder_of[index]) * HOLDER_LEN;
        let mut holders = Reader::new(&self.holders[holder..]);
        let checked = "decode() checked every reference";
        (digests.digest().expect(checked), holders.holder().expect(checked))
    }
}

fn limited(n: u32, limit: usize) -> Result<usize, FrameError> {
    let n = n as usize;
    if n > limit { Err(FrameError::Count(n)) } else { Ok(n) }
}

fn decode_run(bytes: &[u8]) -> Result<Run, FrameError> {
    let mut r = Reader::new(bytes);
    let block = r.u16()?;
    let kind = match r.u8()? {
        0 => RunKind::Zero,
        1 => RunKind::Raw,
        2 => RunKind::Reference,
        n => return Err(FrameError::Value { field: "kind of run", value: n.into() }),
    };
    if r.u8()? != 0 {
        return Err(FrameError::Reserved);
    }
    let (first, count) = (r.u32()?, r.u32()?);
    if count == 0 || first.checked_add(count).is_none() {
        return Err(FrameError::Value { field: "pages of a run", value: count.into() });
    }
    Ok(Run { block, kind, first, count })
}
