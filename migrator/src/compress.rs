//! zstd over the pages of a batch, skipped while it gains nothing.

use std::io;

use rackferry_dedup_index::PAGE_SIZE;
use rackferry_migrator_protocol::frame::MAX_BATCH_PAGES;
use zstd::bulk;

/// Level -1 was tried while the link waits for the core: it costs 7 % more bytes and gains no time that shows.
const LEVEL: i32 = 1;

/// Data that shrinks by less than this is sent as it is: decompressing it would cost more than it saves.
const WORTH_PERCENT: usize = 97;

/// After so many batches in a row that did not shrink, only one of so many is tried.
const GIVE_UP_AFTER: u32 = 4;
const TRY_ONE_OF: u32 = 16;

/// Compresses batches of pages; one a session.
pub struct Compressor {
    zstd: bulk::Compressor<'static>,
    input: Vec<u8>,
    output: Vec<u8>,
    in_vain: u32,
}

impl Compressor {
    /// A compressor with its own work memory.
    pub fn new() -> io::Result<Self> {
        let mut zstd = bulk::Compressor::new(LEVEL)?;
        zstd.include_checksum(false)?;
        zstd.include_contentsize(false)?;
        let most = MAX_BATCH_PAGES * PAGE_SIZE;
        Ok(Self {
            zstd,
            input: Vec::with_capacity(most),
            output: Vec::with_capacity(zstd::zstd_safe::compress_bound(most)),
            in_vain: 0,
        })
    }

    /// The pages as one zstd frame, or none if that would not be worth it.
    pub fn compress<'a>(
        &mut self,
        pages: impl Iterator<Item = &'a [u8; PAGE_SIZE]>,
    ) -> io::Result<Option<&[u8]>> {
        if self.in_vain >= GIVE_UP_AFTER {
            self.in_vain += 1;
            if !self.in_vain.is_multiple_of(TRY_ONE_OF) {
                return Ok(None);
            }
        }
        self.input.clear();
        pages.for_each(|p| self.input.extend_from_slice(p));
        self.output.clear();
        let n = self.zstd.compress_to_buffer(&self.input, &mut self.output)?;
        if n * 100 >= self.input.len() * WORTH_PERCENT {
            self.in_vain += 1;
            return Ok(None);
        }
        self.in_vain = 0;
        Ok(Some(&self.output[..n]))
    }
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compressor").field("in_vain", &self.in_vain).finish_non_exhaustive()
    }
}

/// Decompresses batches; one a session.
pub struct Decompressor {
    zstd: bulk::Decompressor<'static>,
    output: Vec<u8>,
}

impl Decompressor {
    /// A decompressor with its own work memory.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            zstd: bulk::Decompressor::new()?,
            output: Vec::with_capacity(MAX_BATCH_PAGES * PAGE_SIZE),
        })
    }

    /// Exactly `pages` pages out of one zstd frame. A frame that holds more or less is an error; nothing beyond
    /// `pages` pages is ever written.
    pub fn decompress(&mut self, frame: &[u8], pages: usize) -> io::Result<&[u8]> {
        let wanted = pages * PAGE_SIZE;
        self.output.clear();
        self.output.reserve(MAX_BATCH_PAGES * PAGE_SIZE);
        let n = self.zstd.decompress_to_buffer(frame, &mut self.output)?;
        if n != wanted {
            let what = format!("a compressed batch holds {n} bytes, its header says {wanted}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(&self.output)
    }
}

impl std::fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decompressor").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_come_back_and_a_wrong_count_is_an_error() {
        let (mut c, mut d) = (Compressor::new().expect("zstd"), Decompressor::new().expect("zstd"));
        let pages = [[7u8; PAGE_SIZE], [9; PAGE_SIZE]];
        let frame = c.compress(pages.iter()).expect("zstd").expect("shrinks").to_vec();
        assert!(frame.len() < 200);
        assert_eq!(d.decompress(&frame, 2).expect("zstd"), pages.as_flattened());
        assert!(d.decompress(&frame, 1).is_err());
        assert!(d.decompress(&frame[..frame.len() - 1], 2).is_err());
    }

    #[test]
    fn noise_is_sent_as_it_is_and_soon_not_even_tried() {
        let mut c = Compressor::new().expect("zstd");
        let mut state = 1u64;
        let mut noise = [0u8; PAGE_SIZE];
        for n in 0..40 {
            noise.iter_mut().for_each(|b| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                *b = (state >> 56) as u8;
            });
            assert!(c.compress([&noise].into_iter()).expect("zstd").is_none(), "batch {n}");
        }
        let flat = [0u8; PAGE_SIZE];
        let back =
            (0..TRY_ONE_OF + 1).any(|_| c.compress([&flat].into_iter()).expect("zstd").is_some());
        assert!(back, "compression is tried again after a while");
    }
}
