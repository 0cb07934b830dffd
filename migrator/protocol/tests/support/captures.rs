//! The captured streams, and how one with multifd channels is put together again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rackferry_migrator_protocol::stream::multifd::{
    ChannelItem, ChannelParser, MultifdBarrier, SyncMode, Turn,
};
use rackferry_migrator_protocol::stream::{Item, PAGE_SIZE, StreamParser, StreamWriter};

use super::cases::{CASES, Case};
use super::write;

/// A captured migration.
pub struct Capture {
    pub case: &'static Case,
    pub main: Vec<u8>,
    pub channels: Vec<Vec<u8>>,
    /// The source's memory when it was stopped.
    pub memory: Vec<u8>,
}

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures")
}

pub fn all() -> Vec<Capture> {
    static ALL: [Case; CASES.len()] = CASES;
    ALL.iter().map(Capture::read).collect()
}

impl Capture {
    fn read(case: &'static Case) -> Self {
        let file = |kind: &str| {
            let packed = std::fs::read(folder().join(format!("{}.{kind}.zst", case.name))).ok()?;
            Some(zstd::decode_all(&packed[..]).expect("a capture is good zstd"))
        };
        let channels = (0..).map_while(|number| file(&format!("channel{number}"))).collect();
        let main = file("main").expect("the capture exists");
        let memory = file("memory").expect("the capture exists");
        Self { case, main, channels, memory }
    }

    /// Makes one stream of all channels.
    pub fn rebuild(&self) -> (Vec<u8>, Counts) {
        let mut rebuild = Rebuild::new(self);
        let mut items = Vec::new();
        let mut parser = StreamParser::new();
        let consumed = parser.parse(&self.main, &mut items).expect("a good stream");
        assert_eq!(consumed, self.main.len());
        parser.finish().expect("guest memory is complete");
        for item in &items {
            rebuild.item(item, &parser);
        }
        for (parser, (done, bytes)) in rebuild.parsers.iter().zip(&rebuild.rest) {
            assert_eq!(*done, bytes.len(), "channels end at a barrier");
            parser.finish(0).expect("channels end between packets");
        }
        rebuild.counts.0.insert("blocks", parser.blocks().len() as u64);
        (rebuild.out, rebuild.counts)
    }
}

/// How often something occurs in a capture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(pub BTreeMap<&'static str, u64>);

impl Counts {
    fn add(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }
}

struct Rebuild<'a> {
    main: &'a [u8],
    writer: StreamWriter,
    out: Vec<u8>,
    counts: Counts,
    mode: SyncMode,
    barrier: Option<MultifdBarrier>,
    parsers: Vec<ChannelParser>,
    /// How far each channel was read.
    rest: Vec<(usize, &'a [u8])>,
}

impl<'a> Rebuild<'a> {
    fn new(capture: &'a Capture) -> Self {
        let channels = capture.channels.len();
        Self {
            main: &capture.main,
            writer: StreamWriter::new(),
            out: Vec::new(),
            counts: Counts::default(),
            mode: SyncMode::Legacy,
            barrier: (channels > 0).then(|| MultifdBarrier::new(channels).expect("some channels")),
            parsers: vec![ChannelParser::new(); channels],
            rest: capture.channels.iter().map(|bytes| (0, &bytes[..])).collect(),
        }
    }

    fn item(&mut self, item: &Item, parser: &StreamParser) {
        match item {
            Item::Page { .. } => self.counts.add("pages"),
            Item::Zero { .. } => self.counts.add("zeros"),
            Item::SectionEnd => self.counts.add("sections"),
            Item::MultifdFlush => self.counts.add("flushes"),
            Item::RamStart { modern_multifd, .. } => self.mode = SyncMode::new(*modern_multifd),
            _ => {}
        }
        write(&mut self.writer, item, self.main, &mut self.out);
        if self.barrier.is_some() && self.mode.is_mark(item) {
            self.pass_barrier(parser);
        }
    }

    fn pass_barrier(&mut self, parser: &StreamParser) {
        let barrier = self.barrier.as_mut().expect("there are channels");
        let mut turn = barrier.main_arrives().expect("the main channel waited");
        for number in 0..self.rest.len() {
            assert_eq!(turn, Turn::Wait);
            let (done, bytes) = &mut self.rest[number];
            let (buf, mut items) = (&bytes[*done..], Vec::new());
            let consumed = self.parsers[number].parse(buf, parser.blocks(), &mut items);
            *done += consumed.expect("a good channel");
            assert_eq!(items.last(), Some(&ChannelItem::Sync), "a barrier on every channel");
            turn = barrier.channel_arrives(number).expect("the channel waited");
            for item in &items {
                match *item {
                    ChannelItem::Page { block, page, at } => {
                        self.counts.add("multifd pages");
                        let content: &[u8; PAGE_SIZE] = buf[at..].first_chunk().expect("a page");
                        let written = self.writer.page(block, page, content, &mut self.out);
                        written.expect("a known page");
                    }
                    ChannelItem::Zero { block, page } => {
                        self.counts.add("multifd zeros");
                        self.writer.zero(block, page, &mut self.out).expect("a known page");
                    }
                    ChannelItem::Sync => self.counts.add("multifd syncs"),
                    ChannelItem::Init(init) => assert_eq!(usize::from(init.channel), number),
                }
            }
        }
        assert_eq!(turn, Turn::Go);
    }
}
