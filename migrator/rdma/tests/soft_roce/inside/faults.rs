//! What breaks, and what becomes of slots meanwhile.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rackferry_rdma::{Device, RdmaError, RemoteRegion, ServingSetup, Status, Which};

use super::{BATCH, reads_well, singles};
use crate::rig::{Holder, Waiter, connect, connect_with, is_inside};

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

/// A silent peer's READs end by themselves, too, if this machine is slow: hence several tries.
#[tokio::test]
async fn closing_does_not_wait_for_the_peer() {
    if !is_inside() {
        return;
    }
    let (holder, waiter) = (Holder::new(256), Waiter::new(BATCH));
    let mut statuses = vec![];
    for _ in 0..5 {
        let (serving, fetching) = connect(&holder, &waiter);
        drop(serving);
        let ticket = fetching.post(singles(&waiter).unwrap()).unwrap();
        fetching.close().await;
        statuses.push(ticket.await.status);
        assert!(waiter.has_all());
    }
    println!("batches of closed queue pairs: {statuses:?}");
    assert!(statuses.contains(&Status::Flushed), "{statuses:?}");
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
    let (silent, stuck) = connect(&holder, &waiter);
    drop(silent);
    let ticket = stuck.post(singles(&waiter).unwrap()).unwrap();
    let mut removal = link(&["delete", "rxe0"]);
    let patience = Duration::from_secs(60);
    tokio::time::timeout(patience, waiter.device.gone()).await.unwrap();
    assert!(removal.try_wait().unwrap().is_none(), "it did not wait for us");
    let refused = fetching.post(singles(&waiter).unwrap()).unwrap_err();
    assert!(matches!(refused.error, RdmaError::DeviceGone(_)), "{refused}");
    drop(refused);
    let status = ticket.await.status;
    println!("a batch of a removed device: {status:?}");
    assert_ne!(status, Status::Success);
    assert!(waiter.has_all());
    drop((serving, fetching, stuck, holder, waiter));
    // The device's tasks end after us.
    let removed = tokio::task::spawn_blocking(move || removal.wait().unwrap());
    assert!(tokio::time::timeout(patience, removed).await.unwrap().unwrap().success());
    let gone = Device::open(&Which::Any, 0).unwrap_err();
    assert!(matches!(gone, RdmaError::NoDevice { .. }), "{gone}");
    assert!(link(&["add", "rxe0", "type", "rxe", "netdev", "rdma0"]).wait().unwrap().success());
    reads_well(&Holder::new(256), &Waiter::new(BATCH)).await;
}
