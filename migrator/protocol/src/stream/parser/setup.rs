//! What comes before sections and between them: header, configuration, commands.

use super::{State, StreamParser, lossy};
use crate::stream::blocks::read_name;
use crate::stream::error::{Malformed, Refusal};
use crate::stream::item::{FallbackReason, Sink};
use crate::stream::wire::{
    COMMAND_ENABLE_COLO, COMMAND_PACKAGED, COMMAND_POSTCOPY_ADVISE, COMMAND_POSTCOPY_LISTEN,
    COMMAND_POSTCOPY_RESUME, COMMAND_RECV_BITMAP, Cursor, PAGE_SIZE, SECTION_CONFIGURATION,
    STREAM_MAGIC, STREAM_VERSION, SUBSECTION, Step,
};

/// Longest machine name.
const MAX_MACHINE_NAME: usize = 256;
/// Most capabilities in the configuration; QEMU 11 has about 25 in all.
const MAX_CAPABILITIES: usize = 8;
/// Bytes of the longest configuration subsection.
const UUID: usize = 16;

impl StreamParser {
    pub(super) fn header(&mut self, buf: &[u8], at: &mut usize, sink: &mut Sink<'_>) -> Step<()> {
        let mut cursor = Cursor::new(buf, *at);
        let magic = cursor.be32()?;
        if magic != STREAM_MAGIC {
            return Err(Malformed::Magic(magic).into());
        }
        let version = cursor.be32()?;
        if version != STREAM_VERSION {
            return Err(Malformed::Version(version).into());
        }
        sink.forward(*at, cursor.at, false);
        *at = cursor.at;
        self.state = State::Configuration;
        Ok(())
    }

    pub(super) fn configuration(
        &mut self,
        buf: &[u8],
        at: &mut usize,
        sink: &mut Sink<'_>,
    ) -> Step<()> {
        let mut cursor = Cursor::new(buf, *at);
        if cursor.u8()? != SECTION_CONFIGURATION {
            return Err(Refusal::NoConfiguration.into());
        }
        let len = cursor.be32()? as usize;
        if len > MAX_MACHINE_NAME {
            return Err(Malformed::Length { what: "machine name", len: len as u64 }.into());
        }
        self.machine = Some(lossy(cursor.take(len)?));
        sink.forward(*at, cursor.at, false);
        *at = cursor.at;
        self.state = State::Subsections;
        Ok(())
    }

    /// The configuration has no footer: it is over where no subsection follows.
    pub(super) fn subsection(
        &mut self,
        buf: &[u8],
        at: &mut usize,
        sink: &mut Sink<'_>,
    ) -> Step<()> {
        let mut cursor = Cursor::new(buf, *at);
        if cursor.peek_u8()? != SUBSECTION {
            self.state = State::Between;
            return Ok(());
        }
        cursor.u8()?;
        let name = cursor.counted()?;
        let _version = cursor.be32()?;
        match name {
            b"configuration/target-page-bits" => {
                let bits = cursor.be32()?;
                if bits != PAGE_SIZE.trailing_zeros() {
                    return Err(Refusal::PageSize(bits).into());
                }
            }
            b"configuration/uuid" => {
                cursor.take(UUID)?;
            }
            b"configuration/capabilities" => {
                if let Some(unknown) = read_capabilities(&mut cursor)? {
                    self.fall_back(FallbackReason::Configuration(unknown), sink);
                    return Ok(());
                }
            }
            _ => {
                self.fall_back(FallbackReason::Configuration(lossy(name)), sink);
                return Ok(());
            }
        }
        sink.forward(*at, cursor.at, false);
        *at = cursor.at;
        Ok(())
    }

    pub(super) fn command(&mut self, buf: &[u8], at: &mut usize, sink: &mut Sink<'_>) -> Step<()> {
        let mut cursor = Cursor::new(buf, *at);
        let _section = cursor.u8()?;
        let command = cursor.be16()?;
        let len = cursor.be16()?;
        match command {
            // An empty one only announces dirty bitmaps.
            COMMAND_POSTCOPY_ADVISE => self.postcopy_advised |= len > 0,
            COMMAND_POSTCOPY_LISTEN..=COMMAND_PACKAGED => {
                return Err(Refusal::Postcopy { command }.into());
            }
            COMMAND_ENABLE_COLO => return Err(Refusal::Colo.into()),
            COMMAND_POSTCOPY_RESUME | COMMAND_RECV_BITMAP => {
                return Err(Refusal::PostcopyRecovery.into());
            }
            _ => {}
        }
        sink.forward(*at, cursor.at, len == 0);
        *at = cursor.at;
        self.state = State::Command { left: u64::from(len) };
        Ok(())
    }
}

/// Capabilities that change the form of the stream. Returns the first that is not known.
fn read_capabilities(cursor: &mut Cursor<'_>) -> Step<Option<Box<str>>> {
    let count = cursor.be32()? as usize;
    if count > MAX_CAPABILITIES {
        return Err(Refusal::TooMany { what: "capabilities", limit: MAX_CAPABILITIES }.into());
    }
    let mut unknown = None;
    for _ in 0..count {
        let name = read_name(cursor)?;
        match &*name {
            "x-ignore-shared" => return Err(Refusal::IgnoreShared.into()),
            "mapped-ram" => return Err(Refusal::MappedRam.into()),
            _ => unknown = unknown.or(Some(name)),
        }
    }
    Ok(unknown)
}
