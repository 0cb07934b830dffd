//! From QEMU's socket to batches whose digests are claimed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::BufMut;
use rackferry_dedup_index::{Digest, PAGE_SIZE};
use rackferry_migrator_protocol::frame::HolderRef;
use rackferry_migrator_protocol::stream::{Item, MAX_LOOKAHEAD, StreamError, StreamParser};
use thiserror::Error;
use tokio::io::Interest;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::mpsc;

use super::flow::Flow;
use crate::limits::{READ_BYTES, READ_BYTES_MIN, SOURCE_BUFFERS};
use crate::rack::{PendingClaims, Rack, Scope};
use crate::stats::{Counters, lap};

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
    /// Claims of those digests that are not zero pages, in order.
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
    pub claimant: HolderRef,
}

/// Holds QEMU back while the session waits for its turn: microseconds to pause before each small read.
#[derive(Debug, Default)]
pub struct Brake(AtomicU64);

impl Brake {
    /// Reads are this far apart, and small; zero lets the stream run.
    pub fn set(&self, pause: Duration) {
        self.0.store(pause.as_micros() as u64, Ordering::Relaxed);
    }

    fn get(&self) -> Option<Duration> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            us => Some(Duration::from_micros(us)),
        }
    }
}

/// One small read while the brake is on: a few empty sections, or a page.
const BRAKED_READ: usize = 8 << 10;

/// The task that reads QEMU's socket until it closes.
pub struct Pump {
    /// QEMU's end of the migration.
    pub socket: OwnedReadHalf,
    /// Where batches go.
    pub out: mpsc::Sender<Parsed>,
    /// When batches may be taken in.
    pub flow: Arc<Flow>,
    /// Dedup, if it is on.
    pub claiming: Option<Claiming>,
    /// Counters of the session.
    pub counters: Arc<Counters>,
    /// Holds QEMU back.
    pub brake: Arc<Brake>,
}

impl Pump {
    /// Runs until QEMU closes its socket (it does after SHUT) or something fails.
    pub async fn run(self) -> Result<(), PumpError> {
        let pool = Arc::new(BufPool::default());
        let mut parser = StreamParser::new();
        let mut carry: Vec<u8> = Vec::with_capacity(MAX_LOOKAHEAD);
        loop {
            self.flow.may_take().await;
            let mut buf = pool.take();
            buf.bytes.extend_from_slice(&carry);
            if !self.fill(&mut buf.bytes).await? {
                return Ok(());
            }
            let start = Instant::now();
            let mut items = Vec::new();
            let used = parser.parse(&buf.bytes, &mut items)?;
            lap(&self.counters.parse_ns, start);
            carry.clear();
            carry.extend_from_slice(&buf.bytes[used..]);
            if items.is_empty() {
                continue;
            }
            let parsed = self.digest_and_claim(Arc::new(buf), items).await;
            self.out.send(parsed).await.map_err(|_| PumpError::Ended)?;
        }
    }

    /// Reads what is there, up to a batch; false at the end of the stream.
    async fn fill(&self, bytes: &mut Vec<u8>) -> std::io::Result<bool> {
        let mut room = (self.flow.link().1 / 4).clamp(READ_BYTES_MIN, READ_BYTES);
        if let Some(pause) = self.brake.get() {
            room = BRAKED_READ;
            tokio::time::sleep(pause).await;
        }
        let socket = &self.socket;
        let mut got = 0;
        while got < room {
            if got == 0 {
                socket.ready(Interest::READABLE).await?;
            }
            let start = Instant::now();
            let had = bytes.len();
            let want = room - got;
            let read = socket.try_read_buf(&mut BufMut::limit(&mut *bytes, want));
            lap(&self.counters.read_ns, start);
            match read {
                Ok(0) => return Ok(got > 0),
                Ok(_) => got += bytes.len() - had,
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock && got > 0 => break,
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    async fn digest_and_claim(&self, buf: Arc<PageBuf>, items: Vec<Item>) -> Parsed {
        let mut parsed = Parsed { buf, items, digests: Vec::new(), claims: None };
        let Some(claiming) = &self.claiming else { return parsed };
        let start = Instant::now();
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
        let start = Instant::now();
        let pending = claiming
            .rack
            .claim(claiming.scope, claiming.crossing, claiming.claimant, &parsed.digests)
            .await;
        lap(&self.counters.claim_ns, start);
        parsed.claims = Some(pending);
        parsed
    }
}
