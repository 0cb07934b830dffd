//! References to a holder that does not answer. Time is virtual.

use std::time::Duration;

use rackferry_dedup_index::DomainKey;
use rackferry_migrator_protocol::frame::{
    BatchHead, FromSource, Holder, Kind, Lost, MAX_BATCH_PAGES, encode_supply,
};
use tokio::time::Instant;

use super::*;
use crate::limits::{FETCH_TIMEOUT, PENDING_RETRY};
use crate::memory::GuestMemory;
use crate::rack::silent::{self, HOST};
use crate::target::Placed;
use crate::target::receive::Receiver;
use crate::target::receive::tests::{head, take};

const REFERENCES: u32 = 8192;

/// The content of a page of the source.
fn content(page: u32) -> [u8; PAGE_SIZE] {
    let mut content = [0; PAGE_SIZE];
    content[..4].copy_from_slice(&(page + 1).to_le_bytes());
    content
}

/// A target session's receiver, with that many references to a neighbour's content.
async fn receiver(rack: &Arc<Rack>, references: u32) -> Receiver {
    let bytes = u64::from(references) * PAGE_SIZE as u64;
    let memory = Arc::new(GuestMemory::create("rackferry-test", bytes, None).unwrap());
    let id = rack.store.add_memory(memory.clone());
    let placed = Placed { block: "pc.ram".into(), memory, id };
    let mut receiver = Receiver::new(1, vec![placed], rack.clone(), Arc::default());
    let start = b"QEVM\0\0\0\x03\x07\0\0\0\x03q35".to_vec();
    take(&mut receiver, FromSource::Stream { boundary: true, bytes: start }).await;
    take(&mut receiver, FromSource::RamStart(head(bytes))).await;
    let holder = Holder { host: HOST, session: 9 };
    let mut batch = BatchHead::default();
    let mut seq = 0;
    for page in 0..references {
        let digest = rack.hasher.digest(&content(page));
        assert!(batch.reference(0, page, digest, holder));
        if batch.references() == MAX_BATCH_PAGES || page + 1 == references {
            let mut payload = Vec::new();
            batch.encode(seq, false, None, 0, &mut payload);
            receiver.frame(Kind::Batch, &payload).await.unwrap();
            batch.clear();
            seq += 1;
        }
    }
    receiver
}

/// Looks for contents as a session does, until the source was asked for `count`.
async fn until_asked(receiver: &mut Receiver, fetches: &mut Fetches, count: usize) -> Vec<Lost> {
    let mut asked = Vec::new();
    loop {
        let (requests, lost) = receiver.look(fetches.room()).await.unwrap();
        asked.extend(lost);
        if asked.len() >= count {
            return asked;
        }
        for (host, wanted) in requests {
            fetches.begin(host, wanted);
        }
        tokio::select! {
            Some(fetched) = fetches.next() => receiver.fetched(&fetched).await.unwrap(),
            () = tokio::time::sleep(PENDING_RETRY), if !receiver.wanted.is_idle() => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn references_to_a_silent_holder_take_one_deadline_however_many_they_are() {
    let rack = Arc::new(Rack::new(1, &DomainKey([7; 32]), 1 << 20, 1 << 20, None));
    let _neighbour = silent::of(&rack).await;
    let mut receiver = receiver(&rack, REFERENCES).await;
    let mut fetches = Fetches::new(rack, Arc::default());
    let start = Instant::now();
    let asked = until_asked(&mut receiver, &mut fetches, REFERENCES as usize).await;
    let taken = start.elapsed();
    assert_eq!(asked.len(), REFERENCES as usize, "each of them once");
    assert!(
        taken >= FETCH_TIMEOUT && taken < FETCH_TIMEOUT + Duration::from_millis(100),
        "{taken:?}"
    );
}

/// So does a neighbour whose rack view is late: it has not heard yet that VMs are on their way to this host.
#[tokio::test(start_paused = true)]
async fn references_that_a_neighbour_refuses_are_supplied_by_the_source() {
    let rack = Arc::new(Rack::new(1, &DomainKey([7; 32]), 1 << 20, 1 << 20, None));
    let neighbour = silent::start().await;
    rack.set_members(std::slice::from_ref(&neighbour.member));
    let mut receiver = receiver(&rack, 2).await;
    let mut fetches = Fetches::new(rack, Arc::default());
    let asked = until_asked(&mut receiver, &mut fetches, 2).await;
    assert_eq!(asked.len(), 2, "each of them once");
    let pages: Vec<u8> = asked.iter().flat_map(|lost| content(lost.index)).collect();
    let mut payload = Vec::new();
    encode_supply(&asked, false, pages.len(), &mut payload);
    payload.extend(pages);
    receiver.frame(Kind::Supply, &payload).await.unwrap();
    assert!(take(&mut receiver, FromSource::RamEnd).await.is_some(), "no reference is open");
}
