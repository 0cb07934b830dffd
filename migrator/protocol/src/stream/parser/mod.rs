//! The parser of the main channel: which section comes next.

mod opaque;
mod ram;
mod setup;

use super::blocks::{Blocks, MAX_HEAD, RamHead, Rest, SectionHead};
use super::error::{Malformed, Problem, Refusal, StreamError};
use super::item::{FallbackReason, Item, Sink};
use super::wire::{
    Cursor, Halt, PAGE_SIZE, RAM, RAM_FLAGS, RAM_MULTIFD_FLUSH, SECTION_COMMAND, SECTION_END,
    SECTION_EOF, SECTION_FOOTER, SECTION_FULL, SECTION_PART, SECTION_START, Step,
};
use opaque::Opaque;
use ram::RamReader;

/// Most bytes of a page record: word, name, content.
pub const MAX_RECORD: usize = 8 + 1 + 255 + PAGE_SIZE;
/// Fewer bytes than this are left unconsumed by a call of [`StreamParser::parse`]. Only the head of the memory
/// section can leave so many; in all other places it is fewer than [`MAX_RECORD`].
pub const MAX_LOOKAHEAD: usize = MAX_HEAD;
/// Most iterable sections.
const MAX_SECTIONS: usize = 256;

/// Takes the main channel of a source QEMU apart, as its bytes arrive.
///
/// Written for QEMU 7.2 to 10.0 with 4 KiB target pages. It never copies page content, allocates nothing per
/// page and keeps no bytes: what a call does not consume the caller gives again.
#[derive(Clone, Debug, Default)]
pub struct StreamParser {
    /// Bytes consumed by earlier calls.
    offset: u64,
    state: State,
    sections: Vec<(u32, Iterable)>,
    ram: RamReader,
    machine: Option<Box<str>>,
    postcopy_advised: bool,
    failed: Option<StreamError>,
}

/// What comes next in the stream.
#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// Magic and version.
    #[default]
    Header,
    /// Machine name.
    Configuration,
    /// Subsections of the configuration, if any.
    Subsections,
    /// A section or a command.
    Between,
    /// The rest of a command.
    Command { left: u64 },
    /// A memory record.
    Records { end: bool },
    /// The footer of a memory section.
    RamFooter { end: bool },
    /// The body of another section.
    Opaque(Opaque),
    /// Anything at all.
    Verbatim,
}

/// Kind of an iterable section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Iterable {
    Ram,
    DirtyBitmap,
    Vfio,
}

impl StreamParser {
    /// A parser at the first byte of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads as much of `buf` as is complete and appends what it finds to `items`. Returns how many
    /// bytes that were: the rest (less than [`MAX_LOOKAHEAD`]) must be given again, with more bytes behind it, at
    /// the start of the next buffer.
    ///
    /// # Errors
    /// If the stream cannot be carried. Every later call returns the same error.
    pub fn parse(&mut self, buf: &[u8], items: &mut Vec<Item>) -> Result<usize, StreamError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let mut sink = Sink::new(items);
        let mut at = 0;
        loop {
            match self.step(buf, &mut at, &mut sink) {
                Ok(()) => {}
                Err(Halt::More) => break,
                Err(Halt::Stop(problem)) => return Err(self.fail(problem, at)),
            }
        }
        self.offset += at as u64;
        Ok(at)
    }

    /// To be called at the end of the source's connection.
    ///
    /// # Errors
    /// If guest memory was not complete.
    pub fn finish(&self) -> Result<(), StreamError> {
        match (&self.failed, self.state) {
            (Some(error), _) => Err(error.clone()),
            (None, State::Verbatim) => Ok(()),
            (None, _) => Err(StreamError::at(Malformed::EarlyEnd.into(), self.offset)),
        }
    }

    /// The memory blocks; empty before [`Item::RamStart`].
    pub fn blocks(&self) -> &Blocks {
        &self.ram.blocks
    }

    /// The source's machine type, e.g. `pc-q35-7.2`, once the stream has said it.
    pub fn machine(&self) -> Option<&str> {
        self.machine.as_deref()
    }

    /// Whether the source announced that it may go over to postcopy. The destination QEMU then discards all
    /// memory when it reads that, so nothing may be placed in it before.
    pub fn postcopy_advised(&self) -> bool {
        self.postcopy_advised
    }

    /// Whether the rest of the stream is passed on without a look.
    pub fn is_opaque(&self) -> bool {
        matches!(self.state, State::Verbatim)
    }

    fn fail(&mut self, problem: Problem, at: usize) -> StreamError {
        let error = StreamError::at(problem, self.offset + at as u64);
        self.failed = Some(error.clone());
        error
    }

    /// Reads one thing; `at` moves behind it only if it was complete.
    fn step(&mut self, buf: &[u8], at: &mut usize, sink: &mut Sink<'_>) -> Step<()> {
        match self.state {
            State::Header => self.header(buf, at, sink),
            State::Configuration => self.configuration(buf, at, sink),
            State::Subsections => self.subsection(buf, at, sink),
            State::Between => self.section(buf, at, sink),
            State::Command { left } => {
                let left = forward_some(left, buf, at, sink, true)?;
                self.state = if left == 0 { State::Between } else { State::Command { left } };
                Ok(())
            }
            State::Records { end } => {
                self.ram.records(buf, at, sink)?;
                self.state = State::RamFooter { end };
                Ok(())
            }
            State::RamFooter { end } => self.ram_footer(end, buf, at, sink),
            State::Opaque(opaque) => {
                self.state = match opaque.step(buf, at, sink)? {
                    Some(opaque) => State::Opaque(opaque),
                    None => State::Between,
                };
                Ok(())
            }
            State::Verbatim if *at < buf.len() => {
                sink.forward(*at, buf.len(), false);
                *at = buf.len();
                Ok(())
            }
            State::Verbatim => Err(Halt::More),
        }
    }

    fn section(&mut self, buf: &[u8], at: &mut usize, sink: &mut Sink<'_>) -> Step<()> {
        let mut cursor = Cursor::new(buf, *at);
        match cursor.peek_u8()? {
            SECTION_COMMAND => self.command(buf, at, sink),
            SECTION_START => self.start(buf, at, sink),
            SECTION_FULL => self.full(buf, at, sink),
            kind @ (SECTION_PART | SECTION_END) => {
                cursor.u8()?;
                let id = cursor.be32()?;
                let iterable = self.iterable(id)?;
                self.state = match iterable {
                    Iterable::Ram => State::Records { end: kind == SECTION_END },
                    Iterable::DirtyBitmap => State::Opaque(Opaque::dirty_bitmap(id)),
                    Iterable::Vfio => State::Opaque(Opaque::vfio(id)),
                };
                if iterable != Iterable::Ram {
                    sink.forward(*at, cursor.at, false);
                }
                *at = cursor.at;
                Ok(())
            }
            SECTION_EOF => Err(Malformed::EarlyEnd.into()),
            other => Err(Malformed::SectionType(other).into()),
        }
    }

    fn iterable(&self, id: u32) -> Step<Iterable> {
        let known = self.sections.iter().find(|(section, _)| *section == id);
        Ok(known.ok_or(Malformed::UnknownSection(id))?.1)
    }

    fn start(&mut self, buf: &[u8], at: &mut usize, sink: &mut Sink<'_>) -> Step<()> {
        let mut cursor = Cursor::new(buf, *at);
        let head = SectionHead::read(&mut cursor)?;
        let iterable = match head.name {
            RAM => Iterable::Ram,
            b"dirty-bitmap" => Iterable::DirtyBitmap,
            b"block" => return Err(Refusal::BlockMigration.into()),
            name if name == b"vfio" || name.ends_with(b"/vfio") => Iterable::Vfio,
            name if name.starts_with(b"s390-") || name == b"spapr/htab" => {
                return Err(Refusal::Architecture(lossy(name)).into());
            }
            name => {
                self.fall_back(FallbackReason::Iterable(lossy(name)), sink);
                return Ok(());
            }
        };
        if self.sections.iter().any(|(section, _)| *section == head.id) {
            return Err(Malformed::DuplicateSection(head.id).into());
        }
        if self.sections.len() == MAX_SECTIONS {
            return Err(Refusal::TooMany { what: "iterable sections", limit: MAX_SECTIONS }.into());
        }
        let id = head.id;
        match iterable {
            Iterable::Ram => return self.ram_start(&head, cursor, at, sink),
            Iterable::DirtyBitmap => self.state = State::Opaque(Opaque::dirty_bitmap(id)),
            Iterable::Vfio => self.state = State::Opaque(Opaque::vfio(id)),
        }
        self.sections.push((id, iterable));
        sink.forward(*at, cursor.at, false);
        *at = cursor.at;
        Ok(())
    }

    fn ram_start(
        &mut self,
        section: &SectionHead<'_>,
        mut cursor: Cursor<'_>,
        at: &mut usize,
        sink: &mut Sink<'_>,
    ) -> Step<()> {
        if self.ram.started {
            return Err(Malformed::BlockList.into());
        }
        let head = RamHead::read(section, &mut cursor, Rest::Records)?;
        // The record behind the list tells the mode, and is left for the next step.
        let modern_multifd = cursor.peek_be64()? & RAM_FLAGS == RAM_MULTIFD_FLUSH;
        self.ram.start(head.blocks);
        self.sections.push((head.section_id, Iterable::Ram));
        sink.push(Item::RamStart {
            section_id: head.section_id,
            head: *at..cursor.at,
            modern_multifd,
        });
        *at = cursor.at;
        self.state = State::Records { end: false };
        Ok(())
    }

    fn full(&mut self, buf: &[u8], at: &mut usize, sink: &mut Sink<'_>) -> Step<()> {
        let mut cursor = Cursor::new(buf, *at);
        let head = SectionHead::read(&mut cursor)?;
        if !head.name.ends_with(b"virtio-mem-device-early") {
            self.fall_back(FallbackReason::Device(lossy(head.name)), sink);
            return Ok(());
        }
        sink.forward(*at, cursor.at, false);
        *at = cursor.at;
        self.state = State::Opaque(Opaque::virtio_mem(head.id));
        Ok(())
    }

    fn ram_footer(
        &mut self,
        end: bool,
        buf: &[u8],
        at: &mut usize,
        sink: &mut Sink<'_>,
    ) -> Step<()> {
        let ram = self.sections.iter().find(|(_, iterable)| *iterable == Iterable::Ram);
        let (id, _) = *ram.ok_or(Malformed::BlockList)?;
        *at = read_footer(id, buf, *at)?;
        sink.push(Item::SectionEnd);
        self.state = State::Between;
        if end {
            sink.push(Item::RamEnd);
            self.state = State::Verbatim;
        }
        Ok(())
    }

    fn fall_back(&mut self, reason: FallbackReason, sink: &mut Sink<'_>) {
        sink.push(Item::Fallback { reason, last: self.ram.last });
        self.state = State::Verbatim;
    }
}

/// Checks the footer at `at`; returns where it ends.
fn read_footer(expected: u32, buf: &[u8], at: usize) -> Step<usize> {
    let mut cursor = Cursor::new(buf, at);
    if cursor.u8()? != SECTION_FOOTER {
        return Err(Refusal::NoFooter.into());
    }
    let found = cursor.be32()?;
    if found != expected {
        return Err(Malformed::Footer { expected, found }.into());
    }
    Ok(cursor.at)
}

/// Forwards as many of `left` bytes as there are; returns how many are still left.
fn forward_some(
    left: u64,
    buf: &[u8],
    at: &mut usize,
    sink: &mut Sink<'_>,
    boundary: bool,
) -> Step<u64> {
    let here = (buf.len() - *at) as u64;
    if here == 0 && left > 0 {
        return Err(Halt::More);
    }
    let some = left.min(here);
    let to = *at + some as usize;
    sink.forward(*at, to, boundary && some == left);
    *at = to;
    Ok(left - some)
}

fn lossy(name: &[u8]) -> Box<str> {
    String::from_utf8_lossy(name).into()
}
