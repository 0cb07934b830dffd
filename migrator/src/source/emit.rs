//! From claimed batches to frames on the core link.

use std::sync::Arc;
use std::time::Duration;

use rackferry_dedup_index::{Digest, PAGE_SIZE};
use rackferry_migrator_protocol::frame::{
    BatchHead, FromSource, Holder, Kind, Lost, MAX_BATCH_PAGES, encode_supply,
};
use rackferry_migrator_protocol::stream::Item;
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::flow::{Flow, Kept, KeptPage};
use super::pump::{Claiming, PageBuf, Parsed, Reading};
use crate::compress::Compressor;
use crate::conn::{ConnError, FrameWriter};
use crate::pace::{Pace, Paced};
use crate::stats::{Counters, CpuMoment, add, lap, timed};
use crate::uplink::Priority;

/// QEMU writes its device state in one go: if nothing has followed for so long, all is sent.
const ALL_SENT: Duration = Duration::from_millis(5);

/// What the session's control task wants to be sent.
#[derive(Debug)]
pub enum Order {
    /// A small frame.
    Frame(FromSource),
    /// Contents of lost references: their holders do not have what the index says.
    Supply(Vec<Lost>),
    /// Contents that the VM's stop must not wait for. Their holders may have them all the same.
    SupplyUnasked(Vec<Lost>),
}

/// Writes batches to the core link.
pub struct Emitter<W> {
    writer: FrameWriter<Paced<W>>,
    flow: Arc<Flow>,
    counters: Arc<Counters>,
    claiming: Option<Claiming>,
    compressor: Option<Compressor>,
    reading: Arc<Reading>,
    priority: Option<Arc<Priority>>,
    /// The end of memory was sent: what follows is device state.
    memory_ended: bool,
    scratch: Scratch,
}

/// The batch being made; its memory is reused from batch to batch.
#[derive(Default)]
struct Scratch {
    head: BatchHead,
    meta: Vec<u8>,
    raw: Vec<u32>,
    raw_digests: Vec<Digest>,
    kept: Vec<KeptPage>,
    seq: u64,
}

impl<W: AsyncWrite + Unpin> Emitter<W> {
    /// An emitter before its first batch, that keeps to a pace. `claiming` is none without dedup, `compressor` without compression.
    pub fn new(
        writer: FrameWriter<W>,
        pace: Arc<Pace>,
        flow: Arc<Flow>,
        counters: Arc<Counters>,
        claiming: Option<Claiming>,
        compressor: Option<Compressor>,
    ) -> Self {
        let writer = writer.around(|inner| Paced::new(inner, pace, counters.clone()));
        let (reading, scratch) = (Arc::default(), Scratch::default());
        let (priority, memory_ended) = (None, false);
        Self {
            writer,
            flow,
            counters,
            claiming,
            compressor,
            reading,
            priority,
            memory_ended,
            scratch,
        }
    }

    /// From the moment at which the stream is read straight, claims are not waited for either; until then the session
    /// holds back while other VMs are stopped.
    pub fn reading(self, reading: Arc<Reading>, priority: Arc<Priority>) -> Self {
        let yielding = priority.yielding();
        let writer = self.writer.around(|paced| paced.yielding(yielding, reading.clone()));
        Self { writer, reading, priority: Some(priority), ..self }
    }

    /// Runs until both queues are closed or the connection breaks. Orders go before batches.
    pub async fn run(
        mut self,
        mut parsed: mpsc::Receiver<Parsed>,
        mut orders: mpsc::Receiver<Order>,
    ) -> Result<(), ConnError> {
        let (mut parsed_open, mut orders_open) = (true, true);
        while parsed_open || orders_open {
            let priority = self.priority.clone().filter(|p| self.memory_ended && p.is_held());
            tokio::select! {
                biased;
                order = orders.recv(), if orders_open => match order {
                    Some(order) => self.obey(order).await?,
                    None => orders_open = false,
                },
                parsed = parsed.recv(), if parsed_open => match parsed {
                    Some(parsed) => self.emit(parsed, &mut orders).await?,
                    None => parsed_open = false,
                },
                // The target loads what it has: the link would stand still.
                () = sleep(ALL_SENT), if priority.is_some() => {
                    priority.iter().for_each(|priority| priority.end());
                }
            }
        }
        Ok(())
    }

    /// Sends one piece of the stream, as soon as its claims are answered. `orders` are obeyed while the end of memory
    /// waits for what is unresolved. Not cancel safe.
    pub async fn emit(
        &mut self,
        parsed: Parsed,
        orders: &mut mpsc::Receiver<Order>,
    ) -> Result<(), ConnError> {
        let Parsed { buf, items, digests, claims } = parsed;
        let reading = self.reading.clone();
        let answers = match claims {
            // All of it is sent, and nothing waits for a shard or a holder.
            Some(_) if reading.is_straight() => Vec::new(),
            Some(claims) => tokio::select! {
                answers = claims.finish() => answers,
                () = reading.straight() => Vec::new(),
            },
            None => Vec::new(),
        };
        let mut next = 0;
        for item in items {
            match item {
                Item::Page { block, page, at } => {
                    let holder = answers.get(next).copied().flatten();
                    let claim = digests.get(next).map(|digest| (*digest, holder));
                    next += 1;
                    let s = &mut self.scratch;
                    s.page(block, page, at, claim);
                    if s.head.raw_pages() + s.head.references() == MAX_BATCH_PAGES {
                        self.flush(&buf).await?;
                    }
                }
                Item::Zero { block, page } => {
                    add(&self.counters.zero_bytes, PAGE_SIZE);
                    self.scratch.head.zero(block, page);
                }
                Item::SectionEnd | Item::MultifdFlush => {}
                other => {
                    self.flush(&buf).await?;
                    self.outside_ram(other, &buf, orders).await?;
                }
            }
        }
        self.flush(&buf).await
    }

    async fn outside_ram(
        &mut self,
        item: Item,
        buf: &PageBuf,
        orders: &mut mpsc::Receiver<Order>,
    ) -> Result<(), ConnError> {
        match item {
            Item::Bytes { range, boundary } => {
                let parts: [&[u8]; 2] = [&[boundary.into()], &buf.bytes()[range]];
                self.write(Kind::Stream, &parts).await
            }
            Item::RamStart { head, .. } => self.write(Kind::RamStart, &[&buf.bytes()[head]]).await,
            Item::RamEnd => {
                // Device state goes out only when every page is in place at the target. Supplies are still due.
                self.drain(orders).await?;
                self.flow.memory_ends();
                self.memory_ended = true;
                self.write(Kind::RamEnd, &[]).await
            }
            Item::Fallback { last, .. } => {
                self.drain(orders).await?;
                let last = last.map(|p| (p.block, p.page));
                self.frame(&FromSource::Fallback { last }).await
            }
            _ => Ok(()),
        }
    }

    /// Waits until everything sent is resolved, obeying orders meanwhile.
    async fn drain(&mut self, orders: &mut mpsc::Receiver<Order>) -> Result<(), ConnError> {
        let flow = self.flow.clone();
        let drained = flow.drained();
        tokio::pin!(drained);
        loop {
            tokio::select! {
                () = &mut drained => return Ok(()),
                order = orders.recv() => match order {
                    Some(order) => self.obey(order).await?,
                    None => {
                        drained.await;
                        return Ok(());
                    }
                },
            }
        }
    }

    async fn flush(&mut self, buf: &Arc<PageBuf>) -> Result<(), ConnError> {
        let s = &mut self.scratch;
        if s.head.is_empty() {
            return Ok(());
        }
        let c = self.counters.clone();
        add(&c.raw_bytes, s.raw.len() * PAGE_SIZE);
        add(&c.duplicate_bytes, s.kept.len() * PAGE_SIZE);
        let root = self
            .claiming
            .as_ref()
            .filter(|_| !s.raw.is_empty())
            .map(|claiming| claiming.rack.hasher.digest_of_digests(&s.raw_digests));
        let start = CpuMoment::now();
        let compressed = match &mut self.compressor {
            Some(zstd) if !s.raw.is_empty() => {
                zstd.compress(s.raw.iter().map(|at| buf.page(*at as usize)))?
            }
            _ => None,
        };
        lap(&c.zstd_ns, start);
        let data_len = compressed.map_or(s.raw.len() * PAGE_SIZE, <[u8]>::len);
        s.meta.clear();
        s.head.encode(s.seq, compressed.is_some(), root, data_len, &mut s.meta);
        let kept = (!s.kept.is_empty())
            .then(|| Kept { buf: buf.clone(), pages: s.kept.as_slice().into() });
        self.flow.sent(s.seq, s.meta.len() + data_len, kept);
        let mut parts: Vec<&[u8]> = Vec::with_capacity(s.raw.len() + 1);
        parts.push(&s.meta);
        match compressed {
            Some(data) => parts.push(data),
            None => parts.extend(s.raw.iter().map(|at| buf.page(*at as usize).as_slice())),
        }
        timed(&c.send_ns, self.writer.send(Kind::Batch, &parts)).await?;
        add(&c.batches, 1);
        s.next_batch();
        Ok(())
    }

    async fn obey(&mut self, order: Order) -> Result<(), ConnError> {
        match order {
            Order::Frame(frame) => self.frame(&frame).await,
            Order::Supply(lost) => self.supply_all(&lost, true).await,
            Order::SupplyUnasked(due) => self.supply_all(&due, false).await,
        }
    }

    async fn supply_all(&mut self, lost: &[Lost], stale: bool) -> Result<(), ConnError> {
        for some in lost.chunks(MAX_BATCH_PAGES) {
            self.supply(some, stale).await?;
        }
        Ok(())
    }

    /// Sends contents of references that are kept still. `stale`: their claims are to be forgotten.
    async fn supply(&mut self, lost: &[Lost], stale: bool) -> Result<(), ConnError> {
        let kept: Vec<(Lost, Kept, KeptPage)> = lost
            .iter()
            .filter_map(|l| {
                let kept = self.flow.kept(l.seq)?;
                let page = *kept.pages.get(l.index as usize)?;
                Some((*l, kept, page))
            })
            .collect();
        if kept.is_empty() {
            return Ok(());
        }
        if let (true, Some(claiming)) = (stale, &self.claiming) {
            let stale: Vec<(Digest, Holder)> =
                kept.iter().map(|(_, _, p)| (p.digest, p.holder)).collect();
            claiming.rack.forget(claiming.scope, claiming.crossing, &stale);
        }
        let pages = || kept.iter().map(|(_, k, p)| k.buf.page(p.at as usize));
        let compressed = match &mut self.compressor {
            Some(zstd) => zstd.compress(pages())?,
            None => None,
        };
        let lost: Vec<Lost> = kept.iter().map(|(l, ..)| *l).collect();
        let mut meta = Vec::new();
        let raw_len = lost.len() * PAGE_SIZE;
        encode_supply(
            &lost,
            compressed.is_some(),
            compressed.map_or(raw_len, <[u8]>::len),
            &mut meta,
        );
        match compressed {
            Some(data) => self.writer.send(Kind::Supply, &[&meta, data]).await?,
            None => {
                let mut parts: Vec<&[u8]> = vec![&meta];
                parts.extend(pages().map(<[u8; PAGE_SIZE]>::as_slice));
                self.writer.send(Kind::Supply, &parts).await?
            }
        };
        add(&self.counters.supplied_bytes, raw_len);
        Ok(())
    }

    async fn frame(&mut self, frame: &FromSource) -> Result<(), ConnError> {
        let mut payload = Vec::new();
        let kind = frame.encode(&mut payload);
        self.write(kind, &[&payload]).await
    }

    async fn write(&mut self, kind: Kind, parts: &[&[u8]]) -> Result<(), ConnError> {
        self.writer.send(kind, parts).await?;
        Ok(())
    }
}

impl Scratch {
    /// Adds a page: by reference if another session has claimed its content, else as content.
    fn page(&mut self, block: u16, page: u32, at: usize, claim: Option<(Digest, Option<Holder>)>) {
        if let Some((digest, Some(holder))) = claim
            && self.head.reference(block, page, digest, holder)
        {
            self.kept.push(KeptPage { at: at as u32, digest, holder });
            return;
        }
        self.head.raw(block, page);
        self.raw.push(at as u32);
        self.raw_digests.extend(claim.map(|(digest, _)| digest));
    }

    fn next_batch(&mut self) {
        self.head.clear();
        self.raw.clear();
        self.raw_digests.clear();
        self.kept.clear();
        self.seq += 1;
    }
}
