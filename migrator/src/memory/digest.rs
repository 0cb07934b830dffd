//! One digest of a whole guest memory, to compare the pause at the source with the resume at the target.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustix::fs::{SeekFrom, seek};

use super::{GuestMemory, MemoryError, PAGE_BYTES};

/// Bytes hashed at a time.
const BATCH_BYTES: u64 = 1 << 20;

/// Keyed BLAKE3 over the digests of all 1 MiB batches. Equal for equal content, whether zeros are
/// written or holes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct MemoryDigest([u8; 32]);

impl MemoryDigest {
    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for MemoryDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        blake3::Hash::from_bytes(self.0).to_hex().fmt(f)
    }
}

impl fmt::Debug for MemoryDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl GuestMemory {
    /// Hashes all memory with `threads` threads. Blocks; the guest must be stopped for a digest that
    /// means something.
    ///
    /// # Errors
    /// The memory cannot be read.
    pub fn digest_all(&self, key: &[u8; 32], threads: usize) -> Result<MemoryDigest, MemoryError> {
        let batches = self.bytes().div_ceil(BATCH_BYTES) as usize;
        let next = AtomicUsize::new(0);
        let worker = || {
            let mut digests = Vec::new();
            let mut buffer = vec![0; BATCH_BYTES as usize];
            loop {
                let batch = next.fetch_add(1, Ordering::Relaxed);
                if batch >= batches {
                    return Ok(digests);
                }
                digests.push((batch, self.digest_batch(batch, key, &mut buffer)?));
            }
        };
        let parts: Result<Vec<_>, MemoryError> = thread::scope(|scope| {
            let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().map(|w| w.join().expect("hashing does not panic")).collect()
        });
        let mut digests: Vec<_> = parts?.into_iter().flatten().collect();
        digests.sort_unstable_by_key(|(batch, _)| *batch);
        let mut hasher = blake3::Hasher::new_keyed(key);
        hasher.update(&self.bytes().to_le_bytes());
        digests.iter().for_each(|(_, digest)| {
            hasher.update(digest.as_bytes());
        });
        Ok(MemoryDigest(*hasher.finalize().as_bytes()))
    }

    fn digest_batch(
        &self,
        batch: usize,
        key: &[u8; 32],
        buffer: &mut [u8],
    ) -> Result<blake3::Hash, MemoryError> {
        let offset = batch as u64 * BATCH_BYTES;
        let bytes = BATCH_BYTES.min(self.bytes() - offset);
        let buffer = &mut buffer[..bytes as usize];
        if self.is_hole(offset, bytes) {
            buffer.fill(0);
        } else {
            self.read_pages(offset / PAGE_BYTES as u64, buffer)?;
        }
        Ok(blake3::keyed_hash(key, buffer))
    }

    /// True only if nothing was ever stored there. The file's position is of no other use, so threads
    /// may fight for it.
    fn is_hole(&self, offset: u64, bytes: u64) -> bool {
        match seek(&self.file, SeekFrom::Data(offset)) {
            Ok(data) => data >= offset + bytes,
            Err(error) => error == rustix::io::Errno::NXIO,
        }
    }
}
