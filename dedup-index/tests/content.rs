//! The content map against a plain map.

mod support;

use std::collections::HashMap;

use proptest::prelude::*;
use rackferry_dedup_index::{ContentMap, Digest, Location};
use support::digests;

const UNIVERSE: usize = 400;

#[derive(Clone, Debug)]
enum Call {
    Insert(u32, Vec<(usize, u32)>),
    Lookup(Vec<usize>),
    Remove(usize, Location),
    RemoveMemory(u32),
}

fn call() -> impl Strategy<Value = Call> {
    let location = (0u32..3, 0u32..3).prop_map(|(memory, page)| Location { memory, page });
    let entries = prop::collection::vec((0..UNIVERSE, 0u32..3), 0..600);
    prop_oneof![
        4 => (0u32..3, entries).prop_map(|(memory, entries)| Call::Insert(memory, entries)),
        2 => prop::collection::vec(0..UNIVERSE, 0..600).prop_map(Call::Lookup),
        4 => (0..UNIVERSE, location).prop_map(|(at, location)| Call::Remove(at, location)),
        1 => (0u32..3).prop_map(Call::RemoveMemory),
    ]
}

proptest! {
    #[test]
    fn behaves_like_a_map(calls in prop::collection::vec(call(), 1..40)) {
        let all = digests(UNIVERSE, 1);
        let (map, mut model) = (ContentMap::with_ceiling(1 << 20), HashMap::new());
        for call in calls {
            match call {
                Call::Insert(memory, entries) => {
                    let entries: Vec<_> = entries.iter().map(|(at, page)| (all[*at], *page)).collect();
                    map.insert_batch(memory, &entries);
                    for (digest, page) in entries {
                        model.insert(digest, Location { memory, page });
                    }
                }
                Call::Lookup(at) => {
                    let asked: Vec<Digest> = at.iter().map(|&at| all[at]).collect();
                    let mut found = vec![None];
                    map.lookup_batch(&asked, &mut found);
                    let wanted: Vec<_> = asked.iter().map(|digest| model.get(digest).copied()).collect();
                    prop_assert_eq!(&found[1..], wanted);
                }
                Call::Remove(at, location) => {
                    let wanted = model.get(&all[at]) == Some(&location);
                    if wanted {
                        model.remove(&all[at]);
                    }
                    prop_assert_eq!(map.remove(&all[at], location), wanted);
                }
                Call::RemoveMemory(memory) => {
                    let before = model.len();
                    model.retain(|_, location| location.memory != memory);
                    prop_assert_eq!(map.remove_memory(memory), before - model.len());
                }
            }
            prop_assert_eq!(map.len(), model.len());
        }
    }
}

#[test]
fn full_it_refuses_the_unknown_and_updates_the_known() {
    let map = ContentMap::with_ceiling(100_000);
    let entries: Vec<(Digest, u32)> = digests(10_000, 2).into_iter().zip(0..).collect();
    map.insert_batch(1, &entries);
    let stats = map.stats();
    assert!(stats.refused > 0);
    assert_eq!(stats.entries as u64 + stats.refused, entries.len() as u64);

    map.insert_batch(2, &entries);
    assert_eq!(map.len(), stats.entries);
    assert_eq!(map.remove_memory(1), 0, "all of them lie in the new memory now");
    assert_eq!(map.remove_memory(2), stats.entries);
}
