//! Memory stays below the ceiling whatever is put in, as the allocator sees it.

mod support;

use allocation_counter::measure;
use proptest::prelude::*;
use rackferry_dedup_index::{ContentMap, Digest, Holder, IndexShard};
use support::digests;

/// What a shard or map takes when its ceiling leaves no room for entries.
const FRAME_BYTES: usize = 1024;

/// Digests that a hostile peer might send: all alike in their leading, trailing or all bits.
fn crafted(count: usize, kind: u8) -> Vec<Digest> {
    let digest = |at: usize| {
        let mut bytes = [kind; 16];
        let from = if kind.is_multiple_of(2) { 0 } else { 8 };
        bytes[from..from + 8].copy_from_slice(&(at as u64).to_le_bytes());
        Digest(bytes)
    };
    (0..count).map(digest).collect()
}

/// Peak of bytes allocated by `work`, beside the shard's own opinion.
fn peak(work: impl FnOnce()) -> usize {
    measure(work).bytes_max as usize
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_shard_stays_below(
        ceiling in prop_oneof![0usize..20_000, 0usize..2_000_000],
        rounds in prop::collection::vec((0u64..3, 0u64..500, 0usize..8_000, any::<u8>()), 1..12),
    ) {
        let inputs: Vec<_> = rounds
            .iter()
            .map(|&(crossing, session, count, kind)| {
                let digests = if kind < 200 { digests(count, session) } else { crafted(count, kind) };
                (crossing, session, digests, kind)
            })
            .collect();
        let mut answers = Vec::with_capacity(8_000);
        let mut reported = 0;
        let peak = peak(|| {
            let shard = IndexShard::with_ceiling(ceiling);
            for (crossing, session, digests, kind) in &inputs {
                // Many sessions with few claims each, or one with many.
                let claims = if kind % 3 == 0 { 20 } else { digests.len().max(1) };
                for (at, batch) in digests.chunks(claims).enumerate() {
                    let session = session + at as u64;
                    answers.clear();
                    shard.claim(*crossing, Holder { host: 1, session }, batch, &mut answers);
                    reported = reported.max(shard.bytes());
                }
                match kind % 5 {
                    0 => drop(shard.revoke(*session)),
                    1 => drop(shard.retain_crossings(&[*crossing])),
                    _ => {}
                }
            }
        });
        prop_assert!(peak <= ceiling.max(FRAME_BYTES), "peak {} of {}", peak, ceiling);
        prop_assert!(reported <= ceiling, "said {} of {}", reported, ceiling);
    }

    #[test]
    fn a_map_stays_below(
        ceiling in prop_oneof![0usize..20_000, 0usize..2_000_000],
        rounds in prop::collection::vec((0u32..3, 0usize..20_000, any::<u8>()), 1..8),
    ) {
        let inputs: Vec<_> = rounds
            .iter()
            .map(|&(memory, count, kind)| {
                let digests = if kind < 200 { digests(count, kind.into()) } else { crafted(count, kind) };
                (memory, digests.into_iter().zip(0..).collect::<Vec<_>>(), kind)
            })
            .collect();
        let mut reported = 0;
        let peak = peak(|| {
            let map = ContentMap::with_ceiling(ceiling);
            for (memory, entries, kind) in &inputs {
                map.insert_batch(*memory, entries);
                reported = reported.max(map.bytes());
                if kind % 4 == 0 {
                    map.remove_memory(*memory);
                }
            }
        });
        prop_assert!(peak <= ceiling.max(FRAME_BYTES), "peak {} of {}", peak, ceiling);
        prop_assert!(reported <= ceiling, "said {} of {}", reported, ceiling);
    }
}

/// The stated size of an entry, for sizes that suit the table's powers of two well and badly.
#[test]
fn a_full_shard_keeps_what_its_entry_size_promises() {
    for room in [2_000, 3_000, 10_000, 13_777, 60_000, 100_000, 250_000] {
        let ceiling = room * IndexShard::ENTRY_BYTES;
        let offered = digests(3 * room, room as u64);
        let mut answers = Vec::with_capacity(offered.len());
        let peak = peak(|| {
            let shard = IndexShard::with_ceiling(ceiling);
            shard.claim(1, Holder { host: 1, session: 1 }, &offered, &mut answers);
            let stats = shard.stats();
            assert!(stats.entries >= room, "{} entries of {room}", stats.entries);
            assert_eq!(stats.entries as u64 + stats.unentered, offered.len() as u64);
        });
        assert!(peak <= ceiling, "{peak} bytes of {ceiling}");
    }
}

#[test]
fn a_full_map_keeps_what_its_entry_size_promises() {
    for room in [2_000, 3_000, 10_000, 13_777, 60_000, 100_000, 250_000] {
        let map = ContentMap::with_ceiling(room * ContentMap::ENTRY_BYTES);
        let offered: Vec<_> = digests(3 * room, room as u64).into_iter().zip(0..).collect();
        map.insert_batch(1, &offered);
        assert!(map.len() >= room, "{} entries of {room}", map.len());
    }
}

/// What is said to be held is what the allocator gave, but for the frame.
#[test]
fn the_bytes_told_are_the_bytes_allocated() {
    let offered = digests(200_000, 9);
    let mut answers = Vec::with_capacity(offered.len());
    let mut shard = None;
    let info = measure(|| {
        let made = shard.insert(IndexShard::with_ceiling(64 << 20));
        made.claim(1, Holder { host: 1, session: 1 }, &offered, &mut answers);
    });
    let told = shard.expect("it was made").bytes() as i64;
    assert!((0..8_192).contains(&(told - info.bytes_current)), "{told}, {info:?}");
}
