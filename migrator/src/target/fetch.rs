//! Contents from neighbours.

use rackferry_dedup_index::{Digest, PAGE_SIZE};
use rackferry_migrator_protocol::frame::{FETCH_ABSENT, FETCH_PRESENT, FetchReplyView};

use super::Fetched;
use crate::limits::FETCH_TIMEOUT;
use crate::rack::Rack;
use crate::stats::{Counters, add};

/// Asks a neighbour for contents and verifies what comes. Whatever goes wrong counts as absent.
pub async fn fetch(
    rack: &Rack,
    counters: &Counters,
    host: u32,
    wanted: Vec<(Digest, u64)>,
) -> Fetched {
    let digests: Vec<Digest> = wanted.iter().map(|w| w.0).collect();
    let nothing = || Fetched {
        wanted: digests.clone(),
        states: vec![FETCH_ABSENT; digests.len()],
        pages: Vec::new(),
    };
    let Some(answer) = rack.fetch(host, wanted).await else { return nothing() };
    let Ok(Ok(payload)) = tokio::time::timeout(FETCH_TIMEOUT, answer).await else {
        return nothing();
    };
    let Ok(view) = FetchReplyView::decode(&payload) else { return nothing() };
    if view.states.len() != digests.len() {
        return nothing();
    }
    let (pages, _) = view.pages.as_chunks::<PAGE_SIZE>();
    let refs: Vec<&[u8; PAGE_SIZE]> = pages.iter().collect();
    let mut actual = Vec::with_capacity(refs.len());
    rack.hasher.digest_batch(&refs, &mut actual);
    let mut states = view.states.to_vec();
    let mut matching = Vec::with_capacity(view.pages.len());
    let present = states.iter_mut().zip(&digests).filter(|(s, _)| **s == FETCH_PRESENT);
    for (((state, wanted), page), actual) in present.zip(pages).zip(&actual) {
        if wanted == actual {
            matching.extend_from_slice(page);
        } else {
            add(&counters.verify_failures, 1);
            *state = FETCH_ABSENT;
        }
    }
    Fetched { wanted: digests, states, pages: matching }
}
