//! From QEMU's socket to batches whose digests are claimed.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BufMut;
use rackferry_dedup_index::{Digest, PAGE_SIZE};
use rackferry_migrator_protocol::frame::Holder;
use rackferry_migrator_protocol::stream::{Item, MAX_LOOKAHEAD, StreamError, StreamParser};
use thiserror::Error;
use tokio::io::AsyncRead;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::io::poll_read_buf;

use super::flow::Flow;
use super::recorder::Recording;
use crate::limits::{GATHER, READ_BYTES, SOURCE_BUFFERS, STREAMING};
use crate::rack::{PendingClaims, Rack, Scope};
use crate::stats::{Counters, CpuMoment, lap, timed};

/// Buffers that are not in use, kept for the next read.
#[derive(Debug, Default)]
pub struct BufPool {
    free: Mutex<Vec<Vec<u8>>>,
}

/// A buffer of QEMU's stream; its memory goes back to the pool when the last user drops it.
#[derive(Debug)]
pub struct PageBuf {
    bytes: Vec<u8>,
    pool: Arc<BufPool>,
}

impl BufPool {
    fn take(self: &Arc<Self>) -> PageBuf {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = free.pop().unwrap_or_else(|| Vec::with_capacity(READ_BYTES + MAX_LOOKAHEAD));
        PageBuf { bytes, pool: self.clone() }
    }
}

impl Drop for PageBuf {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        let mut free = self.pool.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < SOURCE_BUFFERS {
            free.push(bytes);
        }
    }
}

impl PageBuf {
    /// The page at `at`.
    pub fn page(&self, at: usize) -> &[u8; PAGE_SIZE] {
        self.bytes[at..at + PAGE_SIZE].try_into().expect("PAGE_SIZE bytes were sliced")
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// A piece of QEMU's stream on its way to the sender.
#[derive(Debug)]
pub struct Parsed {
    /// The bytes the items point into.
    pub buf: Arc<PageBuf>,
    /// What is in them.
    pub items: Vec<Item>,
    /// Digests of the `Page` items, in order; empty without dedup.
    pub digests: Vec<Digest>,
    /// Claims of those digests that are not zero pages, in order; none if all pages are to be sent.
    pub claims: Option<PendingClaims>,
}

/// Why the stream of the source QEMU cannot be carried on.
#[derive(Debug, Error)]
pub enum PumpError {
    /// The socket failed.
    #[error("reading QEMU's migration stream: {0}")]
    Read(#[from] std::io::Error),
    /// QEMU sent something that cannot be carried.
    #[error("QEMU's migration stream: {0}")]
    Stream(#[from] StreamError),
    /// The session's sender is gone.
    #[error("the session ended")]
    Ended,
}

/// How claims are made; none without dedup.
#[derive(Debug, Clone)]
pub struct Claiming {
    /// The rack whose shards answer.
    pub rack: Arc<Rack>,
    /// Which shards.
    pub scope: Scope,
    /// The crossing of this evacuation.
    pub crossing: u64,
    /// This session and its target host.
    pub claimant: Holder,
}

/// How the stream is to be read at the moment.
#[derive(Debug, Default)]
pub struct Reading {
    /// Microseconds to pause before each read between passes: holds QEMU back while the session waits for its turn.
    brake: AtomicU64,
    /// The VM is stopped.
    straight: watch::Sender<bool>,
}

impl Reading {
    /// Between passes, reads are this far apart, and small; zero lets the stream run.
    pub fn brake(&self, pause: Duration) {
        self.brake.store(pause.as_micros() as u64, Ordering::Relaxed);
    }

    /// From now on pages are sent as they are. The VM is stopped: its last pages are few and its own, and a claim, or
    /// a reference to what another session is still sending, would prolong its pause.
    pub fn go_straight(&self) {
        self.straight.send_replace(true);
    }

    /// Waits for that. Cancel safe.
    pub async fn straight(&self) {
        // The sender is `self`, so it cannot be gone.
        let _ = self.straight.subscribe().wait_for(|straight| *straight).await;
    }

    fn pause(&self) -> Option<Duration> {
        match self.brake.load(Ordering::Relaxed) {
            0 => None,
            us => Some(Duration::from_micros(us)),
        }
    }

    /// Pages are sent as they are.
    pub fn is_straight(&self) -> bool {
        *self.straight.borrow()
    }
}

/// One read while the brake is on and the last pass was small: four empty sections, each of a pass in which QEMU found
/// nothing, or the begin of a page. QEMU is blocked until there is room for more. A pass that is not small is read at
/// full speed, for one that is held up in the middle only grows.
const BRAKED_READ: usize = 72;
/// Pages of a section that ends a small pass. QEMU ends a section every 50 ms in the middle of a pass, too; by then it
/// has sent more.
const SMALL_PASS: usize = 64;
/// One read while the brake is on and a pass may turn out to be small: what follows it waits for the next pause.
const SMALL_READ: usize = 16 << 10;

/// Reads QEMU's stream, takes it apart and claims what is in it.
pub struct Pump<R> {
    socket: R,
    flow: Arc<Flow>,
    claiming: Option<Claiming>,
    counters: Arc<Counters>,
    reading: Arc<Reading>,
    recording: Recording,
    pool: Arc<BufPool>,
    parser: StreamParser,
    /// What the last piece left over.
    carry: Vec<u8>,
    /// Pages since the last end of a section.
    section_pages: usize,
    /// A small pass has ended since the last pause.
    idle: bool,
}

impl<R: AsyncRead + Unpin> Pump<R> {
    /// A pump at the first byte of the stream. `flow` says when batches may be taken in, `claiming` is none without
    /// dedup.
    pub fn new(
        socket: R,
        flow: Arc<Flow>,
        claiming: Option<Claiming>,
        counters: Arc<Counters>,
        reading: Arc<Reading>,
    ) -> Self {
        let (pool, parser) = (Arc::default(), StreamParser::new());
        let carry = Vec::with_capacity(MAX_LOOKAHEAD);
        let recording = None;
        Self {
            socket,
            flow,
            claiming,
            counters,
            reading,
            recording,
            pool,
            parser,
            carry,
            section_pages: 0,
            idle: false,
        }
    }

    /// Records what the stream carries, for verify mode.
    pub fn recording(self, recording: Recording) -> Self {
        Self { recording, ..self }
    }

    /// Runs until QEMU closes its socket (it does after SHUT) or something fails.
    pub async fn run(mut self, out: mpsc::Sender<Parsed>) -> Result<(), PumpError> {
        while let Some(parsed) = self.next().await? {
            out.send(parsed).await.map_err(|_| PumpError::Ended)?;
        }
        Ok(())
    }

    /// The next piece of the stream, its digests claimed; none at the end. Not cancel safe.
    pub async fn next(&mut self) -> Result<Option<Parsed>, PumpError> {
        loop {
            self.flow.may_take().await;
            let mut buf = self.pool.take();
            buf.bytes.extend_from_slice(&self.carry);
            if !self.fill(&mut buf.bytes).await? {
                return Ok(None);
            }
            let start = CpuMoment::now();
            let mut items = Vec::new();
            let used = self.parser.parse(&buf.bytes, &mut items)?;
            lap(&self.counters.parse_ns, start);
            self.carry.clear();
            self.carry.extend_from_slice(&buf.bytes[used..]);
            items.iter().for_each(|item| self.note(item));
            if items.iter().any(|item| !matches!(item, Item::SectionEnd | Item::MultifdFlush)) {
                let parsed = self.digest_and_claim(Arc::new(buf), items).await;
                if let Some(recorder) = &self.recording {
                    recorder.record(&parsed.buf, &parsed.items, &parsed.digests);
                }
                return Ok(Some(parsed));
            }
        }
    }

    /// Where QEMU is in its passes.
    fn note(&mut self, item: &Item) {
        match item {
            Item::Page { .. } | Item::Zero { .. } => self.section_pages += 1,
            Item::SectionEnd => self.idle = std::mem::take(&mut self.section_pages) <= SMALL_PASS,
            _ => {}
        }
    }

    /// Reads what is there, up to a batch; false at the end of the stream.
    async fn fill(&mut self, bytes: &mut Vec<u8>) -> std::io::Result<bool> {
        let mut room = READ_BYTES;
        if let Some(pause) = self.reading.pause() {
            if std::mem::take(&mut self.idle) {
                room = BRAKED_READ;
                tokio::time::sleep(pause).await;
            } else if self.section_pages <= SMALL_PASS {
                room = SMALL_READ;
            }
        }
        let end = bytes.len() + room;
        bytes.reserve(room);
        let before = bytes.len();
        poll_fn(|cx| self.poll_fill(cx, bytes, end)).await?;
        self.gather(bytes, end, before).await?;
        Ok(bytes.len() > before)
    }

    /// While pages stream in, waits a moment for a batch to fill: what is done once a batch (claims at every shard,
    /// frames, wake-ups) costs the same for 20 pages as for 255.
    async fn gather(
        &mut self,
        bytes: &mut Vec<u8>,
        end: usize,
        before: usize,
    ) -> std::io::Result<()> {
        let deadline = Instant::now() + GATHER;
        while (before + STREAMING..end).contains(&bytes.len()) {
            let had = bytes.len();
            let more = poll_fn(|cx| self.poll_fill(cx, bytes, end));
            match timeout_at(deadline, more).await {
                Ok(done) => done?,
                Err(_) => break,
            }
            if bytes.len() == had {
                break;
            }
        }
        Ok(())
    }

    /// Ready as soon as there is something and no more comes at once, or at the end of the stream.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &mut Vec<u8>,
        end: usize,
    ) -> Poll<std::io::Result<()>> {
        let start = CpuMoment::now();
        let before = bytes.len();
        let mut result = Poll::Ready(Ok(()));
        while bytes.len() < end {
            let had = bytes.len();
            let mut room = BufMut::limit(&mut *bytes, end - had);
            match poll_read_buf(Pin::new(&mut self.socket), cx, &mut room) {
                Poll::Ready(Ok(n)) if n > 0 => {}
                Poll::Pending if bytes.len() > before => break,
                other => {
                    result = other.map_ok(drop);
                    break;
                }
            }
        }
        lap(&self.counters.read_ns, start);
        result
    }

    async fn digest_and_claim(&self, buf: Arc<PageBuf>, items: Vec<Item>) -> Parsed {
        let mut parsed = Parsed { buf, items, digests: Vec::new(), claims: None };
        let Some(claiming) = &self.claiming else { return parsed };
        let start = CpuMoment::now();
        let pages: Vec<&[u8; PAGE_SIZE]> = parsed
            .items
            .iter()
            .filter_map(|item| match item {
                Item::Page { at, .. } => Some(parsed.buf.page(*at)),
                _ => None,
            })
            .collect();
        if pages.is_empty() {
            return parsed;
        }
        parsed.digests.reserve(pages.len());
        claiming.rack.hasher.digest_batch(&pages, &mut parsed.digests);
        lap(&self.counters.hash_ns, start);
        if self.reading.is_straight() {
            return parsed;
        }
        let Claiming { rack, scope, crossing, claimant } = claiming;
        let claim = rack.claim(*scope, *crossing, *claimant, &parsed.digests);
        parsed.claims = Some(timed(&self.counters.claim_ns, claim).await);
        parsed
    }
}
