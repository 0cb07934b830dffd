//! The tests that run in the emulated machine.

mod faults;
mod processes;
mod reads;

use rackferry_rdma::{ReadBatch, limits};

use super::rig::{Holder, Waiter, connect, page};

const BATCH: u32 = limits::BATCH_MAX as u32;

/// Single pages, no two side by side, so that each is a READ.
fn singles(waiter: &Waiter) -> Option<ReadBatch> {
    waiter.batch((0..BATCH).map(|number| number * 2 % 256))
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
