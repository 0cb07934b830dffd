//! Checked little-endian reading and writing of frame payloads.

use super::{Digest, FrameError, Holder};

/// Reads fields off the front of a payload; every read is bounds-checked.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte of `payload`.
    pub fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload }
    }

    /// The next `n` bytes.
    pub fn bytes(&mut self, n: usize) -> Result<&'a [u8], FrameError> {
        let (head, tail) = self
            .rest
            .split_at_checked(n)
            .ok_or(FrameError::Short { wanted: n, left: self.rest.len() })?;
        self.rest = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        Ok(self.bytes(N)?.try_into().expect("bytes(N) returns N bytes"))
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, FrameError> {
        Ok(self.array::<1>()?[0])
    }

    /// Two bytes, little endian.
    pub fn u16(&mut self) -> Result<u16, FrameError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Four bytes, little endian.
    pub fn u32(&mut self) -> Result<u32, FrameError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes, little endian.
    pub fn u64(&mut self) -> Result<u64, FrameError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A digest.
    pub fn digest(&mut self) -> Result<Digest, FrameError> {
        self.array().map(Digest)
    }

    /// A holder.
    pub fn holder(&mut self) -> Result<Holder, FrameError> {
        Ok(Holder { host: self.u32()?, session: self.u64()? })
    }

    /// A `u16` length and that many bytes of UTF-8.
    pub fn text(&mut self) -> Result<&'a str, FrameError> {
        let n = usize::from(self.u16()?);
        std::str::from_utf8(self.bytes(n)?).map_err(|_| FrameError::Text)
    }

    /// A count of items of `item_len` bytes each; refused when the payload cannot hold that many,
    /// so that a caller may allocate for it.
    pub fn count(&mut self, item_len: usize) -> Result<usize, FrameError> {
        let n = self.u32()? as usize;
        let wanted = n.checked_mul(item_len).ok_or(FrameError::Count(n))?;
        if wanted > self.rest.len() {
            return Err(FrameError::Short { wanted, left: self.rest.len() });
        }
        Ok(n)
    }

    /// All that is left.
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Fails unless everything was read.
    pub fn finish(self) -> Result<(), FrameError> {
        if self.rest.is_empty() { Ok(()) } else { Err(FrameError::Trailing(self.rest.len())) }
    }
}

/// Appends fields to a payload.
pub trait Put {
    /// One byte.
    fn put_u8(&mut self, v: u8);
    /// Two bytes, little endian.
    fn put_u16(&mut self, v: u16);
    /// Four bytes, little endian.
    fn put_u32(&mut self, v: u32);
    /// Eight bytes, little endian.
    fn put_u64(&mut self, v: u64);
    /// A holder.
    fn put_holder(&mut self, holder: Holder);
    /// A `u16` length and the bytes of `text`, cut at a character boundary if longer than 65,535.
    fn put_text(&mut self, text: &str);
}

impl Put for Vec<u8> {
    fn put_u8(&mut self, v: u8) {
        self.push(v);
    }
    fn put_u16(&mut self, v: u16) {
        self.extend_from_slice(&v.to_le_bytes());
    }
    fn put_u32(&mut self, v: u32) {
        self.extend_from_slice(&v.to_le_bytes());
    }
    fn put_u64(&mut self, v: u64) {
        self.extend_from_slice(&v.to_le_bytes());
    }
    fn put_holder(&mut self, holder: Holder) {
        self.put_u32(holder.host);
        self.put_u64(holder.session);
    }
    fn put_text(&mut self, text: &str) {
        let mut n = text.len().min(usize::from(u16::MAX));
        while !text.is_char_boundary(n) {
            n -= 1;
        }
        self.put_u16(n as u16);
        self.extend_from_slice(&text.as_bytes()[..n]);
    }
}
