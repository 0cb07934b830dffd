//! Properties of parser and writer over made-up VMs: cuts, order and damage.

mod support;

use proptest::prelude::*;
use rackferry_migrator_protocol::stream::{
    Item, MAX_LOOKAHEAD, MAX_RECORD, PAGE_SIZE, StreamParser,
};
use support::{BLOCKS, Loaded, Raw, rewrite};

const RAM: u32 = 1;

/// A record: block, page, fill byte (0 is sent as a zero page).
type Record = (usize, u32, u8);

fn record() -> impl Strategy<Value = Record> {
    (0..BLOCKS.len(), any::<u32>(), 0..4u8).prop_map(|(block, page, fill)| {
        let (_, pages) = BLOCKS[block];
        (block, page % pages, fill)
    })
}

fn rounds() -> impl Strategy<Value = Vec<Vec<Record>>> {
    prop::collection::vec(prop::collection::vec(record(), 0..12), 0..5)
}

fn stream(rounds: &[Vec<Record>]) -> Vec<u8> {
    let mut raw = Raw::header();
    raw.command(1, &[]).ram_start(RAM);
    let mut last = None;
    for (number, round) in rounds.iter().enumerate() {
        if number % 2 == 1 {
            raw.command(2, &[0; 4]);
        }
        raw.part(if number + 1 == rounds.len() { 3 } else { 2 }, RAM);
        for &(block, page, fill) in round {
            let mut word = (u64::from(page) * 4096) | if fill == 0 { 2 } else { 8 };
            if last == Some(block) {
                word |= 0x20;
            }
            raw.be64(word);
            if last != Some(block) {
                raw.name(BLOCKS[block].0);
                last = Some(block);
            }
            // Contents differ by where they are sent, so that an older one in the end would show.
            let mut content = [fill; PAGE_SIZE];
            content[..8].copy_from_slice(&raw.0.len().to_be_bytes());
            raw.put(if fill == 0 { &[0] } else { &content });
        }
        raw.eos(RAM);
    }
    if rounds.is_empty() {
        raw.part(3, RAM).eos(RAM);
    }
    raw.section(4, 9, "timer", 2).put(&[0x7e; 500]);
    raw.0
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn cuts_do_not_matter(
        rounds in rounds(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let stream = stream(&rounds);
        let whole = Loaded::from_stream(&stream).expect("a good stream");
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
        cuts.sort_unstable();
        prop_assert_eq!(Loaded::from_pieces(&stream, cuts).expect("a good stream"), whole);
    }

    #[test]
    fn single_bytes_are_enough(rounds in prop::collection::vec(prop::collection::vec(record(), 0..3), 0..2)) {
        let stream = stream(&rounds);
        let whole = Loaded::from_stream(&stream).expect("a good stream");
        prop_assert_eq!(Loaded::from_pieces(&stream, 0..stream.len()).expect("good"), whole);
    }

    #[test]
    fn little_is_left_unconsumed(rounds in rounds(), cut in any::<prop::sample::Index>()) {
        let stream = stream(&rounds);
        let cut = cut.index(stream.len());
        let mut items = Vec::new();
        let consumed = StreamParser::new().parse(&stream[..cut], &mut items).expect("good");
        prop_assert!(cut - consumed < MAX_RECORD.min(MAX_LOOKAHEAD));
    }

    #[test]
    fn a_rewritten_stream_loads_the_same(rounds in rounds(), piece in 5000..20_000usize) {
        let stream = stream(&rounds);
        let expected = Loaded::from_stream(&stream).expect("a good stream");
        let again = rewrite(&stream, piece, |_| {});
        let loaded = Loaded::from_stream(&again).expect("the writer's streams are good");
        prop_assert_eq!(&loaded.pages, &expected.pages);
        prop_assert_eq!(loaded.other, expected.other);
        prop_assert_eq!(loaded.records, expected.records);
    }

    #[test]
    fn order_of_different_pages_does_not_matter(rounds in rounds(), seed in any::<u64>()) {
        let stream = stream(&rounds);
        let expected = Loaded::from_stream(&stream).expect("a good stream");
        let again = rewrite(&stream, 1 << 20, |items| shuffle(items, seed));
        let loaded = Loaded::from_stream(&again).expect("the writer's streams are good");
        prop_assert_eq!(loaded.pages, expected.pages);
    }

    #[test]
    fn damaged_streams_never_panic(
        rounds in rounds(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0..8u32), 1..6),
        end in any::<prop::sample::Index>(),
    ) {
        let mut stream = stream(&rounds);
        for (at, bit) in flips {
            let at = at.index(stream.len());
            stream[at] ^= 1 << bit;
        }
        stream.truncate(end.index(stream.len()) + 1);
        let mut items = Vec::new();
        let _ = StreamParser::new().parse(&stream, &mut items);
        for item in items {
            match item {
                Item::Page { at, .. } => prop_assert!(at + PAGE_SIZE <= stream.len()),
                Item::Bytes { range, .. } | Item::RamStart { head: range, .. } => {
                    prop_assert!(range.start <= range.end && range.end <= stream.len());
                }
                _ => {}
            }
        }
    }
}

/// Rearranges neighbouring records of different pages.
fn shuffle(items: &mut [Item], mut seed: u64) {
    let id = |item: &Item| match *item {
        Item::Page { block, page, .. } | Item::Zero { block, page } => Some((block, page)),
        _ => None,
    };
    for _ in 0..8 {
        for at in 1..items.len() {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (a, b) = (id(&items[at - 1]), id(&items[at]));
            if a.is_some() && b.is_some() && a != b && seed >> 63 == 1 {
                items.swap(at - 1, at);
            }
        }
    }
}
