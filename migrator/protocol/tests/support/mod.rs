//! Streams made by hand, and the memory a destination would have after loading one.
#![allow(dead_code, reason = "every test program uses its own part of this")]

pub mod captures;
pub mod cases;
pub mod fuzzing;
pub mod qemu;

use std::collections::BTreeMap;

use rackferry_migrator_protocol::stream::{
    Item, PAGE_SIZE, PageContent, StreamError, StreamParser, StreamWriter,
};

/// Sizes of the blocks of a made-up VM, in pages.
pub const BLOCKS: [(&str, u32); 3] =
    [("pc.ram", 64), ("pc.bios", 8), ("0000:00:02.0/vga.vram", 16)];

/// Builds a stream byte by byte, without the writer under test.
#[derive(Clone, Default)]
pub struct Raw(pub Vec<u8>);

impl Raw {
    pub fn header() -> Self {
        let mut raw = Self::default();
        raw.put(b"QEVM").put(&3u32.to_be_bytes());
        raw.put(&[7]).put(&10u32.to_be_bytes()).put(b"pc-q35-7.2");
        raw
    }

    pub fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn be64(&mut self, value: u64) -> &mut Self {
        self.put(&value.to_be_bytes())
    }

    pub fn name(&mut self, name: &str) -> &mut Self {
        self.put(&[name.len() as u8]).put(name.as_bytes())
    }

    pub fn command(&mut self, command: u16, data: &[u8]) -> &mut Self {
        self.put(&[8]).put(&command.to_be_bytes()).put(&(data.len() as u16).to_be_bytes()).put(data)
    }

    pub fn section(&mut self, kind: u8, id: u32, name: &str, version: u32) -> &mut Self {
        self.put(&[kind]).put(&id.to_be_bytes()).name(name);
        self.put(&0u32.to_be_bytes()).put(&version.to_be_bytes())
    }

    pub fn part(&mut self, kind: u8, id: u32) -> &mut Self {
        self.put(&[kind]).put(&id.to_be_bytes())
    }

    pub fn footer(&mut self, id: u32) -> &mut Self {
        self.part(0x7e, id)
    }

    pub fn eos(&mut self, id: u32) -> &mut Self {
        self.be64(0x10).footer(id)
    }

    /// The head of a memory section with [`BLOCKS`].
    pub fn ram_head(&mut self, id: u32) -> &mut Self {
        self.ram_head_of(&BLOCKS, id)
    }

    /// The head of a memory section with these blocks.
    pub fn ram_head_of(&mut self, blocks: &[(&str, u32)], id: u32) -> &mut Self {
        let total: u64 = blocks.iter().map(|(_, pages)| u64::from(*pages) * 4096).sum();
        self.section(1, id, "ram", 4).be64(total | 4);
        for (name, pages) in blocks {
            self.name(name).be64(u64::from(*pages) * 4096);
        }
        self
    }

    /// A whole START.
    pub fn ram_start(&mut self, id: u32) -> &mut Self {
        self.ram_head(id).eos(id)
    }

    /// A record that names its block.
    pub fn page(&mut self, block: &str, page: u32, content: &[u8; PAGE_SIZE]) -> &mut Self {
        self.be64((u64::from(page) * 4096) | 8).name(block).put(content)
    }

    pub fn page_continued(&mut self, page: u32, content: &[u8; PAGE_SIZE]) -> &mut Self {
        self.be64((u64::from(page) * 4096) | 0x28).put(content)
    }

    pub fn zero_continued(&mut self, page: u32) -> &mut Self {
        self.be64((u64::from(page) * 4096) | 0x22).put(&[0])
    }

    pub fn parse(&self) -> Result<Vec<Item>, StreamError> {
        let mut items = Vec::new();
        let consumed = StreamParser::new().parse(&self.0, &mut items)?;
        assert!(self.0.len() - consumed < rackferry_migrator_protocol::stream::MAX_LOOKAHEAD);
        Ok(items)
    }
}

/// What a destination has after loading a stream: latest content of each page by block name, and all
/// bytes that are not memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    pub pages: BTreeMap<(String, u32), Box<[u8]>>,
    pub other: Vec<u8>,
    pub machine: Option<String>,
    pub ended: bool,
    pub records: u64,
    pub sections: u64,
}

impl Loaded {
    /// Takes up the items of one buffer.
    pub fn apply(&mut self, parser: &StreamParser, buf: &[u8], items: &[Item]) {
        let name =
            |block: u16| parser.blocks().get(block).expect("a listed block").name.to_string();
        for item in items {
            match item {
                Item::Bytes { range, .. } => self.other.extend_from_slice(&buf[range.clone()]),
                Item::RamStart { head, .. } => self.other.extend_from_slice(&buf[head.clone()]),
                Item::Page { block, page, at } => {
                    self.records += 1;
                    let content = buf[*at..*at + PAGE_SIZE].into();
                    self.pages.insert((name(*block), *page), content);
                }
                Item::Zero { block, page } => {
                    self.records += 1;
                    let content = vec![0; PAGE_SIZE].into();
                    self.pages.insert((name(*block), *page), content);
                }
                Item::SectionEnd => self.sections += 1,
                Item::RamEnd => self.ended = true,
                Item::MultifdFlush | Item::Fallback { .. } => {}
            }
        }
        self.machine = parser.machine().map(str::to_owned);
    }

    /// Loads a whole stream given in pieces that end at the `cuts`.
    pub fn from_pieces(
        stream: &[u8],
        cuts: impl IntoIterator<Item = usize>,
    ) -> Result<Self, StreamError> {
        let mut loaded = Self::default();
        let mut parser = StreamParser::new();
        let (mut done, mut end) = (0, 0);
        for cut in cuts.into_iter().chain([stream.len()]) {
            end = cut.clamp(end, stream.len());
            let mut items = Vec::new();
            let buf = &stream[done..end];
            let consumed = parser.parse(buf, &mut items)?;
            loaded.apply(&parser, buf, &items);
            done += consumed;
        }
        parser.finish()?;
        assert_eq!(done, stream.len(), "all of an opaque end is consumed");
        Ok(loaded)
    }

    pub fn from_stream(stream: &[u8]) -> Result<Self, StreamError> {
        Self::from_pieces(stream, [])
    }
}

/// Parses a stream and writes it again; `order` may rearrange what one buffer held.
pub fn rewrite(stream: &[u8], piece: usize, mut order: impl FnMut(&mut [Item])) -> Vec<u8> {
    let mut parser = StreamParser::new();
    let mut writer = StreamWriter::new();
    let mut out = Vec::new();
    let mut done = 0;
    while done < stream.len() {
        let mut len = piece;
        let mut items = Vec::new();
        let buf = loop {
            let buf = &stream[done..stream.len().min(done + len)];
            let consumed = parser.parse(buf, &mut items).expect("a good stream");
            if consumed > 0 || done + len >= stream.len() {
                done += consumed.max(1);
                break buf;
            }
            len += piece;
        };
        order(&mut items);
        for item in &items {
            write(&mut writer, item, buf, &mut out);
        }
    }
    out
}

/// Writes what an item stands for.
pub fn write(writer: &mut StreamWriter, item: &Item, buf: &[u8], out: &mut Vec<u8>) {
    match item {
        Item::Bytes { range, boundary } => writer.forward(&buf[range.clone()], *boundary, out),
        Item::RamStart { head, .. } => {
            writer.ram_start(&buf[head.clone()], out).expect("a good head");
        }
        Item::Page { block, page, at } => {
            let content = buf[*at..].first_chunk().expect("a whole page");
            writer.page(*block, *page, content, out).expect("a known page");
        }
        Item::Zero { block, page } => writer.zero(*block, *page, out).expect("a known page"),
        Item::MultifdFlush | Item::SectionEnd => {}
        Item::RamEnd => writer.ram_end(out).expect("memory was open"),
        Item::Fallback { last, .. } => {
            let content = last.map(|_| PageContent::Zero);
            writer.fallback(*last, content, out).expect("content was given");
        }
    }
}
