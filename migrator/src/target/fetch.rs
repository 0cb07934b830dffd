//! Contents from neighbours.

use std::sync::Arc;

use rackferry_dedup_index::{Digest, PAGE_SIZE};
use rackferry_migrator_protocol::frame::{FETCH_ABSENT, FETCH_PRESENT, FetchReplyView};

use tokio::task::JoinSet;

use crate::rack::Rack;
use crate::stats::{Counters, add};

/// Requests to neighbours of one session at a time: enough to hide a round trip behind 1 MiB of pages.
const FETCHES: usize = 8;

/// The answer of a neighbour, verified.
#[derive(Debug)]
pub struct Fetched {
    /// What was asked for.
    pub wanted: Vec<Digest>,
    /// One state a digest ([`FETCH_PRESENT`]...).
    pub states: Vec<u8>,
    /// The pages that are present and match, in order.
    pub pages: Vec<u8>,
}

/// The requests of one session that are under way.
#[derive(Debug)]
pub struct Fetches {
    rack: Arc<Rack>,
    counters: Arc<Counters>,
    tasks: JoinSet<Fetched>,
}

impl Fetches {
    /// None under way.
    pub fn new(rack: Arc<Rack>, counters: Arc<Counters>) -> Self {
        Self { rack, counters, tasks: JoinSet::new() }
    }

    /// Requests that may be begun.
    pub fn room(&self) -> usize {
        FETCHES.saturating_sub(self.tasks.len())
    }

    /// Asks a neighbour for contents, in the background.
    pub fn begin(&mut self, host: u32, wanted: Vec<(Digest, u64)>) {
        let (rack, counters) = (self.rack.clone(), self.counters.clone());
        self.tasks.spawn(async move { fetch(&rack, &counters, host, wanted).await });
    }

    /// The next answer, whichever request it is of; none if no request is under way. Cancel safe.
    pub async fn next(&mut self) -> Option<Fetched> {
        loop {
            // A request that panicked, which none does, leaves its contents to the source's time-out.
            match self.tasks.join_next().await? {
                Ok(fetched) => return Some(fetched),
                Err(error) => tracing::error!(%error, "a fetch"),
            }
        }
    }
}

/// Asks a neighbour for contents and verifies what comes. Whatever goes wrong counts as absent.
async fn fetch(rack: &Rack, counters: &Counters, host: u32, wanted: Vec<(Digest, u64)>) -> Fetched {
    let digests: Vec<Digest> = wanted.iter().map(|w| w.0).collect();
    let nothing = || Fetched {
        wanted: digests.clone(),
        states: vec![FETCH_ABSENT; digests.len()],
        pages: Vec::new(),
    };
    let Some(payload) = rack.fetch(host, wanted).await else { return nothing() };
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

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;
