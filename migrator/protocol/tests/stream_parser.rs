//! The parser of the main channel, on streams made by hand: what it finds and what it refuses.

mod support;

use rackferry_migrator_protocol::stream::{
    FallbackReason, Item, Malformed, PAGE_SIZE, PageId, Refusal, StreamError, StreamParser,
};
use support::{BLOCKS, Raw};

const RAM: u32 = 2;
const ONES: [u8; PAGE_SIZE] = [1; PAGE_SIZE];

fn refusal(raw: &Raw) -> Refusal {
    match raw.parse() {
        Err(StreamError::Refused { refusal, .. }) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

fn malformed(raw: &Raw) -> Malformed {
    match raw.parse() {
        Err(StreamError::Malformed { malformed, .. }) => malformed,
        other => panic!("not found malformed: {other:?}"),
    }
}

#[test]
fn a_whole_stream_is_taken_apart() {
    let mut raw = Raw::header();
    raw.command(1, &[]).command(2, &[0, 0, 0, 1]);
    let start = raw.0.len();
    raw.ram_head(RAM);
    let head = start..raw.0.len();
    raw.eos(RAM).part(2, RAM).page("pc.ram", 5, &ONES);
    let first = raw.0.len() - PAGE_SIZE;
    raw.zero_continued(6).eos(RAM);
    // The block of the part before is continued.
    raw.part(2, RAM).page_continued(7, &ONES);
    let second = raw.0.len() - PAGE_SIZE;
    raw.eos(RAM).command(11, &[]).part(3, RAM);
    let command = raw.0.len() - 10..raw.0.len() - 5;
    raw.eos(RAM);
    let rest = raw.0.len();
    raw.section(4, 0, "timer", 2).put(&[1, 2, 3]);

    let items = raw.parse().expect("a good stream");
    let expected = [
        Item::Bytes { range: 0..start, boundary: true },
        Item::RamStart { section_id: RAM, head, modern_multifd: false },
        Item::SectionEnd,
        Item::Page { block: 0, page: 5, at: first },
        Item::Zero { block: 0, page: 6 },
        Item::SectionEnd,
        Item::Page { block: 0, page: 7, at: second },
        Item::SectionEnd,
        Item::Bytes { range: command, boundary: true },
        Item::SectionEnd,
        Item::RamEnd,
        Item::Bytes { range: rest..raw.0.len(), boundary: false },
    ];
    assert_eq!(items, expected);
}

#[test]
fn blocks_are_listed() {
    let mut parser = StreamParser::new();
    let mut raw = Raw::header();
    raw.ram_start(RAM);
    parser.parse(&raw.0, &mut Vec::new()).expect("a good stream");
    let blocks: Vec<_> = parser.blocks().iter().map(|b| (&*b.name, b.pages())).collect();
    assert_eq!(blocks, BLOCKS);
    assert_eq!(parser.machine(), Some("pc-q35-7.2"));
    assert_eq!(parser.blocks().find(b"pc.bios"), Some(1));
}

#[test]
fn page_sizes_in_the_block_list_are_told_from_names() {
    let mut raw = Raw::header();
    raw.command(3, &[0; 16]).section(1, RAM, "ram", 4).be64(0x40_0000 | 4);
    raw.name("a").be64(0x20_0000).be64(0x20_0000);
    raw.name("b").be64(0x10_0000);
    raw.name("c").be64(0x10_0000).be64(0x20_0000);
    raw.eos(RAM);
    let mut parser = StreamParser::new();
    let mut items = Vec::new();
    parser.parse(&raw.0, &mut items).expect("a good stream");
    let sizes: Vec<_> = parser.blocks().iter().map(|b| b.page_size).collect();
    assert_eq!(sizes, [Some(0x20_0000), None, Some(0x20_0000)]);
    assert!(parser.postcopy_advised());
    assert_eq!(items.last(), Some(&Item::SectionEnd));
}

#[test]
fn modern_multifd_shows_in_the_start() {
    let mut raw = Raw::header();
    raw.ram_head(RAM).be64(0x200).eos(RAM);
    let items = raw.parse().expect("a good stream");
    assert!(matches!(items[1], Item::RamStart { modern_multifd: true, .. }));
    assert_eq!(items[2..], [Item::MultifdFlush, Item::SectionEnd]);
}

#[test]
fn sections_with_known_forms_are_forwarded() {
    let mut raw = Raw::header();
    let bitmap = |raw: &mut Raw| {
        // Names, then bits with data, then zeroes, then the end; flags of one, two and four bytes.
        raw.put(&[0x1c]).name("node").name("bitmap").put(&[0, 1, 0, 0, 0]);
        raw.put(&[0x80, 0x40]).be64(0).put(&[0; 4]).be64(3).put(&[9; 3]);
        raw.put(&[0x80, 0x80, 0, 0x42]).be64(0).put(&[0; 4]).put(&[0x20, 0x01]);
    };
    raw.section(1, 7, "dirty-bitmap", 1);
    bitmap(&mut raw);
    raw.footer(7).section(1, 8, "0000:00:04.0/vfio", 1);
    raw.be64(0xffff_ffff_ef10_0003).be64(0xffff_ffff_ef10_0001).footer(8);
    raw.section(4, 9, "0000:00:05.0/virtio-mem-device-early", 1);
    raw.be64(0).be64(65 << 21).be64(1 << 21).put(&[0; 4]).be64(0).put(&[0xff; 16]).footer(9);
    let before = raw.0.len();
    raw.ram_start(RAM);
    let start = raw.0.len();
    raw.part(2, 8).be64(0xffff_ffff_ef10_0004).be64(5).put(b"bytes");
    raw.be64(0xffff_ffff_ef10_0005).footer(8).part(2, 7);
    bitmap(&mut raw);
    raw.footer(7);

    let items = raw.parse().expect("a good stream");
    assert_eq!(items[0], Item::Bytes { range: 0..before, boundary: true });
    assert_eq!(items[3..], [Item::Bytes { range: start..raw.0.len(), boundary: true }]);
}

#[test]
fn unknown_things_end_the_parsing() {
    let mut unknown = Raw::header();
    let at = unknown.0.len();
    unknown.section(1, 3, "new-thing", 1).put(&[7; 100]);
    let items = unknown.parse().expect("it falls back");
    let reason = FallbackReason::Iterable("new-thing".into());
    assert_eq!(
        items,
        [
            Item::Bytes { range: 0..at, boundary: false },
            Item::Fallback { reason, last: None },
            Item::Bytes { range: at..unknown.0.len(), boundary: false },
        ]
    );

    let mut device = Raw::header();
    device.ram_start(RAM).part(2, RAM).page("pc.bios", 3, &ONES).eos(RAM);
    device.section(4, 3, "timer", 2);
    let items = device.parse().expect("it falls back");
    let last = Some(PageId { block: 1, page: 3 });
    let reason = FallbackReason::Device("timer".into());
    assert!(items.contains(&Item::Fallback { reason, last }));

    let mut configuration = Raw::header();
    configuration.put(&[5]).name("configuration/new").put(&[0, 0, 0, 1]);
    let items = configuration.parse().expect("it falls back");
    let reason = FallbackReason::Configuration("configuration/new".into());
    assert!(items.contains(&Item::Fallback { reason, last: None }));
}

#[test]
fn configuration_subsections_are_read() {
    let mut raw = Raw::header();
    raw.put(&[5]).name("configuration/target-page-bits").put(&[0, 0, 0, 1, 0, 0, 0, 12]);
    raw.put(&[5]).name("configuration/uuid").put(&[0, 0, 0, 1]).put(&[9; 16]);
    let end = raw.0.len();
    raw.ram_start(RAM);
    assert_eq!(raw.parse().expect("good")[0], Item::Bytes { range: 0..end, boundary: false });

    let mut raw = Raw::header();
    raw.put(&[5]).name("configuration/target-page-bits").put(&[0, 0, 0, 1, 0, 0, 0, 16]);
    assert_eq!(refusal(&raw), Refusal::PageSize(16));
    for (name, expected) in
        [("x-ignore-shared", Refusal::IgnoreShared), ("mapped-ram", Refusal::MappedRam)]
    {
        let mut raw = Raw::header();
        raw.put(&[5]).name("configuration/capabilities").put(&[0, 0, 0, 1, 0, 0, 0, 1]).name(name);
        assert_eq!(refusal(&raw), expected);
    }
}

#[test]
fn features_that_cannot_be_carried_are_refused() {
    let with = |word: u64| {
        let mut raw = Raw::header();
        raw.ram_start(RAM).part(2, RAM).be64(word).name("pc.ram");
        refusal(&raw)
    };
    assert_eq!(with(0x40), Refusal::Xbzrle);
    assert_eq!(with(0x100), Refusal::Compress);
    assert_eq!(with(0x80), Refusal::RdmaHook);

    for (command, expected) in [
        (4, Refusal::Postcopy { command: 4 }),
        (6, Refusal::Postcopy { command: 6 }),
        (7, Refusal::Postcopy { command: 7 }),
        (8, Refusal::Colo),
        (9, Refusal::PostcopyRecovery),
        (10, Refusal::PostcopyRecovery),
    ] {
        let mut raw = Raw::header();
        raw.command(command, &[]);
        assert_eq!(refusal(&raw), expected);
    }
    let mut unknown = Raw::header();
    unknown.command(99, &[1; 300]);
    assert!(unknown.parse().is_ok(), "an unknown command is skipped by its length");

    let mut block = Raw::header();
    block.section(1, 1, "block", 1);
    assert_eq!(refusal(&block), Refusal::BlockMigration);
    let mut s390 = Raw::header();
    s390.section(1, 1, "s390-skeys", 1);
    assert_eq!(refusal(&s390), Refusal::Architecture("s390-skeys".into()));
    let mut version = Raw::header();
    version.section(1, 1, "ram", 5);
    assert_eq!(refusal(&version), Refusal::RamVersion(5));
    let mut no_footer = Raw::header();
    no_footer.ram_head(RAM).be64(0x10).part(2, RAM);
    assert_eq!(refusal(&no_footer), Refusal::NoFooter);
    let mut no_configuration = Raw::default();
    no_configuration.put(b"QEVM").put(&3u32.to_be_bytes()).ram_start(RAM);
    assert_eq!(refusal(&no_configuration), Refusal::NoConfiguration);
}

#[test]
fn broken_streams_are_found_out() {
    let mut magic = Raw::default();
    magic.put(b"QEVN").put(&3u32.to_be_bytes());
    assert_eq!(malformed(&magic), Malformed::Magic(0x5145_564e));
    let mut version = Raw::default();
    version.put(b"QEVM").put(&2u32.to_be_bytes());
    assert_eq!(malformed(&version), Malformed::Version(2));

    let part = |build: &dyn Fn(&mut Raw) -> &mut Raw| {
        let mut raw = Raw::header();
        raw.ram_start(RAM).part(2, RAM);
        build(&mut raw);
        malformed(&raw)
    };
    assert_eq!(part(&|r| r.page("nope", 0, &ONES)), Malformed::UnknownBlock);
    assert_eq!(part(&|r| r.page_continued(0, &ONES)), Malformed::NoBlockToContinue);
    let outside = Malformed::PageOutsideBlock { block: 0, offset: 64 * 4096 };
    assert_eq!(part(&|r| r.page("pc.ram", 64, &ONES)), outside);
    let far = Malformed::PageOutsideBlock { block: 0, offset: 1 << 60 };
    assert_eq!(part(&|r| r.be64((1 << 60) | 8).name("pc.ram").put(&ONES)), far);
    assert_eq!(part(&|r| r.be64(2).name("pc.ram").put(&[1])), Malformed::Fill(1));
    assert_eq!(part(&|r| r.be64(0x0a)), Malformed::RamFlags(0x0a));
    assert_eq!(part(&|r| r.be64(0x30)), Malformed::RamFlags(0x30));
    assert_eq!(part(&|r| r.be64(4)), Malformed::BlockList);
    let footer = Malformed::Footer { expected: RAM, found: 9 };
    assert_eq!(part(&|r| r.eos(9)), footer);
    assert_eq!(part(&|r| r.eos(RAM).part(2, 9)), Malformed::UnknownSection(9));
    assert_eq!(part(&|r| r.eos(RAM).put(&[0x55])), Malformed::SectionType(0x55));
    assert_eq!(part(&|r| r.eos(RAM).put(&[0])), Malformed::EarlyEnd);
    assert_eq!(part(&|r| r.eos(RAM).ram_start(5)), Malformed::BlockList);
    assert_eq!(part(&|r| r.eos(RAM).ram_start(RAM)), Malformed::DuplicateSection(RAM));
}

#[test]
fn bad_block_lists_are_found_out() {
    let list = |total: u64, build: &dyn Fn(&mut Raw) -> &mut Raw| {
        let mut raw = Raw::header();
        raw.section(1, RAM, "ram", 4).be64(total | 4);
        build(&mut raw);
        raw.eos(RAM);
        raw
    };
    let length = list(4096, &|r| r.name("a").be64(8192));
    assert_eq!(malformed(&length), Malformed::BlockLength(8192));
    let unaligned = list(4096, &|r| r.name("a").be64(100));
    assert_eq!(malformed(&unaligned), Malformed::BlockLength(100));
    let twice = list(8192, &|r| r.name("a").be64(4096).name("a").be64(4096));
    assert_eq!(malformed(&twice), Malformed::DuplicateBlock);
    let size = list(4096, &|r| r.name("a").be64(4096).be64(4096 * 3));
    assert_eq!(malformed(&size), Malformed::BlockPageSize(4096 * 3));
    let many = list(2000 << 12, &|r| (0..2000).fold(r, |r, i| r.name(&i.to_string()).be64(4096)));
    assert!(matches!(refusal(&many), Refusal::TooMany { limit: 1024, .. }));
    let long =
        list(1000 << 12, &|r| (0..1000).fold(r, |r, i| r.name(&format!("{i:0200}")).be64(4096)));
    assert!(matches!(refusal(&long), Refusal::TooMany { .. }));
}

#[test]
fn an_error_stays() {
    let mut raw = Raw::header();
    raw.put(&[0x55]);
    let mut parser = StreamParser::new();
    let error = parser.parse(&raw.0, &mut Vec::new()).expect_err("broken");
    assert_eq!(parser.parse(&[], &mut Vec::new()), Err(error.clone()));
    assert_eq!(parser.finish(), Err(error));
    let text = parser.finish().expect_err("broken").to_string();
    assert_eq!(text, "broken migration stream: section type 0x55 (stream offset 23)");
}

#[test]
fn the_end_of_the_source_is_checked() {
    let mut parser = StreamParser::new();
    let mut raw = Raw::header();
    raw.ram_start(RAM);
    parser.parse(&raw.0, &mut Vec::new()).expect("good");
    assert!(parser.finish().is_err());
    raw = Raw::default();
    raw.part(3, RAM).eos(RAM);
    parser.parse(&raw.0, &mut Vec::new()).expect("good");
    assert_eq!(parser.finish(), Ok(()));
    assert!(parser.is_opaque());
}
