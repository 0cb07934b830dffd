//! Frames of the source into guest memory.

use std::collections::HashMap;
use std::sync::Arc;

use rackferry_dedup_index::{Digest, PAGE_SIZE};
use rackferry_migrator_protocol::frame::{
    BatchView, FETCH_ABSENT, FETCH_PRESENT, FetchReplyView, FrameError, FromSource, HolderRef,
    Kind, Lost, MAX_FETCH_DIGESTS, RunKind, SupplyView,
};
use rackferry_migrator_protocol::session::outstanding::{Outstanding, PageId, ReferenceId};
use rackferry_migrator_protocol::session::target::Event;
use thiserror::Error;
use tokio::net::unix::OwnedWriteHalf;

use super::Fetched;
use super::place::{PlaceError, Placed, Placer};
use super::qemu;
use super::wanted::{Look, Wanted};
use crate::compress::Decompressor;
use crate::limits::FETCH_PATIENCE;
use crate::rack::{Found, Rack, StoreReader};
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
type Reference = (PageId, ReferenceId, Digest, HolderRef);

/// Contents to ask of neighbours, by host: digest and the session that brings it.
pub type Requests = Vec<(u32, Vec<([u8; 16], u64)>)>;

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
    asked: HashMap<ReferenceId, Digest>,
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
            asked: HashMap::new(),
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
                    self.flush().await?;
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

    async fn flush(&mut self) -> Result<(), ReceiveError> {
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
        if ours.0 == root { Ok(()) } else { Err(ReceiveError::Digest { seq: view.seq }) }
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
                        self.references.push((id, reference, Digest(digest), holder));
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

    /// Resolves what this host has; the rest is waited for.
    fn resolve_here(&mut self, seq: u64) -> Result<(), ReceiveError> {
        if self.references.is_empty() {
            if !self.resolved.contains(&seq) {
                self.resolved.push(seq);
            }
            return Ok(());
        }
        let start = CpuMoment::now();
        let references = std::mem::take(&mut self.references);
        let mut reader = std::mem::take(&mut self.reader);
        self.wanted_here.clear();
        self.wanted_here.extend(references.iter().map(|(_, _, digest, _)| *digest));
        self.rack.store.read(&self.rack.hasher, &self.wanted_here, &mut reader);
        add(&self.counters.local_bytes, reader.pages().len() * PAGE_SIZE);
        self.place_found(&references, reader.found(), reader.pages())?;
        for ((page, reference, digest, holder), state) in references.iter().zip(reader.states()) {
            if *state == Found::Here {
                self.settle(*page, *reference);
                continue;
            }
            self.wanted.add(*digest, *holder, *page, *reference);
            // What this session brought itself has come before its references: if it is not here it is gone.
            let gone = *state == Found::Gone && holder.host == self.rack.own_host;
            if gone || holder.session == self.session {
                self.ask_source(*digest);
            }
        }
        self.references = references;
        self.reader = reader;
        lap(&self.counters.local_ns, start);
        Ok(())
    }

    /// Places the contents of those `references` whose positions are `found`, pages next to each other at once; a
    /// newer record of a page goes before.
    fn place_found(
        &mut self,
        references: &[Reference],
        found: &[usize],
        contents: &[[u8; PAGE_SIZE]],
    ) -> Result<(), ReceiveError> {
        let mut at = 0;
        while at < found.len() {
            let newest = |at: usize| {
                let (page, reference, ..) = references[*found.get(at)?];
                self.outstanding.is_newest(page, reference).then_some(page)
            };
            let Some(first) = newest(at) else {
                at += 1;
                continue;
            };
            let follows = |n: &usize| {
                newest(at + n).is_some_and(|page| {
                    page.block == first.block && page.page as usize == first.page as usize + n
                })
            };
            let count = 1 + (1..).take_while(follows).count();
            self.placer.pages(first, &contents[at..at + count])?;
            at += count;
        }
        Ok(())
    }

    /// The content of a reference is in place, or a newer record of its page.
    fn settle(&mut self, page: PageId, reference: ReferenceId) {
        if self.outstanding.settle(page, reference) {
            self.resolved.push(reference.seq);
            self.ack_due = true;
        }
    }

    /// A content arrived that any number of pages wait for.
    fn settle_all(
        &mut self,
        digest: Digest,
        content: &[u8; PAGE_SIZE],
    ) -> Result<(), ReceiveError> {
        let waiters = self.wanted.take(&digest);
        // Noted where it lies now, so that the next reference to it is resolved on this host.
        let lies = waiters.iter().find(|(page, r)| self.outstanding.is_newest(*page, *r)).copied();
        for (page, reference) in waiters {
            if self.outstanding.is_newest(page, reference) {
                self.placer.pages(page, std::slice::from_ref(content))?;
            }
            self.settle(page, reference);
        }
        if let Some((page, _)) = lies {
            if let Some(memory) = self.placer.memory_of(page.block) {
                self.entries.entry(memory).or_default().push((digest, page.page));
            } else {
                self.rack.store.keep(&[digest], std::slice::from_ref(content))?;
            }
        }
        Ok(())
    }

    fn supply(&mut self, payload: &[u8]) -> Result<(), ReceiveError> {
        let view = SupplyView::decode(payload)?;
        let mut decompressor = self.decompressor.take();
        let data = self.content(view.zstd, view.data, view.pages(), &mut decompressor)?;
        let (pages, _) = data.as_chunks::<PAGE_SIZE>();
        for (lost, content) in view.entries().zip(pages) {
            let reference = ReferenceId { seq: lost.seq, index: lost.index };
            let Some(digest) = self.asked.remove(&reference) else { continue };
            if self.rack.hasher.digest(content) != digest {
                return Err(ReceiveError::Digest { seq: lost.seq });
            }
            self.settle_all(digest, content)?;
        }
        self.decompressor = decompressor;
        self.note_contents();
        Ok(())
    }

    /// A neighbour has answered.
    pub async fn fetched(&mut self, fetched: &Fetched) -> Result<(), ReceiveError> {
        let (pages, _) = fetched.pages.as_chunks::<PAGE_SIZE>();
        let mut pages = pages.iter();
        let start = CpuMoment::now();
        for (digest, state) in fetched.wanted.iter().zip(&fetched.states) {
            match *state {
                FETCH_PRESENT => {
                    let Some(content) = pages.next() else { break };
                    add(&self.counters.fetched_bytes, PAGE_SIZE);
                    self.settle_all(*digest, content)?;
                }
                FETCH_ABSENT => self.ask_source(*digest),
                _ => {
                    if self.wanted.pending(digest) {
                        self.ask_source(*digest);
                    }
                }
            }
        }
        lap(&self.counters.place_ns, start);
        self.note_contents();
        if self.placer.out.len() >= WRITE_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    fn ask_source(&mut self, digest: Digest) {
        if let Some(reference) = self.wanted.lost(&digest) {
            self.asked.insert(reference, digest);
            self.lost.push(Lost { seq: reference.seq, index: reference.index });
        }
    }

    /// Looks for due contents in this host's memories; returns what must be asked of neighbours (at most `room`
    /// requests) and of the source.
    pub async fn look(&mut self, room: usize) -> Result<(Requests, Vec<Lost>), ReceiveError> {
        let mut requests: Requests = Vec::new();
        if room > 0 && !self.wanted.is_idle() {
            let mut due = Vec::new();
            self.wanted.take_due(self.rack.own_host, &mut due);
            let here: Vec<_> =
                due.iter().filter(|d| d.2 == Look::Here).map(|d| (d.0, d.1)).collect();
            self.look_here(&here)?;
            let mut by_host: HashMap<u32, Vec<([u8; 16], u64)>> = HashMap::new();
            for (digest, holder, look) in due {
                if let Look::There(host) = look {
                    by_host.entry(host).or_default().push((digest.0, holder.session));
                }
            }
            for (host, wanted) in by_host {
                for some in wanted.chunks(MAX_FETCH_DIGESTS) {
                    if requests.len() < room {
                        requests.push((host, some.to_vec()));
                    } else {
                        some.iter().for_each(|(d, _)| self.wanted.postpone(&Digest(*d)));
                    }
                }
            }
        }
        Ok((requests, std::mem::take(&mut self.lost)))
    }

    fn look_here(&mut self, due: &[(Digest, HolderRef)]) -> Result<(), ReceiveError> {
        if due.is_empty() {
            return Ok(());
        }
        let start = CpuMoment::now();
        let digests: Vec<Digest> = due.iter().map(|d| d.0).collect();
        let mut reader = std::mem::take(&mut self.reader);
        self.rack.store.read(&self.rack.hasher, &digests, &mut reader);
        add(&self.counters.local_bytes, reader.pages().len() * PAGE_SIZE);
        for (i, content) in reader.found().iter().zip(reader.pages()) {
            self.settle_all(digests[*i], content)?;
        }
        for ((digest, holder), state) in due.iter().zip(reader.states()) {
            let lost = match state {
                Found::Here => false,
                Found::Gone => true,
                Found::Unknown => !self.rack.expects(holder.session) || self.wanted.pending(digest),
            };
            if lost {
                self.ask_source(*digest);
            }
        }
        self.reader = reader;
        lap(&self.counters.local_ns, start);
        self.note_contents();
        Ok(())
    }
}

/// Asks a neighbour for contents and verifies what comes. Whatever goes wrong counts as absent.
pub async fn fetch(
    rack: &Rack,
    counters: &Counters,
    host: u32,
    wanted: Vec<([u8; 16], u64)>,
) -> Fetched {
    let digests: Vec<Digest> = wanted.iter().map(|w| Digest(w.0)).collect();
    let nothing = || Fetched {
        wanted: digests.clone(),
        states: vec![FETCH_ABSENT; digests.len()],
        pages: Vec::new(),
    };
    let Some(answer) = rack.fetch(host, wanted).await else { return nothing() };
    let Ok(Ok(payload)) = tokio::time::timeout(FETCH_PATIENCE, answer).await else {
        return nothing();
    };
    let Ok(view) = FetchReplyView::decode(&payload) else { return nothing() };
    if view.states.len() != digests.len() {
        return nothing();
    }
    let (pages, _) = view.pages.as_chunks::<PAGE_SIZE>();
    let refs: Vec<&[u8; PAGE_SIZE]> = pages.iter().collect();
    let mut actual = Vec::with_capacity(refs.len());
    rack.hasher.digest_batch(&refs, &mut actual);
    let mut states = view.states.to_vec();
    let mut matching = Vec::with_capacity(view.pages.len());
    let present = states.iter_mut().zip(&digests).filter(|(s, _)| **s == FETCH_PRESENT);
    for (((state, wanted), page), actual) in present.zip(pages).zip(&actual) {
        if wanted == actual {
            matching.extend_from_slice(page);
        } else {
            add(&counters.verify_failures, 1);
            *state = FETCH_ABSENT;
        }
    }
    Fetched { wanted: digests, states, pages: matching }
}
