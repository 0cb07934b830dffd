//! What works, and what is refused before the device sees it.

use std::collections::VecDeque;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rackferry_rdma::{Device, FetchingSetup, RdmaError, ReadBatch, Ticket, Which};

use super::BATCH;
use crate::rig::{Holder, Waiter, connect, counter, device, is_inside, page};

const PAGES: u32 = 2048;
const IN_FLIGHT: usize = 6;

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
