//! The way of a page through an agent, on one core and in memory: what a session does to QEMU's stream before the
//! network, and to the network's frames before guest memory. The code is the sessions' own.
//!
//! Time is the thread's CPU time, so that other work on the machine disturbs little.

use std::hint::black_box;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rackferry_dedup_index::{Digest, DomainKey, PAGE_SIZE, Page};
use rackferry_migrator::conn::{FrameReader, FrameWriter};
use rackferry_migrator::memory::{GuestMemory, Preallocate};
use rackferry_migrator::rack::{Rack, Scope};
use rackferry_migrator::source::emit::Emitter;
use rackferry_migrator::source::flow::Flow;
use rackferry_migrator::source::pump::{Claiming, Pump};
use rackferry_migrator::target::Placed;
use rackferry_migrator::target::receive::Receiver;
use rackferry_migrator_protocol::frame::{Ack, Holder, Kind};
use rackferry_migrator_protocol::stream::StreamWriter;
use tokio::io::AsyncWrite;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

/// CPU time of the measuring thread.
struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::try_from(now).expect("CPU time is never negative")
    }

    fn end(&self, start: Duration) -> Duration {
        self.start() - start
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

/// Pages of the VM: more than any cache holds.
const PAGES: u32 = 16 << 10;
const BYTES: u64 = PAGES as u64 * PAGE_SIZE as u64;
/// Pages of a PART; QEMU's last up to 50 ms.
const PART: u32 = 4096;
const HOST: u32 = 1;
const CROSSING: u64 = 7;
const FIRST: Holder = Holder { host: 11, session: 1 };
const SECOND: Holder = Holder { host: 11, session: 2 };

fn random_pages() -> Vec<Page> {
    let mut stream = blake3::Hasher::new().finalize_xof();
    let mut pages = vec![[0; PAGE_SIZE]; PAGES as usize];
    stream.fill(pages.as_flattened_mut());
    pages
}

/// The stream of a VM with these pages.
fn stream(pages: &[Page]) -> Vec<u8> {
    let mut head = vec![1, 0, 0, 0, 1, 3];
    head.extend_from_slice(b"ram\0\0\0\0\0\0\0\x04");
    head.extend_from_slice(&(BYTES | 4).to_be_bytes());
    head.extend_from_slice(b"\x06pc.ram");
    head.extend_from_slice(&BYTES.to_be_bytes());
    let mut out = Vec::with_capacity(BYTES as usize + (1 << 20));
    let mut writer = StreamWriter::new();
    writer.forward(b"QEVM\0\0\0\x03\x07\0\0\0\x03q35", true, &mut out);
    writer.ram_start(&head, &mut out).expect("a good head");
    for (number, page) in (0..PAGES).zip(pages) {
        writer.page(0, number, page, &mut out).expect("a page of the VM");
        if number % PART == PART - 1 {
            writer.flush_section(&mut out);
        }
    }
    out
}

fn rack() -> Arc<Rack> {
    Arc::new(Rack::new(HOST, &DomainKey([7; 32]), 64 << 20, 64 << 20, None))
}

fn digests(rack: &Rack, pages: &[Page]) -> Vec<Digest> {
    let mut digests = Vec::new();
    rack.hasher.digest_batch(&pages.iter().collect::<Vec<_>>(), &mut digests);
    digests
}

/// Takes everything at once and drops it.
struct Sink;

impl AsyncWrite for Sink {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(black_box(bytes).len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(black_box(parts).iter().map(|part| part.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The whole stream through a source session's pump and emitter; every batch counts as resolved at once.
async fn send(stream: &[u8], claiming: Option<Claiming>, writer: impl AsyncWrite + Unpin) {
    let flow = Arc::<Flow>::default();
    let (_open, mut orders) = mpsc::channel(1);
    let (counters, reading) = (Arc::default(), Arc::default());
    let mut pump = Pump::new(stream, flow.clone(), claiming.clone(), counters, reading);
    let writer = FrameWriter::new(writer);
    let (pace, counters) = (Arc::default(), Arc::default());
    let mut emitter = Emitter::new(writer, pace, flow.clone(), counters, claiming, None);
    // A read is less than a batch may hold, so each piece makes one.
    let mut seq = 0;
    while let Some(parsed) = pump.next().await.expect("a good stream") {
        emitter.emit(parsed, &mut orders).await.expect("the sink takes everything");
        flow.acked(&Ack { received: seq + 1, resolved: vec![seq] });
        seq += 1;
    }
}

fn source(criterion: &mut Criterion<CpuTime>) {
    let runtime = runtime();
    let pages = random_pages();
    let stream = stream(&pages);
    let rack = rack();
    rack.claim_here(CROSSING, FIRST, &rack.hasher.tokens(&digests(&rack, &pages)));
    let claiming = |crossing| {
        let rack = rack.clone();
        Some(Claiming { rack, scope: Scope::Rack, crossing, claimant: SECOND })
    };
    let mut group = criterion.benchmark_group("source");
    group.throughput(Throughput::Bytes(BYTES)).sample_size(20);
    group.bench_function("claimed by others: parse, hash, claim, send references", |bencher| {
        bencher.iter(|| runtime.block_on(send(&stream, claiming(CROSSING), Sink)));
    });
    group.bench_function("unique: parse, hash, claim, send content", |bencher| {
        bencher.iter_batched(
            || rack.shard.revoke(SECOND.session),
            |_| runtime.block_on(send(&stream, claiming(CROSSING + 1), Sink)),
            BatchSize::PerIteration,
        );
    });
    group.bench_function("without dedup: parse, send content", |bencher| {
        bencher.iter(|| runtime.block_on(send(&stream, None, Sink)));
    });
    group.finish();
}

/// The frames that a source makes of the stream.
async fn frames(stream: &[u8], claiming: Option<Claiming>) -> Vec<(Kind, Vec<u8>)> {
    let mut bytes = Vec::new();
    send(stream, claiming, &mut bytes).await;
    let mut reader = FrameReader::new(bytes.as_slice());
    let (mut frames, mut payload) = (Vec::new(), Vec::new());
    while let Ok(kind) = reader.next(&mut payload).await {
        frames.push((kind, std::mem::take(&mut payload)));
    }
    frames
}

/// A reserved memory as an arriving VM has it.
fn new_memory() -> Arc<GuestMemory> {
    let memory = GuestMemory::create("bench", BYTES, None).expect("a memfd");
    memory.preallocate(Preallocate::Reserve).expect("room for it");
    Arc::new(memory)
}

/// A VM that arrives; with it goes what the store knows of its memory.
struct Arriving {
    rack: Arc<Rack>,
    memory: Arc<GuestMemory>,
    id: u32,
}

impl Arriving {
    fn new(rack: &Arc<Rack>) -> Self {
        let (rack, memory) = (rack.clone(), new_memory());
        let id = rack.store.add_memory(memory.clone());
        Self { rack, memory, id }
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.rack.store.remove_memory(self.id);
    }
}

fn receive(runtime: &Runtime, vm: &Arriving, frames: &[(Kind, Vec<u8>)]) {
    let Arriving { rack, memory, id } = vm;
    let placed = Placed { block: "pc.ram".into(), memory: memory.clone(), id: *id };
    let mut receiver = Receiver::new(SECOND.session, vec![placed], rack.clone(), Arc::default());
    let mut resolved = 0;
    runtime.block_on(async {
        for (kind, payload) in frames {
            receiver.frame(*kind, payload).await.expect("a good frame");
            resolved += receiver.take_ack().map_or(0, |(_, resolved)| resolved.len());
        }
    });
    let batches = frames.iter().filter(|(kind, _)| *kind == Kind::Batch).count();
    assert_eq!(resolved, batches, "everything is in place");
}

fn target(criterion: &mut Criterion<CpuTime>) {
    let runtime = runtime();
    let pages = random_pages();
    let stream = stream(&pages);
    let rack = rack();
    let digests = digests(&rack, &pages);
    rack.claim_here(CROSSING, FIRST, &rack.hasher.tokens(&digests));
    let other = new_memory();
    for (number, page) in (0..).zip(&pages) {
        other.write_page(number, page).expect("inside");
    }
    let other_id = rack.store.add_memory(other);
    let noted: Vec<(Digest, u32)> = digests.iter().copied().zip(0..).collect();
    rack.store.insert(other_id, &noted);
    let claiming = |crossing| {
        let rack = rack.clone();
        Some(Claiming { rack, scope: Scope::Rack, crossing, claimant: SECOND })
    };
    let references = runtime.block_on(frames(&stream, claiming(CROSSING)));
    let contents = runtime.block_on(frames(&stream, claiming(CROSSING + 1)));
    let unverified = runtime.block_on(frames(&stream, None));

    let mut group = criterion.benchmark_group("target");
    group.throughput(Throughput::Bytes(BYTES)).sample_size(20);
    let mut run = |name: &str, frames: &[(Kind, Vec<u8>)]| {
        group.bench_function(name, |bencher| {
            let run = |vm| {
                receive(&runtime, &vm, frames);
                vm
            };
            bencher.iter_batched(|| Arriving::new(&rack), run, BatchSize::PerIteration);
        });
    };
    run("references: decode, find here, verify, place", &references);
    run("content without dedup: decode, place", &unverified);
    // Last: from here on the store does not name the other VM's memory any more.
    run("content: decode, verify, place, note", &contents);
    group.finish();
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = source, target
}
criterion_main!(benches);
