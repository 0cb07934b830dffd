//! The index shard against a plain map, and under threads.

mod support;

use std::collections::{HashMap, HashSet};
use std::sync::Barrier;

use proptest::prelude::*;
use rackferry_dedup_index::{ClaimAnswer, Digest, Holder, IndexShard};
use support::digests;

const MEBIBYTE: usize = 1 << 20;

/// One call. Digests are positions in a fixed list, so that calls meet.
#[derive(Clone, Debug)]
enum Call {
    Claim(u64, Holder, Vec<usize>),
    Resolve(u64, Vec<usize>),
    Forget(u64, usize, Holder),
    Revoke(u64),
    Close(u64),
}

const UNIVERSE: usize = 400;

fn claimant() -> impl Strategy<Value = Holder> {
    (0u32..2, 0u64..4).prop_map(|(host, session)| Holder { host, session })
}

fn call() -> impl Strategy<Value = Call> {
    let crossing = || 0u64..3;
    // Longer than one block of the table's batches, with repetitions.
    let batch = || prop::collection::vec(0..UNIVERSE, 0..600);
    prop_oneof![
        6 => (crossing(), claimant(), batch()).prop_map(|(x, who, d)| Call::Claim(x, who, d)),
        3 => (crossing(), batch()).prop_map(|(x, d)| Call::Resolve(x, d)),
        3 => (crossing(), 0..UNIVERSE, claimant()).prop_map(|(x, d, who)| Call::Forget(x, d, who)),
        1 => (0u64..4).prop_map(Call::Revoke),
        1 => crossing().prop_map(Call::Close),
    ]
}

/// What the shard ought to be.
#[derive(Default)]
struct Model(HashMap<(u64, Digest), Holder>);

impl Model {
    fn claim(&mut self, crossing: u64, who: Holder, digests: &[Digest]) -> Vec<ClaimAnswer> {
        let mut answer = |digest: &Digest| match self.0.get(&(crossing, *digest)) {
            Some(first) => ClaimAnswer::Taken(*first),
            None => {
                self.0.insert((crossing, *digest), who);
                ClaimAnswer::Yours
            }
        };
        digests.iter().map(&mut answer).collect()
    }

    fn drop_where(&mut self, gone: impl Fn(u64, Holder) -> bool) -> usize {
        let before = self.0.len();
        self.0.retain(|(crossing, _), who| !gone(*crossing, *who));
        before - self.0.len()
    }
}

proptest! {
    #[test]
    fn behaves_like_a_map(calls in prop::collection::vec(call(), 1..40)) {
        let all = digests(UNIVERSE, 1);
        let pick = |at: &[usize]| at.iter().map(|&at| all[at]).collect::<Vec<_>>();
        let (shard, mut model) = (IndexShard::with_ceiling(MEBIBYTE), Model::default());
        for call in calls {
            match call {
                Call::Claim(crossing, who, at) => {
                    let mut answers = vec![ClaimAnswer::Yours];
                    shard.claim(crossing, who, &pick(&at), &mut answers);
                    prop_assert_eq!(&answers[1..], model.claim(crossing, who, &pick(&at)));
                }
                Call::Resolve(crossing, at) => {
                    let mut answers = Vec::new();
                    shard.resolve(crossing, &pick(&at), &mut answers);
                    let wanted = pick(&at).into_iter().map(|d| model.0.get(&(crossing, d)).copied());
                    prop_assert_eq!(answers, wanted.collect::<Vec<_>>());
                }
                Call::Forget(crossing, at, who) => {
                    let key = (crossing, all[at]);
                    let wanted = model.0.get(&key) == Some(&who);
                    if wanted {
                        model.0.remove(&key);
                    }
                    prop_assert_eq!(shard.forget(crossing, &all[at], who), wanted);
                }
                Call::Revoke(session) => {
                    let wanted = model.drop_where(|_, who| who.session == session);
                    prop_assert_eq!(shard.revoke(session), wanted);
                }
                Call::Close(open) => {
                    let wanted = model.drop_where(|crossing, _| crossing != open);
                    prop_assert_eq!(shard.retain_crossings(&[open]), wanted);
                }
            }
            prop_assert_eq!(shard.len(), model.0.len());
            prop_assert_eq!(shard.stats().unentered, 0);
        }
    }
}

#[test]
fn the_same_digest_twice_in_a_batch_is_granted_once() {
    let (shard, digest) = (IndexShard::with_ceiling(MEBIBYTE), digests(1, 2)[0]);
    let me = Holder { host: 1, session: 2 };
    let mut answers = Vec::new();
    shard.claim(9, me, &[digest; 3], &mut answers);
    assert_eq!(answers, [ClaimAnswer::Yours, ClaimAnswer::Taken(me), ClaimAnswer::Taken(me)]);
    let stats = shard.stats();
    assert_eq!((stats.entries, stats.owners, stats.claims, stats.taken), (1, 1, 3, 2));
}

#[test]
fn gives_its_memory_back() {
    let shard = IndexShard::with_ceiling(4 * MEBIBYTE);
    let empty = shard.bytes();
    shard.claim(1, Holder { host: 1, session: 1 }, &digests(50_000, 3), &mut Vec::new());
    assert!(shard.bytes() > MEBIBYTE);
    assert_eq!(shard.retain_crossings(&[2]), 50_000);
    assert!(shard.is_empty());
    assert!(shard.bytes() < empty + 1024, "{} bytes, {empty} before", shard.bytes());
}

/// Forgetting leaves marks in the table; they must not use it up.
#[test]
fn churn_does_not_wear_the_table_out() {
    let room = 10_000;
    let shard = IndexShard::with_ceiling(room * IndexShard::ENTRY_BYTES);
    let me = Holder { host: 1, session: 1 };
    let all = digests(20 * room, 4);
    let kept = room * 3 / 4;
    for (at, digest) in all.iter().enumerate() {
        shard.claim(1, me, &[*digest], &mut Vec::new());
        if at >= kept {
            assert!(shard.forget(1, &all[at - kept], me), "entry {}", at - kept);
        }
    }
    assert_eq!((shard.len(), shard.stats().unentered), (kept, 0));
}

#[test]
fn of_many_threads_one_is_granted() {
    const THREADS: usize = 4;
    let shard = IndexShard::with_ceiling(8 * MEBIBYTE);
    let all = digests(20_000, 5);
    let start = Barrier::new(THREADS);
    let granted = |session: u64| {
        let me = Holder { host: 1, session };
        let mut mine = Vec::new();
        start.wait();
        for batch in all.chunks(300) {
            let mut answers = Vec::new();
            shard.claim(1, me, batch, &mut answers);
            let yours = batch.iter().zip(answers).filter(|(_, a)| *a == ClaimAnswer::Yours);
            mine.extend(yours.map(|(digest, _)| *digest));
        }
        mine
    };
    let granted: Vec<Digest> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..THREADS).map(|session| scope.spawn(move || granted(session as u64))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(granted.len(), all.len());
    assert_eq!(granted.into_iter().collect::<HashSet<_>>().len(), all.len());
}

/// A revoked session's number goes to the next session: never may the latter inherit an entry.
#[test]
fn nobody_inherits_a_revoked_claim() {
    let shard = IndexShard::with_ceiling(8 * MEBIBYTE);
    let all = digests(5_000, 6);
    let claim_and_revoke = |worker: u64| {
        for round in 0..200 {
            let me = Holder { host: worker as u32, session: worker << 32 | round };
            let part = &all[(round as usize * 17 % 4_000)..][..1_000];
            let mut answers = Vec::new();
            shard.claim(1, me, part, &mut answers);
            let mut owners = Vec::new();
            shard.resolve(1, part, &mut owners);
            for (answer, owner) in answers.into_iter().zip(owners) {
                let granted = answer == ClaimAnswer::Yours;
                assert_eq!(granted, owner == Some(me), "{answer:?}, then {owner:?}");
            }
            assert!(shard.revoke(me.session) <= part.len());
            let mut after = Vec::new();
            shard.resolve(1, &all, &mut after);
            assert!(after.iter().flatten().all(|owner| *owner != me));
        }
    };
    std::thread::scope(|scope| {
        for worker in 1..=3 {
            scope.spawn(move || claim_and_revoke(worker));
        }
    });
    assert_eq!((shard.len(), shard.stats().owners), (0, 0));
}
