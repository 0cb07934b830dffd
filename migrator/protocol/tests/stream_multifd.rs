//! Multifd channels on packets made by hand.

mod support;

use rackferry_migrator_protocol::stream::multifd::{
    ChannelItem, ChannelKind, ChannelParser, INIT_LEN, Init, MultifdBarrier, MultifdBarrierError,
    PACKET_PAGES, PacketHeader, SyncMode, Turn,
};
use rackferry_migrator_protocol::stream::{
    Blocks, Item, Malformed, PAGE_SIZE, RamHead, Refusal, StreamError,
};
use support::Raw;

fn blocks() -> Blocks {
    let mut head = Raw::default();
    head.ram_head(2);
    RamHead::parse(&head.0).expect("a good head").blocks
}

fn init(channel: u8) -> Vec<u8> {
    let mut raw = Raw::default();
    raw.put(&[0x11, 0x22, 0x33, 0x44, 0, 0, 0, 1]).put(&[7; 16]).put(&[channel]).put(&[0; 39]);
    raw.0
}

/// A packet whose `next_packet_size` is stale, as QEMU 7.2 has it.
fn packet(flags: u32, block: &str, normal: &[u64], zero: &[u64]) -> Vec<u8> {
    let mut raw = Raw::default();
    raw.put(&[0x11, 0x22, 0x33, 0x44, 0, 0, 0, 1]).put(&flags.to_be_bytes());
    raw.put(&128u32.to_be_bytes()).put(&(normal.len() as u32).to_be_bytes());
    raw.put(&524_288u32.to_be_bytes()).be64(9).put(&(zero.len() as u32).to_be_bytes());
    raw.put(&[0; 28]).put(block.as_bytes()).put(&vec![0; 256 - block.len()]);
    for at in 0..PACKET_PAGES {
        let offset = normal.iter().chain(zero).nth(at);
        raw.be64(offset.copied().unwrap_or(u64::MAX));
    }
    assert_eq!(raw.0.len(), PacketHeader::LEN);
    for page in normal {
        raw.put(&[(page >> 12) as u8; PAGE_SIZE]);
    }
    raw.0
}

fn parse(bytes: &[u8]) -> Result<(usize, Vec<ChannelItem>), StreamError> {
    let mut items = Vec::new();
    let consumed = ChannelParser::new().parse(bytes, &blocks(), &mut items)?;
    Ok((consumed, items))
}

#[test]
fn channels_are_told_by_their_first_bytes() {
    assert_eq!(ChannelKind::classify(*b"QEVM"), ChannelKind::Main);
    assert_eq!(ChannelKind::classify([0x11, 0x22, 0x33, 0x44]), ChannelKind::Multifd);
    assert_eq!(ChannelKind::classify([0, 0, 0, 0x28]), ChannelKind::Unknown);
}

#[test]
fn data_comes_before_the_barrier_of_its_packet_and_parsing_stops_there() {
    let bytes = [init(3), packet(1, "pc.bios", &[0x3000, 0], &[0x1000]), packet(0, "", &[], &[])];
    let bytes = bytes.concat();
    let (consumed, items) = parse(&bytes).expect("a good channel");
    let content = INIT_LEN + PacketHeader::LEN;
    assert_eq!(
        items,
        [
            ChannelItem::Init(Init { uuid: [7; 16], channel: 3 }),
            ChannelItem::Page { block: 1, page: 3, at: content },
            ChannelItem::Page { block: 1, page: 0, at: content + PAGE_SIZE },
            ChannelItem::Zero { block: 1, page: 1 },
            ChannelItem::Sync,
        ]
    );
    assert_eq!(consumed, content + 2 * PAGE_SIZE);
}

#[test]
fn cuts_do_not_matter() {
    let bytes = [
        init(0),
        packet(0, "pc.ram", &[0x3000, 0x9000], &[]),
        packet(0, "", &[], &[]),
        packet(0, "pc.ram", &[], &[0x1000, 0x2000]),
    ];
    let bytes = bytes.concat();
    let (_, mut whole) = parse(&bytes).expect("a good channel");
    whole.iter_mut().for_each(forget_place);
    for step in [1, 7, 1343, 5000] {
        let (mut parser, mut all) = (ChannelParser::new(), Vec::new());
        let (mut done, mut end) = (0, 0);
        while end < bytes.len() {
            end = bytes.len().min(end + step);
            let mut items = Vec::new();
            done += parser.parse(&bytes[done..end], &blocks(), &mut items).expect("good");
            items.iter_mut().for_each(forget_place);
            all.extend(items);
        }
        assert_eq!(all, whole);
        assert_eq!(parser.finish(bytes.len() - done), Ok(()));
    }
}

fn forget_place(item: &mut ChannelItem) {
    if let ChannelItem::Page { at, .. } = item {
        *at = 0;
    }
}

#[test]
fn a_channel_may_not_end_in_a_packet() {
    let bytes = [init(0), packet(0, "pc.ram", &[0x3000], &[])].concat();
    let mut parser = ChannelParser::new();
    assert!(parser.finish(0).is_err(), "not even started");
    let mut items = Vec::new();
    parser.parse(&bytes[..bytes.len() - 1], &blocks(), &mut items).expect("good");
    assert!(parser.finish(PAGE_SIZE - 1).is_err());
    assert!(parser.finish(0).is_err());
}

#[test]
fn what_cannot_be_carried_is_refused() {
    let refusal = |flags| match parse(&[init(0), packet(flags, "", &[], &[])].concat()) {
        Err(StreamError::Refused { refusal, offset }) => (refusal, offset),
        other => panic!("not refused: {other:?}"),
    };
    let at = INIT_LEN as u64;
    assert_eq!(refusal(0x04), (Refusal::MultifdCompression(2), at));
    assert_eq!(refusal(0x41), (Refusal::MultifdDeviceState, at));

    let malformed = |bytes: Vec<u8>| match parse(&[init(0), bytes].concat()) {
        Err(StreamError::Malformed { malformed, .. }) => malformed,
        other => panic!("not malformed: {other:?}"),
    };
    assert_eq!(malformed(packet(0x80, "", &[], &[])), Malformed::PacketFlags(0x80));
    assert_eq!(malformed(packet(0, "nope", &[0], &[])), Malformed::UnknownBlock);
    let outside = |offset| Malformed::PageOutsideBlock { block: 1, offset };
    assert_eq!(malformed(packet(0, "pc.bios", &[0x8000], &[])), outside(0x8000));
    assert_eq!(malformed(packet(0, "pc.bios", &[], &[0x10])), outside(0x10));
    let mut many = packet(0, "pc.bios", &[], &[]);
    many[16..20].copy_from_slice(&129u32.to_be_bytes());
    assert_eq!(malformed(many.clone()), Malformed::PacketPages { normal: 129, zero: 0 });
    many[16..20].copy_from_slice(&128u32.to_be_bytes());
    many[32..36].copy_from_slice(&u32::MAX.to_be_bytes());
    assert_eq!(malformed(many), Malformed::PacketPages { normal: 128, zero: u32::MAX });
    assert_eq!(malformed(vec![0; 12]), Malformed::Magic(0));
}

#[test]
fn headers_can_be_read_without_a_parser() {
    let bytes = packet(0, "pc.ram", &[0x3000, 0x4000], &[0x5000]);
    let header = PacketHeader::parse(bytes.first_chunk().expect("whole"), &blocks()).expect("good");
    assert_eq!((header.normal_pages(), header.zero_pages()), (&[3, 4][..], &[5][..]));
    assert_eq!((header.payload_len(), header.block, header.sync), (8192, 0, false));
}

#[test]
fn everyone_waits_for_everyone() {
    let mut barrier = MultifdBarrier::new(2).expect("two channels");
    assert_eq!(barrier.channel_arrives(1), Ok(Turn::Wait));
    assert!(barrier.is_waiting(1) && !barrier.is_waiting(0));
    assert_eq!(barrier.channel_arrives(1), Err(MultifdBarrierError::DidNotWait));
    assert_eq!(barrier.main_arrives(), Ok(Turn::Wait));
    assert_eq!(barrier.main_arrives(), Err(MultifdBarrierError::DidNotWait));
    assert_eq!(barrier.channel_arrives(0), Ok(Turn::Go));
    assert_eq!(barrier.passed(), 1);
    assert!(!barrier.is_waiting(1) && !barrier.main_is_waiting());
    assert_eq!(barrier.channel_arrives(0), Ok(Turn::Wait));
    assert_eq!(barrier.channel_arrives(1), Ok(Turn::Wait));
    assert_eq!(barrier.main_arrives(), Ok(Turn::Go));
    assert_eq!(barrier.channel_arrives(2), Err(MultifdBarrierError::NoSuchChannel(2)));
    assert!(MultifdBarrier::new(0).is_err() && MultifdBarrier::new(256).is_err());
}

#[test]
fn the_mode_says_where_the_main_channel_waits() {
    let (legacy, modern) = (SyncMode::new(false), SyncMode::new(true));
    assert!(legacy.is_mark(&Item::SectionEnd) && !legacy.is_mark(&Item::MultifdFlush));
    assert!(modern.is_mark(&Item::MultifdFlush) && !modern.is_mark(&Item::SectionEnd));
}
