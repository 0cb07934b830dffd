//! The tests that run in the emulated machine.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rackferry_rdma::{
    Device, Endpoint, Fetching, FetchingSetup, Gid, Memory, Pages, RdmaError, ReadBatch, Region,
    RemoteRegion, ServingSetup, Status, Ticket, Which, limits,
};

use super::rig::{Holder, Waiter, connect, connect_with, counter, device, is_inside, page};

const PAGES: u32 = 2048;
const IN_FLIGHT: usize = 6;
const BATCH: u32 = limits::BATCH_MAX as u32;
/// Tells a process of a test what to be.
const ROLE: &str = "RACKFERRY_RDMA_ROLE";

/// First of all: else a device that does not work would look like our mistake.
#[test]
fn a_device_works_without_us() {
    if !is_inside() {
        return;
    }
    let tool = || {
        let mut command = Command::new("ib_read_bw");
        command.args(["-d", "rxe0", "-F", "-m", "4096", "-s", "4096", "-n", "1000"]);
        command
    };
    let mut server = tool().stdout(Stdio::null()).spawn().unwrap();
    let said = loop {
        // Until the server listens.
        let client = tool().arg("127.0.0.1").output().unwrap();
        if client.status.success() {
            break String::from_utf8(client.stdout).unwrap();
        }
        assert!(server.try_wait().unwrap().is_none(), "the server of ib_read_bw has ended");
        std::thread::sleep(Duration::from_millis(100));
    };
    assert!(server.wait().unwrap().success());
    let figures = said.lines().find(|line| line.trim_start().starts_with("4096 ")).unwrap();
    println!("ib_read_bw (bytes, READs, peak MB/s, MB/s, M READs/s): {figures}");
}

/// Pages in an order that has runs and single ones: each once.
fn order(pages: u32) -> Vec<u32> {
    let (first, second) = (0..pages / 2, pages / 2..pages);
    // The first half by runs of 7, backwards; the second half every 3rd, then every 3rd of the rest.
    let runs: Vec<u32> = first.collect();
    let mut order: Vec<u32> = runs.chunks(7).rev().flatten().copied().collect();
    for rest in 0..3 {
        order.extend(second.clone().filter(|number| number % 3 == rest));
    }
    order
}

#[tokio::test]
async fn every_page_lands_whole_and_by_reads_alone() {
    if !is_inside() {
        return;
    }
    let (holder, waiter) = (Holder::new(PAGES), Waiter::new(IN_FLIGHT as u32 * BATCH));
    let (_serving, fetching) = connect(&holder, &waiter);
    let (packets, sends) = (counter("rcvd_pkts"), counter("rdma_sends"));
    let begun = Instant::now();
    let order = order(PAGES);
    let mut under_way: VecDeque<(&[u32], Ticket)> = VecDeque::new();
    let mut batches = order.chunks(BATCH as usize);
    let mut seen = 0;
    loop {
        while under_way.len() < IN_FLIGHT
            && let Some(numbers) = batches.next()
        {
            let batch = waiter.batch(numbers.iter().copied()).unwrap();
            under_way.push_back((numbers, fetching.post(batch).unwrap()));
        }
        let Some((numbers, ticket)) = under_way.pop_front() else { break };
        let slots = ticket.await.ok().unwrap();
        for (slot, number) in slots.iter().zip(numbers) {
            assert!(*slot.bytes() == page(*number), "page {number} is another");
            seen += 1;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{seen} pages in {seconds:.2} s: {:.0} pages/s", f64::from(seen) / seconds);
    assert_eq!(seen, PAGES);
    assert!(waiter.has_all());
    assert_eq!(fetching.posted(), 0);
    // One response a page, as a packet holds one, and requests for runs of pages together.
    let mtu = FetchingSetup::new(&waiter.domain).unwrap().local().mtu().bytes();
    let packets = counter("rcvd_pkts") - packets;
    assert!(packets >= u64::from(PAGES) * 4096 / u64::from(mtu), "{packets} packets are too few");
    assert_eq!(counter("rdma_sends"), sends, "the peer's program took part");
    fetching.close().await;
}

/// Single pages, no two side by side, so that each is a READ.
fn singles(waiter: &Waiter) -> Option<ReadBatch> {
    waiter.batch((0..BATCH).map(|number| number * 2 % 256))
}

#[tokio::test]
async fn slots_are_the_devices_until_it_flushes() {
    if !is_inside() {
        return;
    }
    let (holder, waiter) = (Holder::new(256), Waiter::new(9 * BATCH));
    let (serving, fetching) = connect(&holder, &waiter);
    // Nobody answers from now on.
    drop(serving);
    let mut tickets = vec![];
    let full = loop {
        match fetching.post(singles(&waiter).unwrap()) {
            Ok(ticket) => tickets.push(ticket),
            Err(refused) => break refused,
        }
    };
    assert!(matches!(full.error, RdmaError::Full { queue: "send queue", .. }), "{full}");
    assert_eq!(full.rest.len(), BATCH as usize, "all of it is given back");
    drop(full);
    assert_eq!(tickets.len() as u32, waiter.device.limits().send_queue / BATCH);
    assert_eq!(waiter.ring.free(), BATCH as usize);
    // The waiter's patience is over; the device's is not.
    let kept = tickets.pop().unwrap();
    drop(tickets);
    assert_eq!(waiter.ring.free(), BATCH as usize, "a slot was given up while it may be written");
    fetching.close().await;
    let done = kept.await;
    assert_eq!(done.status, Status::Flushed, "{done:?}");
    drop(done);
    assert!(waiter.has_all());
}

#[tokio::test]
async fn a_peer_that_is_silent_ends_every_batch() {
    if !is_inside() {
        return;
    }
    let (holder, waiter) = (Holder::new(256), Waiter::new(4 * BATCH));
    let (serving, fetching) = connect(&holder, &waiter);
    drop(serving);
    let begun = Instant::now();
    let first = fetching.post(singles(&waiter).unwrap()).unwrap();
    let second = fetching.post(singles(&waiter).unwrap()).unwrap();
    let first = first.await;
    println!("a silent peer is given up after {} ms", begun.elapsed().as_millis());
    assert_eq!(first.status, Status::RetriesExceeded);
    assert_eq!(second.await.status, Status::Flushed);
    drop(first);
    let refused = fetching.post(singles(&waiter).unwrap()).unwrap_err();
    assert!(matches!(refused.error, RdmaError::Closed), "{refused}");
    drop(refused);
    assert!(waiter.has_all());
}

#[tokio::test]
async fn a_wrong_key_is_refused_and_a_new_pair_reads_on() {
    if !is_inside() {
        return;
    }
    let (holder, waiter) = (Holder::new(256), Waiter::new(2 * BATCH));
    let wrong = |region: RemoteRegion| {
        RemoteRegion::new(region.base(), region.slots(), region.rkey() ^ 0x100).unwrap()
    };
    let (_serving, fetching) = connect_with(&holder, &waiter, wrong);
    let done = fetching.post(singles(&waiter).unwrap()).unwrap().await;
    assert_eq!(done.status, Status::RemoteAccess, "{done:?}");
    drop(done);
    assert!(waiter.has_all());
    reads_well(&holder, &waiter).await;
}

/// A key is worth nothing without a queue pair of its domain.
#[tokio::test]
async fn memory_of_another_domain_is_not_readable() {
    if !is_inside() {
        return;
    }
    let (holder, other, waiter) = (Holder::new(256), Holder::new(256), Waiter::new(2 * BATCH));
    let others = ServingSetup::new(&other.domain).unwrap().offer(&other.region).unwrap();
    let (_serving, fetching) = connect_with(&holder, &waiter, |_| others);
    let done = fetching.post(singles(&waiter).unwrap()).unwrap().await;
    assert_eq!(done.status, Status::RemoteAccess, "{done:?}");
    let refused = ServingSetup::new(&holder.domain).unwrap().offer(&other.region);
    assert!(matches!(refused, Err(RdmaError::OtherDomain)), "{refused:?}");
}

async fn reads_well(holder: &Holder, waiter: &Waiter) {
    let (_serving, fetching) = connect(holder, waiter);
    let slots = fetching.post(waiter.batch(0..BATCH).unwrap()).unwrap().await.ok().unwrap();
    for (slot, number) in slots.iter().zip(0..) {
        assert!(*slot.bytes() == page(number), "page {number} is another");
    }
    drop(slots);
    fetching.close().await;
    assert!(waiter.has_all());
}

#[tokio::test]
async fn a_completion_queue_is_not_promised_twice() {
    if !is_inside() {
        return;
    }
    let waiter = Waiter::new(1);
    let limits = waiter.device.limits();
    let fit = limits.completion_queue / limits.send_queue;
    let mut setups: Vec<_> =
        (0..fit).map(|_| FetchingSetup::new(&waiter.domain).unwrap()).collect();
    let refused = FetchingSetup::new(&waiter.domain);
    assert!(matches!(refused, Err(RdmaError::Full { queue: "completion queue", .. })));
    setups.pop();
    assert!(FetchingSetup::new(&waiter.domain).is_ok(), "its room is given back");
}

#[tokio::test]
async fn batches_and_devices_that_cannot_be_are_refused() {
    if !is_inside() {
        return;
    }
    let (holder, waiter) = (Holder::new(256), Waiter::new(2 * BATCH));
    let (_serving, fetching) = connect(&holder, &waiter);
    let refused = |batch| fetching.post(batch).unwrap_err().error;
    assert!(matches!(refused(ReadBatch::default()), RdmaError::BatchLength(0)));
    assert!(matches!(refused(waiter.batch(0..BATCH + 1).unwrap()), RdmaError::BatchLength(129)));
    assert!(matches!(refused(waiter.batch(256..257).unwrap()), RdmaError::Peer(_)));
    let foreign = Waiter::new(1);
    assert!(matches!(refused(foreign.batch(0..1).unwrap()), RdmaError::OtherDomain));
    assert!(waiter.has_all());
    assert_eq!(device().gid(), Device::open(&Which::Any, 0).unwrap().gid());
    let at = Device::open(&Which::At("192.0.2.1".parse().unwrap()), 0).unwrap();
    assert_eq!(at.gid().to_string(), "::ffff:192.0.2.1");
    let wrong = Device::open(&Which::At("192.0.2.9".parse().unwrap()), 0).unwrap_err().to_string();
    assert!(wrong.contains("rxe0 port 1 has no such RoCE v2 address"), "{wrong}");
}

fn link(arguments: &[&str]) -> Child {
    Command::new("rdma").arg("link").args(arguments).spawn().unwrap()
}

/// The kernel waits with the removal until every program has closed the device.
#[tokio::test]
async fn a_removed_device_is_given_up_and_a_new_one_is_used() {
    if !is_inside() {
        return;
    }
    let (holder, waiter) = (Holder::new(256), Waiter::new(2 * BATCH));
    let (serving, fetching) = connect(&holder, &waiter);
    let mut removal = link(&["delete", "rxe0"]);
    let patience = Duration::from_secs(60);
    tokio::time::timeout(patience, waiter.device.gone()).await.unwrap();
    assert!(removal.try_wait().unwrap().is_none(), "it did not wait for us");
    let refused = fetching.post(singles(&waiter).unwrap()).unwrap_err();
    assert!(matches!(refused.error, RdmaError::DeviceGone(_)), "{refused}");
    drop(refused);
    assert!(waiter.has_all());
    drop((serving, fetching, holder, waiter));
    // The device's tasks end after us.
    let removed = tokio::task::spawn_blocking(move || removal.wait().unwrap());
    assert!(tokio::time::timeout(patience, removed).await.unwrap().unwrap().success());
    let gone = Device::open(&Which::Any, 0).unwrap_err();
    assert!(matches!(gone, RdmaError::NoDevice { .. }), "{gone}");
    assert!(link(&["add", "rxe0", "type", "rxe", "netdev", "rdma0"]).wait().unwrap().success());
    reads_well(&Holder::new(256), &Waiter::new(BATCH)).await;
}

/// Runs one test of this binary as a process of its own.
fn process(test: &str, role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(ROLE, role);
    command
}

fn has_role(role: &str) -> bool {
    is_inside() && std::env::var(ROLE).is_ok_and(|own| own == role)
}

/// Connects to a holder in another process, over its standard input and output.
fn connect_to(child: &mut Child, waiter: &Waiter) -> Fetching {
    waiter.connect(|ours| {
        let mut input = child.stdin.take().unwrap();
        let numbers = [ours.qpn(), ours.psn(), ours.mtu().bytes(), ours.reads().into()];
        writeln!(input, "{}", numbers.map(|number| number.to_string()).join(" ")).unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.find_map(|line| line.unwrap().strip_prefix("offer ").map(String::from));
        let told: Vec<u64> = line.unwrap().split(' ').map(|n| n.parse().unwrap()).collect();
        let [qpn, psn, mtu, reads, base, slots, rkey] = told[..] else { panic!("{told:?}") };
        let gid = waiter.device.gid();
        let small = |number: u64| u32::try_from(number).unwrap();
        let peer = Endpoint::new(gid, small(qpn), small(psn), small(mtu), small(reads)).unwrap();
        (peer, RemoteRegion::new(base, small(slots), small(rkey)).unwrap())
    })
}

#[tokio::test]
async fn holder_process() {
    if !has_role("holder") {
        return;
    }
    let holder = Holder::new(256);
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).unwrap();
    let told: Vec<u32> = line.trim().split(' ').map(|n| n.parse().unwrap()).collect();
    let gid: Gid = holder.device.gid();
    let peer = Endpoint::new(gid, told[0], told[1], told[2], told[3]).unwrap();
    let setup = ServingSetup::new(&holder.domain).unwrap();
    let (ours, region) = (*setup.local(), setup.offer(&holder.region).unwrap());
    let _serving = setup.connect(&peer).unwrap();
    let end = [ours.qpn(), ours.psn(), ours.mtu().bytes(), ours.reads().into()];
    let end = end.map(|number| number.to_string()).join(" ");
    println!("\noffer {end} {} {} {}", region.base(), region.slots(), region.rkey());
    // Until it is killed.
    tokio::time::sleep(Duration::from_secs(600)).await;
}

#[tokio::test]
async fn a_killed_holder_loses_no_slot() {
    if !is_inside() {
        return;
    }
    let waiter = Waiter::new(8 * BATCH);
    let mut holder = process("inside::holder_process", "holder");
    let mut holder = holder.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let fetching = connect_to(&mut holder, &waiter);
    let slots = fetching.post(waiter.batch(0..BATCH).unwrap()).unwrap().await.ok().unwrap();
    assert!(slots.iter().zip(0..).all(|(slot, number)| *slot.bytes() == page(number)));
    drop(slots);
    let mut tickets: VecDeque<_> =
        (0..4).map(|_| fetching.post(singles(&waiter).unwrap()).unwrap()).collect();
    holder.kill().unwrap();
    holder.wait().unwrap();
    // Whatever was done before it died; the first that comes after it ends the queue pair.
    tickets.extend((0..2).filter_map(|_| fetching.post(singles(&waiter).unwrap()).ok()));
    let mut statuses = vec![];
    for ticket in tickets {
        statuses.push(ticket.await.status);
    }
    println!("batches of a killed holder: {statuses:?}");
    let failed = statuses.iter().position(|status| *status != Status::Success).unwrap();
    assert_eq!(statuses[failed], Status::RetriesExceeded);
    assert!(statuses[failed + 1..].iter().all(|status| *status == Status::Flushed));
    assert!(waiter.has_all());
    // The device is as good as before.
    reads_well(&Holder::new(256), &waiter).await;
}

#[tokio::test]
async fn memlock_process() {
    if !has_role("memlock") {
        return;
    }
    let domain = device().domain::<rackferry_rdma::Export>().unwrap();
    let memory = Memory::new(256, Pages::Small).unwrap();
    match Region::register(&domain, memory) {
        Err(RdmaError::Memlock { needed: 1_048_576, limit: 65_536 }) => {}
        other => panic!("{other:?}"),
    }
    Region::register(&domain, Memory::new(4, Pages::Small).unwrap()).unwrap();
}

#[test]
fn memory_that_may_not_be_locked_is_an_error_with_both_numbers() {
    if !is_inside() {
        return;
    }
    let inner = process("inside::memlock_process", "memlock");
    // Root may lock as much as it likes, unless it gives that up.
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-ipc_lock", "--inh-caps", "-ipc_lock"]);
    command.args(["prlimit", "--memlock=65536"]).arg(inner.get_program()).args(inner.get_args());
    assert!(command.env(ROLE, "memlock").status().unwrap().success());
}
