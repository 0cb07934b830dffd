//! A neighbour that is silent costs one deadline, whatever is asked of it. Time is virtual.

use rackferry_dedup_index::{ClaimAnswer, Digest, DomainKey};
use rackferry_migrator_protocol::frame::{ClaimRequest, Holder};

use super::super::silent::{self, HOST, Neighbour};
use super::super::{Rack, Scope};
use super::*;
use crate::limits::CLAIM_TIMEOUT;

const LIMIT: Duration = Duration::from_millis(700);
const CLAIMANT: Holder = Holder { host: 11, session: 3 };

fn link(neighbour: &Neighbour) -> Link {
    Link::start(1, neighbour.member.clone(), None)
}

async fn claim(link: &Link, number: u64) -> Pending {
    let tokens = vec![Digest([7; 16])];
    let mut payload = Vec::new();
    let claim = ClaimRequest { request: number, crossing: 1, claimant: CLAIMANT, tokens };
    claim.encode(&mut payload);
    link.ask(Kind::Claim, number, payload, LIMIT).await
}

#[tokio::test(start_paused = true)]
async fn after_the_first_missed_deadline_all_requests_are_answered_at_once() {
    let neighbour = silent::start().await;
    let link = link(&neighbour);
    assert!(claim(&link, 0).await.answer().await.is_some(), "the connection is made");
    neighbour.awake.send_replace(false);
    let start = Instant::now();
    let mut asked = Vec::new();
    // More than the queue takes.
    for number in 1..3 * NEIGHBOUR_REQUESTS as u64 {
        asked.push(claim(&link, number).await);
    }
    for one in asked {
        assert_eq!(one.answer().await, None);
    }
    // A timer of the runtime is a millisecond coarse.
    let taken = start.elapsed();
    assert!(taken >= LIMIT && taken < LIMIT * 2, "one deadline for all: {taken:?}");
    assert!(link.breaker.is_open());
    let late = Instant::now();
    for number in 1000..1100 {
        assert_eq!(claim(&link, number).await.answer().await, None);
    }
    assert_eq!(late.elapsed(), Duration::ZERO, "no deadline any more");
}

#[tokio::test(start_paused = true)]
async fn the_breaker_closes_once_the_neighbour_greets_again() {
    let neighbour = silent::start().await;
    neighbour.awake.send_replace(false);
    let link = link(&neighbour);
    assert_eq!(claim(&link, 1).await.answer().await, None);
    neighbour.awake.send_replace(true);
    while link.breaker.is_open() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let answer = claim(&link, 2).await.answer().await.expect("an answer");
    assert_eq!(ClaimReply::decode(&answer).unwrap().request, 2);
}

#[tokio::test(start_paused = true)]
async fn a_neighbour_that_talks_late_loses_only_the_late_request() {
    let neighbour = silent::start().await;
    let link = link(&neighbour);
    assert!(claim(&link, 1).await.answer().await.is_some());
    neighbour.awake.send_replace(false);
    let slow = claim(&link, 2).await;
    tokio::time::sleep(LIMIT / 2).await;
    let later = claim(&link, 3).await;
    // It answers the second request, which was sent before, at the last moment.
    neighbour.awake.send_replace(true);
    assert!(slow.answer().await.is_some() && later.answer().await.is_some());
    assert!(!link.breaker.is_open());
}

#[tokio::test(start_paused = true)]
async fn a_neighbour_that_cannot_be_reached_is_dialled_in_the_background() {
    let mut neighbour = silent::start().await;
    // Nothing listens there.
    neighbour.member.page_addr = "127.0.0.1:1".into();
    let link = link(&neighbour);
    let start = Instant::now();
    for number in 0..10 {
        assert_eq!(claim(&link, number).await.answer().await, None);
    }
    assert!(start.elapsed() < LIMIT, "the dial's failure answers: {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn claims_at_a_silent_shard_are_granted_after_one_deadline_together() {
    let rack = Rack::new(1, &DomainKey([7; 32]), 1 << 20, 1 << 20, None);
    let _neighbour = silent::of(&rack).await;
    let digests: Vec<Digest> = (0..64).map(|n| Digest([n; 16])).collect();
    let tokens = rack.hasher.tokens(&digests);
    let theirs = rack.by_owner(Scope::Rack, &tokens).iter().any(|(host, _)| *host == HOST);
    assert!(theirs, "the neighbour has a part of the index");
    let start = Instant::now();
    let mut batches = Vec::new();
    for crossing in 0..8 {
        batches.push(rack.claim(Scope::Rack, crossing, CLAIMANT, &digests).await);
        tokio::time::sleep(CLAIM_TIMEOUT / 16).await;
    }
    for batch in batches {
        assert!(batch.finish().await.iter().all(Option::is_none), "the claimant's to send");
    }
    let taken = start.elapsed();
    assert!(taken < CLAIM_TIMEOUT * 3 / 2, "deadlines run from the claim: {taken:?}");
}

#[tokio::test(start_paused = true)]
async fn no_shard_and_no_link_sees_a_digest() {
    let rack = Rack::new(1, &DomainKey([7; 32]), 1 << 20, 1 << 20, None);
    let neighbour = silent::start().await;
    rack.set_members(std::slice::from_ref(&neighbour.member));
    let digests: Vec<Digest> = (0..64).map(|n| Digest([n; 16])).collect();
    let answers = rack.claim(Scope::Rack, 1, CLAIMANT, &digests).await.finish().await;
    rack.forget(Scope::Rack, 1, &[(digests[0], CLAIMANT)]);
    let there = neighbour.claimed();
    let here = |names: &[Digest]| {
        let mut out = Vec::new();
        rack.shard.claim(1, Holder { host: 12, session: 4 }, names, &mut out);
        out.iter()
            .filter(|answer| matches!(answer, ClaimAnswer::Taken(h) if *h == CLAIMANT))
            .count()
    };
    assert!(!there.is_empty() && answers.iter().any(Option::is_some), "the neighbour was asked");
    assert!(!there.iter().any(|name| digests.contains(name)), "by no digest");
    assert_eq!(here(&digests), 0, "the own shard knows no digest");
    let tokens = rack.hasher.tokens(&digests);
    let known = here(&tokens);
    assert!(known > 0 && known + there.len() >= digests.len() - 1, "it knows tokens: {known}");
}
