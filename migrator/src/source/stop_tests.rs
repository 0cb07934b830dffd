//! A stop beside a silent holder: what it waits for, and what it does not. Real sockets, virtual time.

use rackferry_dedup_index::{Digest, DomainKey, PAGE_SIZE};
use rackferry_migrator_protocol::frame::{Ack, FromTarget, Hello, Holder, Kind, Role};
use rackferry_migrator_protocol::session::open::Hurry;
use rackferry_migrator_protocol::session::target::Event as AtTarget;
use rackferry_migrator_protocol::stream::StreamWriter;
use rackferry_tls::Admission;
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::pump::Pump;
use super::*;
use crate::conn::{FrameReader, FrameWriter, Framed, PageRead, PageWrite};
use crate::limits::{CLAIM_TIMEOUT, FETCH_TIMEOUT, PENDING_RETRY};
use crate::memory::GuestMemory;
use crate::rack::{Rack, silent};
use crate::target::Placed;
use crate::target::fetch::Fetches;
use crate::target::receive::Receiver;
use crate::target::receive::tests::head;

const PAGES: u32 = 600;
const BYTES: u64 = PAGES as u64 * PAGE_SIZE as u64;
const CROSSING: u64 = 5;
/// What the index says of every page: it lies at a neighbour of the target.
const HOLDER: Holder = Holder { host: silent::HOST, session: 9 };

fn page(number: u32) -> [u8; PAGE_SIZE] {
    let mut page = [7; PAGE_SIZE];
    page[..4].copy_from_slice(&number.to_le_bytes());
    page
}

fn stream() -> Vec<u8> {
    let (mut out, mut writer) = (Vec::new(), StreamWriter::new());
    writer.forward(b"QEVM\0\0\0\x03\x07\0\0\0\x03q35", true, &mut out);
    writer.ram_start(&head(BYTES), &mut out).unwrap();
    for number in 0..PAGES {
        writer.page(0, number, &page(number), &mut out).unwrap();
    }
    writer.ram_end(&mut out).unwrap();
    out
}

fn rack(own_host: u32) -> Arc<Rack> {
    Arc::new(Rack::new(own_host, &DomainKey([7; 32]), 1 << 20, 1 << 20, None))
}

/// Both ends of a page connection.
async fn connection() -> (Framed, Framed) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let far = tokio::spawn(async move {
        let (stream, _, ticket) = Admission::default().accept(&listener).await;
        let (_, _peer, (reader, mut writer)) = conn::greeting(stream, None, ticket).await.unwrap();
        conn::accept(&mut writer, 1).await.unwrap();
        (reader, writer)
    });
    let hello = Hello { host_id: 11, role: Role::Neighbour };
    let near = conn::dial(&addr, "target", &hello, None).await.unwrap();
    (near, far.await.unwrap())
}

/// A target as its session drives it, until memory has ended.
struct Target {
    receiver: Receiver,
    fetches: Fetches,
    writer: FrameWriter<PageWrite>,
}

impl Target {
    async fn run(mut self, mut reader: FrameReader<PageRead>) {
        let (frames, mut queue) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut payload = Vec::new();
            while let Ok(kind) = reader.next(&mut payload).await {
                let _ = frames.send((kind, std::mem::take(&mut payload))).await;
            }
        });
        loop {
            tokio::select! {
                Some((kind, payload)) = queue.recv() => {
                    let event = self.receiver.frame(kind, &payload).await.unwrap();
                    if event == Some(AtTarget::Placed) {
                        return;
                    }
                }
                Some(fetched) = self.fetches.next() => {
                    self.receiver.fetched(&fetched).await.unwrap();
                }
                () = tokio::time::sleep(PENDING_RETRY), if !self.receiver.wanted.is_idle() => {}
            }
            let (requests, lost) = self.receiver.look(self.fetches.room()).await.unwrap();
            requests.into_iter().for_each(|(host, wanted)| self.fetches.begin(host, wanted));
            if !lost.is_empty() {
                self.send(&FromTarget::Missing(lost)).await;
            }
            if let Some((received, resolved)) = self.receiver.take_ack() {
                self.send(&FromTarget::Ack(Ack { received, resolved })).await;
            }
        }
    }

    async fn send(&mut self, frame: &FromTarget) {
        let mut payload = Vec::new();
        let kind: Kind = frame.encode(&mut payload);
        self.writer.send(kind, &[&payload]).await.unwrap();
    }
}

/// The whole memory by references to a silent holder, then its end. How long the end took from the moment at which the
/// VM stopped, which is never if `stops` is false.
async fn end_of_memory(stops: bool) -> Duration {
    let (source, target) = (rack(11), rack(1));
    let _holder = silent::of(&target).await;
    let pages: Vec<_> = (0..PAGES).map(page).collect();
    let digests: Vec<Digest> = pages.iter().map(|page| source.hasher.digest(page)).collect();
    source.claim_here(CROSSING, HOLDER, &source.hasher.tokens(&digests));

    let (near, far) = connection().await;
    let memory = Arc::new(GuestMemory::create("rackferry-test", BYTES, None).unwrap());
    let id = target.store.add_memory(memory.clone());
    let placed = Placed { block: "pc.ram".into(), memory: memory.clone(), id };
    let receiver = Receiver::new(3, vec![placed], target.clone(), Arc::default());
    let fetches = Fetches::new(target, Arc::default());
    let at_target = tokio::spawn(Target { receiver, fetches, writer: far.1 }.run(far.0));

    let flow = Arc::<Flow>::default();
    let (orders, mut orders_queue) = mpsc::channel(SESSION_EVENTS);
    let (inputs, _inputs_queue) = mpsc::channel(SESSION_EVENTS);
    tokio::spawn(acks::run(near.0, flow.clone(), orders.clone(), inputs));
    let claimant = Holder { host: 1, session: 3 };
    let claiming =
        Some(Claiming { rack: source, scope: Scope::Host, crossing: CROSSING, claimant });
    let stream = stream();
    let reading = Arc::<Reading>::default();
    let counters = Arc::default();
    let mut pump =
        Pump::new(&stream[..], flow.clone(), claiming.clone(), counters, reading.clone());
    let counters = Arc::<Counters>::default();
    let (pace, of_emitter) = (Arc::default(), counters.clone());
    let mut emitter = Emitter::new(near.1, pace, flow.clone(), of_emitter, claiming, None)
        .reading(reading.clone(), Arc::new(Priority::new(rack(11))));
    let mut pieces = Vec::new();
    while let Some(piece) = pump.next().await.unwrap() {
        pieces.push(piece);
    }
    let last = pieces.pop().unwrap();
    for piece in pieces {
        emitter.emit(piece, &mut orders_queue).await.unwrap();
    }
    let start = Instant::now();
    if stops {
        reading.go_straight();
        flow.hurry(Hurry::Stopped);
        let due = flow.take_due();
        orders.send(Order::SupplyUnasked(due)).await.unwrap();
    }
    emitter.emit(last, &mut orders_queue).await.unwrap();
    at_target.await.unwrap();
    let taken = start.elapsed();
    let referred = counters.totals().duplicate_bytes;
    assert!(referred > 0, "pages went out as references");
    let mut read = vec![[0; PAGE_SIZE]; PAGES as usize];
    memory.read_present(0, read.as_flattened_mut()).unwrap();
    assert!(read == pages, "memory is whole");
    taken
}

#[tokio::test(start_paused = true)]
async fn a_running_vm_waits_for_its_holders_deadline() {
    assert!(end_of_memory(false).await >= FETCH_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_stopped_vm_waits_for_no_holder_and_no_shard() {
    let taken = end_of_memory(true).await;
    assert!(taken < CLAIM_TIMEOUT, "no deadline is waited for: {taken:?}");
}
