//! What must cross the core link at least, told from the memory of paused VMs by code that shares nothing
//! with the product: plain BLAKE3 of every page, zstd over what is distinct.

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use anyhow::{Context, Result};
use rustix::process::Pid;
use serde::Serialize;

const PAGE: usize = 4096;
const CHUNK: usize = 1 << 20;
/// Distinct pages compressed together: as generous as Rackferry's own frames.
const BATCH_PAGES: usize = 256;
const ZSTD_LEVEL: i32 = 1;
/// A reference carries 128 bits of digest at least.
const REFERENCE_BYTES: u64 = 16;
/// Batches that wait for the compressor.
const QUEUE: usize = 4;

/// What the memory of some VMs comes down to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Bound {
    /// All pages.
    pub pages: u64,
    /// Of these, pages of zeros.
    pub zero_pages: u64,
    /// Different contents, zeros left out.
    pub distinct_pages: u64,
    /// Pages that are neither zero nor the first of their content.
    pub duplicate_pages: u64,
    /// The distinct contents, compressed.
    pub compressed_bytes: u64,
    /// The bound: compressed distinct contents and a reference for each duplicate. Pages that are sent
    /// again because the guest wrote to them come on top, so no real run reaches it.
    pub bytes: u64,
}

/// Reads the memory of paused QEMUs, `memory` bytes each, and computes the bound.
pub(super) fn bound(qemus: &[Pid], memory: u64) -> Result<Bound> {
    let (batches, queue) = sync_channel(QUEUE);
    thread::scope(|scope| {
        let compressor = scope.spawn(move || compressed(&queue));
        let mut scan = Scan { found: Bound::default(), seen: HashSet::new(), batch: Vec::new() };
        for pid in qemus {
            let memory = GuestMemory::open(*pid, memory)?;
            memory.each_chunk(|chunk| {
                for page in chunk.chunks_exact(PAGE) {
                    if let Some(batch) = scan.page(page) {
                        batches.send(batch).context("the compressor ended")?;
                    }
                }
                Ok(())
            })?;
        }
        let Scan { mut found, batch, .. } = scan;
        batches.send(batch).context("the compressor ended")?;
        drop(batches);
        let size = compressor.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        found.compressed_bytes = size;
        found.bytes = size + REFERENCE_BYTES * found.duplicate_pages;
        Ok(found)
    })
}

fn compressed(batches: &Receiver<Vec<u8>>) -> Result<u64> {
    let mut compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL)?;
    let mut size = 0;
    for batch in batches {
        // Contents that do not shrink travel as they are.
        size += compressor.compress(&batch)?.len().min(batch.len()) as u64;
    }
    Ok(size)
}

/// A walk over pages.
struct Scan {
    found: Bound,
    seen: HashSet<[u8; 32]>,
    /// Distinct contents that wait until there are enough of them.
    batch: Vec<u8>,
}

impl Scan {
    /// Counts a page; a batch of distinct contents, if it completes one.
    fn page(&mut self, page: &[u8]) -> Option<Vec<u8>> {
        self.found.pages += 1;
        if page.iter().all(|&byte| byte == 0) {
            self.found.zero_pages += 1;
        } else if self.seen.insert(*blake3::hash(page).as_bytes()) {
            self.found.distinct_pages += 1;
            self.batch.extend_from_slice(page);
        } else {
            self.found.duplicate_pages += 1;
        }
        let full = self.batch.len() == BATCH_PAGES * PAGE;
        full.then(|| std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH_PAGES * PAGE)))
    }
}

/// Where a QEMU's guest memory can be read.
struct GuestMemory {
    file: File,
    start: u64,
    length: u64,
}

impl GuestMemory {
    /// A memory file if there is one of the right length: unlike the mapping, reading it leaves holes
    /// alone. Otherwise QEMU's one private mapping of that length.
    fn open(pid: Pid, length: u64) -> Result<Self> {
        if let Some(path) = memory_file(pid, length)? {
            return Ok(Self { file: File::open(path)?, start: 0, length });
        }
        let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let start = mapping(&maps, length)
            .with_context(|| format!("QEMU {pid} has no memory of {length} bytes"))?;
        Ok(Self { file: File::open(format!("/proc/{pid}/mem"))?, start, length })
    }

    fn each_chunk(&self, mut visit: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut chunk = vec![0; CHUNK];
        for at in (0..self.length).step_by(CHUNK) {
            let size = CHUNK.min((self.length - at) as usize);
            self.file.read_exact_at(&mut chunk[..size], self.start + at)?;
            visit(&chunk[..size])?;
        }
        Ok(())
    }
}

fn memory_file(pid: Pid, length: u64) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let path = entry?.path();
        let Ok(target) = fs::read_link(&path) else { continue };
        if target.to_string_lossy().starts_with("/memfd:") && path.metadata()?.len() == length {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Where the private writable mapping of this length begins; the kernel may have joined it with one that
/// follows.
fn mapping(maps: &str, length: u64) -> Option<u64> {
    let ranges = maps.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        let (range, mode, inode) = (fields.next()?, fields.next()?, fields.nth(2)?);
        let (start, end) = range.split_once('-')?;
        let start = u64::from_str_radix(start, 16).ok()?;
        let size = u64::from_str_radix(end, 16).ok()?.checked_sub(start)?;
        (mode == "rw-p" && inode == "0" && size >= length).then_some((size, start))
    });
    ranges.min().map(|(_, start)| start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_each_content_once() {
        let mut scan = Scan { found: Bound::default(), seen: HashSet::new(), batch: Vec::new() };
        for byte in [0, 1, 2, 1, 0, 1] {
            assert!(scan.page(&[byte; PAGE]).is_none());
        }
        let found = scan.found;
        assert_eq!((found.pages, found.zero_pages), (6, 2));
        assert_eq!((found.distinct_pages, found.duplicate_pages), (2, 2));
        assert_eq!(scan.batch.len(), 2 * PAGE);
    }

    #[test]
    fn finds_the_smallest_private_mapping_that_holds_the_memory() {
        let maps = "\
7f0000000000-7f0010000000 rw-s 00000000 00:01 1 /memfd:x (deleted)
7f1000000000-7f1010001000 rw-p 00000000 00:00 0
7f2000000000-7f2010000000 rw-p 00000000 00:00 0 \n\
7f3000000000-7f3000001000 rw-p 00000000 00:00 0 [heap]\n";
        assert_eq!(mapping(maps, 0x1000_0000), Some(0x7f20_0000_0000));
        assert_eq!(mapping(maps, 0x2000_0000), None);
    }
}
