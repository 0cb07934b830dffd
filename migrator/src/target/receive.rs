//! Frames of the source into guest memory.

mod resolve;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use rackferry_dedup_index::{Digest, PAGE_SIZE};
use rackferry_migrator_protocol::frame::{
    BatchView, FrameError, FromSource, Holder, Kind, Lost, RunKind,
};
use rackferry_migrator_protocol::session::outstanding::{Outstanding, PageId, ReferenceId};
use rackferry_migrator_protocol::session::target::Event;
use thiserror::Error;
use tokio::net::unix::OwnedWriteHalf;

use super::place::{PlaceError, Placed, Placer};
use super::qemu;
use super::wanted::Wanted;
use crate::compress::Decompressor;
use crate::rack::{Rack, StoreReader};
use crate::stats::{Counters, CpuMoment, add, lap};

/// Bytes for QEMU that are collected before they are written.
const WRITE_BYTES: usize = 256 << 10;

/// Why a move cannot go on at the target.
#[derive(Debug, Error)]
pub enum ReceiveError {
    /// The source sent something that is not the protocol.
    #[error("the source's frames: {0}")]
    Frame(#[from] FrameError),
    /// Batches must come in order, none left out.
    #[error("batch {got} came where {expected} was due")]
    Order {
        /// What came.
        got: u64,
        /// What was due.
        expected: u64,
    },
    /// A page was damaged on the way, or the source's hash is wrong.
    #[error("content of batch {seq} does not match its digest")]
    Digest {
        /// Number of the batch.
        seq: u64,
    },
    /// ram's END came while references were outstanding.
    #[error("the source ended guest memory with {0} references unresolved")]
    Unresolved(usize),
    /// Placing failed.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// A content could not be kept for others.
    #[error("keeping content for others: {0}")]
    Keep(#[from] crate::memory::MemoryError),
    /// Decompression failed, or QEMU's socket did.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// A reference of the batch at hand.
type Reference = (PageId, ReferenceId, Digest, Holder);

/// Contents to ask of neighbours, by host: digest and the session that brings it.
pub type Requests = Vec<(u32, Vec<(Digest, u64)>)>;

/// The receiving half of a target session.
pub struct Receiver {
    session: u64,
    placer: Placer,
    rack: Arc<Rack>,
    counters: Arc<Counters>,
    outstanding: Outstanding,
    /// Contents that references wait for.
    pub wanted: Wanted,
    /// QEMU's migration socket.
    pub qemu: Option<OwnedWriteHalf>,
    decompressor: Option<Decompressor>,
    reader: StoreReader,
    digests: Vec<Digest>,
    references: Vec<Reference>,
    wanted_here: Vec<Digest>,
    entries: HashMap<u32, Vec<(Digest, u32)>>,
    /// References that wait, whether the source was asked or not: it may supply them unasked.
    open: HashMap<ReferenceId, Digest>,
    lost: Vec<Lost>,
    next_seq: u64,
    resolved: Vec<u64>,
    ack_due: bool,
}

impl Receiver {
    /// Nothing received yet.
    pub fn new(
        session: u64,
        placed: Vec<Placed>,
        rack: Arc<Rack>,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            session,
            placer: Placer::new(placed),
            rack,
            counters,
            outstanding: Outstanding::default(),
            wanted: Wanted::default(),
            qemu: None,
            decompressor: None,
            reader: StoreReader::default(),
            digests: Vec::new(),
            references: Vec::new(),
            wanted_here: Vec::new(),
            entries: HashMap::new(),
            open: HashMap::new(),
            lost: Vec::new(),
            next_seq: 0,
            resolved: Vec::new(),
            ack_due: false,
        }
    }

    /// Handles one frame; some are for the state machine.
    pub async fn frame(
        &mut self,
        kind: Kind,
        payload: &[u8],
    ) -> Result<Option<Event>, ReceiveError> {
        match kind {
            Kind::Batch => self.batch(payload)?,
            Kind::Supply => self.supply(payload)?,
            _ => match FromSource::decode(kind, payload)? {
                FromSource::Stream { boundary, bytes } => {
                    self.placer.forward(&bytes, boundary);
                    self.flush().await?;
                }
                FromSource::RamStart(head) => self.placer.ram_start(&head)?,
                FromSource::RamEnd => {
                    self.all_resolved()?;
                    self.placer.ram_end()?;
                    return Ok(Some(Event::Placed));
                }
                FromSource::Fallback { last } => {
                    self.all_resolved()?;
                    self.placer.fallback(last.map(|(block, page)| PageId { block, page }))?;
                }
                FromSource::Go => return Ok(Some(Event::Go)),
                FromSource::Abort(why) => return Ok(Some(Event::PeerAbort(why))),
            },
        }
        if self.placer.out.len() >= WRITE_BYTES {
            self.flush().await?;
        }
        Ok(None)
    }

    fn all_resolved(&self) -> Result<(), ReceiveError> {
        match self.outstanding.len() {
            0 => Ok(()),
            n => Err(ReceiveError::Unresolved(n)),
        }
    }

    /// Gives QEMU what is collected for it.
    ///
    /// # Errors
    /// If QEMU's socket fails.
    pub async fn flush(&mut self) -> Result<(), ReceiveError> {
        if let Some(qemu) = &mut self.qemu {
            qemu::write(qemu, &mut self.placer.out).await?;
        }
        Ok(())
    }

    /// What the source is to be told about batches, if there is news.
    pub fn take_ack(&mut self) -> Option<(u64, Vec<u64>)> {
        std::mem::take(&mut self.ack_due)
            .then(|| (self.next_seq, std::mem::take(&mut self.resolved)))
    }

    fn batch(&mut self, payload: &[u8]) -> Result<(), ReceiveError> {
        let view = BatchView::decode(payload)?;
        if view.seq != self.next_seq {
            return Err(ReceiveError::Order { got: view.seq, expected: self.next_seq });
        }
        self.next_seq += 1;
        self.ack_due = true;
        add(&self.counters.batches, 1);
        let mut decompressor = self.decompressor.take();
        let data = self.content(view.zstd, view.data, view.raw_pages, &mut decompressor)?;
        self.verify(&view, data)?;
        self.place_runs(&view, data)?;
        self.decompressor = decompressor;
        self.resolve_here(view.seq)
    }

    fn content<'a>(
        &self,
        zstd: bool,
        data: &'a [u8],
        pages: usize,
        decompressor: &'a mut Option<Decompressor>,
    ) -> Result<&'a [u8], ReceiveError> {
        if !zstd {
            return Ok(data);
        }
        let start = CpuMoment::now();
        if decompressor.is_none() {
            *decompressor = Some(Decompressor::new()?);
        }
        let decompressor = decompressor.as_mut().expect("was just made");
        let pages = decompressor.decompress(data, pages)?;
        lap(&self.counters.zstd_ns, start);
        Ok(pages)
    }

    /// Hashes the raw pages of a batch and compares the digest of their digests.
    fn verify(&mut self, view: &BatchView<'_>, data: &[u8]) -> Result<(), ReceiveError> {
        self.digests.clear();
        let Some(root) = view.root else { return Ok(()) };
        let start = CpuMoment::now();
        let (pages, _) = data.as_chunks::<PAGE_SIZE>();
        let pages: Vec<&[u8; PAGE_SIZE]> = pages.iter().collect();
        self.rack.hasher.digest_batch(&pages, &mut self.digests);
        let ours = self.rack.hasher.digest_of_digests(&self.digests);
        lap(&self.counters.hash_ns, start);
        if ours == root { Ok(()) } else { Err(ReceiveError::Digest { seq: view.seq }) }
    }

    /// Puts zeros and raw pages in place and notes references, in the order of the records.
    fn place_runs(&mut self, view: &BatchView<'_>, data: &[u8]) -> Result<(), ReceiveError> {
        let start = CpuMoment::now();
        let (pages, _) = data.as_chunks::<PAGE_SIZE>();
        let (mut raw, mut index) = (0, 0);
        self.references.clear();
        self.outstanding.open_batch(view.seq, view.references() as u32);
        for run in view.runs() {
            let first = PageId { block: run.block, page: run.first };
            self.placer.check(first, run.count)?;
            let count = run.count as usize;
            match run.kind {
                RunKind::Zero => {
                    self.outstanding.overtake(first, run.count);
                    self.placer.zeros(first, run.count)?;
                }
                RunKind::Raw => {
                    self.outstanding.overtake(first, run.count);
                    self.placer.pages(first, &pages[raw..raw + count])?;
                    if let Some(digests) = self.digests.get(raw..raw + count) {
                        if let Some(memory) = self.placer.memory_of(run.block) {
                            let entries = self.entries.entry(memory).or_default();
                            entries.extend(digests.iter().copied().zip(run.first..));
                        } else {
                            self.rack.store.keep(digests, &pages[raw..raw + count])?;
                        }
                    }
                    raw += count;
                }
                RunKind::Reference => {
                    for page in run.first..run.first + run.count {
                        let id = PageId { block: run.block, page };
                        let (digest, holder) = view.reference(index);
                        let reference = ReferenceId { seq: view.seq, index: index as u32 };
                        self.outstanding.wait(id, reference);
                        self.references.push((id, reference, digest, holder));
                        index += 1;
                    }
                }
            }
        }
        lap(&self.counters.place_ns, start);
        self.note_contents();
        Ok(())
    }

    /// Contents that were placed can be referred to from now on.
    fn note_contents(&mut self) {
        let start = CpuMoment::now();
        for (memory, entries) in &mut self.entries {
            if !entries.is_empty() {
                self.rack.store.insert(*memory, entries);
                entries.clear();
            }
        }
        lap(&self.counters.note_ns, start);
    }
}
