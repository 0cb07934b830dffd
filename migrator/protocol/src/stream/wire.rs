//! Numbers of QEMU's wire format, and a reader that can run out of bytes. Everything is big endian.

use super::error::{Malformed, Problem, Refusal};

/// Bytes of a page of guest memory (QEMU's target page on x86 and on aarch64 `virt`).
pub const PAGE_SIZE: usize = 4096;

pub(crate) const STREAM_MAGIC: u32 = 0x5145_564d;
pub(crate) const STREAM_VERSION: u32 = 3;

pub(crate) const SECTION_EOF: u8 = 0x00;
pub(crate) const SECTION_START: u8 = 0x01;
pub(crate) const SECTION_PART: u8 = 0x02;
pub(crate) const SECTION_END: u8 = 0x03;
pub(crate) const SECTION_FULL: u8 = 0x04;
pub(crate) const SUBSECTION: u8 = 0x05;
pub(crate) const SECTION_CONFIGURATION: u8 = 0x07;
pub(crate) const SECTION_COMMAND: u8 = 0x08;
pub(crate) const SECTION_FOOTER: u8 = 0x7e;

pub(crate) const COMMAND_OPEN_RETURN_PATH: u16 = 1;
pub(crate) const COMMAND_PING: u16 = 2;
pub(crate) const COMMAND_POSTCOPY_ADVISE: u16 = 3;
pub(crate) const COMMAND_POSTCOPY_LISTEN: u16 = 4;
pub(crate) const COMMAND_PACKAGED: u16 = 7;
pub(crate) const COMMAND_ENABLE_COLO: u16 = 8;
pub(crate) const COMMAND_POSTCOPY_RESUME: u16 = 9;
pub(crate) const COMMAND_RECV_BITMAP: u16 = 10;

/// The name of the section that carries guest memory, and the only version of it there is.
pub(crate) const RAM: &[u8] = b"ram";
pub(crate) const RAM_VERSION: u32 = 4;

/// A RAM record begins with a word: page-aligned offset in a block, flags in the bits below.
pub(crate) const RAM_FLAGS: u64 = PAGE_SIZE as u64 - 1;
pub(crate) const RAM_ZERO: u64 = 0x002;
pub(crate) const RAM_MEM_SIZE: u64 = 0x004;
pub(crate) const RAM_PAGE: u64 = 0x008;
pub(crate) const RAM_EOS: u64 = 0x010;
pub(crate) const RAM_CONTINUE: u64 = 0x020;
pub(crate) const RAM_XBZRLE: u64 = 0x040;
pub(crate) const RAM_HOOK: u64 = 0x080;
pub(crate) const RAM_COMPRESS_PAGE: u64 = 0x100;
pub(crate) const RAM_MULTIFD_FLUSH: u64 = 0x200;

/// Why a step of a parser did not complete.
#[derive(Debug)]
pub(crate) enum Halt {
    /// The buffer ends inside the thing being read.
    More,
    /// The stream cannot be carried.
    Stop(Problem),
}

impl From<Malformed> for Halt {
    fn from(malformed: Malformed) -> Self {
        Self::Stop(Problem::Malformed(malformed))
    }
}

impl From<Refusal> for Halt {
    fn from(refusal: Refusal) -> Self {
        Self::Stop(Problem::Refused(refusal))
    }
}

pub(crate) type Step<T> = Result<T, Halt>;

/// Reads forward through a buffer that may end anywhere.
#[derive(Clone, Debug)]
pub(crate) struct Cursor<'a> {
    buf: &'a [u8],
    /// Index in `buf` of the next byte.
    pub(crate) at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(buf: &'a [u8], at: usize) -> Self {
        Self { buf, at }
    }

    pub(crate) fn remaining(&self) -> usize {
        self.buf.len().saturating_sub(self.at)
    }

    pub(crate) fn take(&mut self, len: usize) -> Step<&'a [u8]> {
        let rest = self.buf.get(self.at..).ok_or(Halt::More)?;
        let taken = rest.get(..len).ok_or(Halt::More)?;
        self.at += len;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        let rest = self.buf.get(self.at..).ok_or(Halt::More)?;
        let taken = rest.first_chunk::<N>().ok_or(Halt::More)?;
        self.at += N;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Step<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn be16(&mut self) -> Step<u16> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(crate) fn be32(&mut self) -> Step<u32> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn be64(&mut self) -> Step<u64> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// A counted string: one length byte, then that many bytes.
    pub(crate) fn counted(&mut self) -> Step<&'a [u8]> {
        let len = self.u8()?;
        self.take(usize::from(len))
    }

    pub(crate) fn peek_u8(&self) -> Step<u8> {
        self.clone().u8()
    }

    pub(crate) fn peek_be64(&self) -> Step<u64> {
        self.clone().be64()
    }
}
