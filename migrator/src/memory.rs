//! Guest memory owned by the agent: a memfd that QEMU is given as a descriptor.
//!
//! Pages are reached in two ways, both safe to mix because they meet in the page cache: chunks that
//! were populated are mapped (fastest); all others are read and written by `pread`/`pwrite`, which
//! neither allocates a page for reading nor clears one that is about to be overwritten. Huge pages know
//! no `pwrite` and are mapped when first written. Pages that are known to be there are read through a
//! view of their chunk, which costs less than `pread` ([`GuestMemory::read_present`]).

mod digest;

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fstat, fstatfs, memfd_create,
};
use vm_memory::mmap::MmapRegion;
use vm_memory::{FileOffset, VolatileMemory};

pub use digest::MemoryDigest;

/// QEMU's name of the block that is the guest memory, in all VMs that an agent starts.
pub const RAM_BLOCK: &str = "pc.ram";

/// Bytes of a page, whatever the host's pages are.
pub const PAGE_BYTES: usize = 4096;
/// Bytes mapped or reserved at a time; small enough that a thread holds up no other.
const CHUNK_BYTES: u64 = 32 << 20;
/// Statfs type of hugetlbfs.
const HUGETLBFS_MAGIC: i64 = 0x9584_58f6;

/// Size of the host pages behind guest memory, when not the normal ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HugePages {
    /// 2 MiB.
    TwoMiB,
    /// 1 GiB.
    OneGiB,
}

impl HugePages {
    /// Bytes of one.
    #[must_use]
    pub fn bytes(self) -> u64 {
        match self {
            Self::TwoMiB => 2 << 20,
            Self::OneGiB => 1 << 30,
        }
    }
}

/// How much is done ahead of the pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preallocate {
    /// Memory is set aside, so that running out shows now: 0.13 s/GiB, placing then costs 0.25 s/GiB.
    Reserve,
    /// Memory is cleared and mapped as well: 0.7 s/GiB, placing then costs 0.13 s/GiB.
    Populate,
}

/// What can go wrong with guest memory.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// Size of zero, or not a multiple of the page size.
    #[error("guest memory of {bytes} bytes is not a positive multiple of {page_bytes}")]
    Size {
        /// Bytes asked for.
        bytes: u64,
        /// Bytes of the pages behind it.
        page_bytes: u64,
    },
    /// The memory cannot be made.
    #[error("cannot create guest memory {name} of {bytes} bytes")]
    Create {
        /// Name of the memfd.
        name: String,
        /// Bytes asked for.
        bytes: u64,
        /// Why.
        source: io::Error,
    },
    /// A running process has no such memory.
    #[error("process {pid} has no memfd named {name}")]
    NotFound {
        /// The process.
        pid: u32,
        /// Name of the memfd.
        name: String,
    },
    /// Memory of another process cannot be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// File in /proc.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The host has not enough memory (of this page size).
    #[error("cannot reserve guest memory at {offset}")]
    Reserve {
        /// Byte offset.
        offset: u64,
        /// Why.
        source: io::Error,
    },
    /// The memory cannot be mapped.
    #[error("cannot map guest memory at {offset}")]
    Map {
        /// Byte offset.
        offset: u64,
        /// Why.
        source: io::Error,
    },
    /// The memory cannot be read or written.
    #[error("cannot access guest memory at {offset}")]
    Access {
        /// Byte offset.
        offset: u64,
        /// Why.
        source: io::Error,
    },
    /// A range outside of the memory.
    #[error("{bytes} bytes at {offset} are outside of guest memory of {size} bytes")]
    OutOfRange {
        /// Byte offset.
        offset: u64,
        /// Bytes wanted.
        bytes: usize,
        /// Bytes there are.
        size: u64,
    },
}

/// Memory of one guest. All methods take `&self` and may be called from many threads; the order of
/// writes to one page is the caller's concern.
#[derive(Debug)]
pub struct GuestMemory {
    /// Shared with all mappings.
    file: Arc<File>,
    name: String,
    bytes: u64,
    huge: bool,
    chunk_bytes: u64,
    chunks: Box<[OnceLock<MmapRegion>]>,
    /// Read only, mapped when first needed.
    views: Box<[OnceLock<MmapRegion>]>,
    /// One bit per page: set if it may hold something else than zeros.
    touched: Box<[AtomicU64]>,
}

impl GuestMemory {
    /// Makes zeroed memory whose size no process can change. Its `name` shows in `/proc/PID/fd` of every process that has it open.
    ///
    /// # Errors
    /// Bad size, or the kernel refuses.
    pub fn create(name: &str, bytes: u64, huge: Option<HugePages>) -> Result<Self, MemoryError> {
        check_size(bytes, huge.map_or(PAGE_BYTES as u64, HugePages::bytes))?;
        let size = match huge {
            None => MemfdFlags::empty(),
            Some(HugePages::TwoMiB) => MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB,
            Some(HugePages::OneGiB) => MemfdFlags::HUGETLB | MemfdFlags::HUGE_1GB,
        };
        let failed =
            |source: io::Error| MemoryError::Create { name: name.to_owned(), bytes, source };
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | size;
        let fd = memfd_create(name, flags).map_err(|e| failed(e.into()))?;
        let file = File::from(fd);
        file.set_len(bytes).map_err(failed)?;
        // A QEMU in foreign hands could shorten it, and kill with that every process that has it mapped.
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        fcntl_add_seals(&file, seals).map_err(|e| failed(e.into()))?;
        Self::new(file, name, false)
    }

    /// Takes memory that exists; what it holds is unknown.
    ///
    /// # Errors
    /// It is not a file of whole pages.
    pub fn from_fd(name: &str, fd: OwnedFd) -> Result<Self, MemoryError> {
        Self::new(File::from(fd), name, true)
    }

    /// Opens the memfd `name` of a running process: how an agent finds a VM's memory again.
    ///
    /// # Errors
    /// There is none of that name, or it may not be opened.
    pub fn open_of_process(pid: u32, name: &str) -> Result<Self, MemoryError> {
        let dir = PathBuf::from(format!("/proc/{pid}/fd"));
        let wanted = format!("/memfd:{name} (deleted)");
        let entries =
            fs::read_dir(&dir).map_err(|source| MemoryError::Open { path: dir, source })?;
        for path in entries.flatten().map(|entry| entry.path()) {
            if fs::read_link(&path).is_ok_and(|link| link.as_os_str() == wanted.as_str()) {
                let file = File::options().read(true).write(true).open(&path);
                let file = file.map_err(|source| MemoryError::Open { path, source })?;
                return Self::new(file, name, true);
            }
        }
        Err(MemoryError::NotFound { pid, name: name.to_owned() })
    }

    fn new(file: File, name: &str, touched: bool) -> Result<Self, MemoryError> {
        let failed =
            |e: rustix::io::Errno| MemoryError::Access { offset: 0, source: io::Error::from(e) };
        let bytes = u64::try_from(fstat(&file).map_err(failed)?.st_size).unwrap_or(0);
        let fs = fstatfs(&file).map_err(failed)?;
        let huge = fs.f_type == HUGETLBFS_MAGIC;
        let huge_bytes = if huge { u64::try_from(fs.f_bsize).unwrap_or(0) } else { 0 };
        check_size(bytes, huge_bytes.max(PAGE_BYTES as u64))?;
        let chunk_bytes = CHUNK_BYTES.max(huge_bytes);
        let chunks = bytes.div_ceil(chunk_bytes) as usize;
        let words = (bytes / PAGE_BYTES as u64).div_ceil(64) as usize;
        let fill = if touched { u64::MAX } else { 0 };
        Ok(Self {
            file: Arc::new(file),
            name: name.to_owned(),
            bytes,
            huge,
            chunk_bytes,
            chunks: (0..chunks).map(|_| OnceLock::new()).collect(),
            views: (0..chunks).map(|_| OnceLock::new()).collect(),
            touched: (0..words).map(|_| AtomicU64::new(fill)).collect(),
        })
    }

    /// Name of the memfd.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes of the memory.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Pages of [`PAGE_BYTES`].
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.bytes / PAGE_BYTES as u64
    }

    /// Path by which the memory can be opened anew as long as this process lives.
    #[must_use]
    pub fn proc_path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()).into()
    }

    /// Writes a whole page.
    ///
    /// # Errors
    /// Outside of the memory, or the host is out of it.
    pub fn write_page(&self, page: u64, content: &[u8; PAGE_BYTES]) -> Result<(), MemoryError> {
        let offset = self.check(page, PAGE_BYTES)?;
        self.mark(page);
        self.write_at(offset, content)
    }

    /// Writes whole pages from page `first` on.
    ///
    /// # Errors
    /// As [`GuestMemory::write_page`].
    pub fn write_pages(&self, first: u64, content: &[[u8; PAGE_BYTES]]) -> Result<(), MemoryError> {
        let bytes = content.as_flattened();
        let offset = self.check(first, bytes.len())?;
        (first..first + content.len() as u64).for_each(|page| self.mark(page));
        self.in_chunks(offset, bytes.len(), |at, range| self.write_at(at, &bytes[range]))
    }

    /// Makes a page zero; free of cost if it is known to be.
    ///
    /// # Errors
    /// As [`GuestMemory::write_page`].
    pub fn zero_page(&self, page: u64) -> Result<(), MemoryError> {
        const ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];
        let offset = self.check(page, PAGE_BYTES)?;
        let (word, bit) = self.touched_bit(page);
        if word.load(Ordering::Relaxed) & bit == 0 {
            return Ok(());
        }
        let mut content = [0; PAGE_BYTES];
        self.read_at(offset, &mut content)?;
        if content != ZEROS {
            self.write_at(offset, &ZEROS)?;
        }
        word.fetch_and(!bit, Ordering::Relaxed);
        Ok(())
    }

    /// Reads a whole page. Costs no memory, also where the guest never wrote.
    ///
    /// # Errors
    /// Outside of the memory.
    pub fn read_page(&self, page: u64, into: &mut [u8; PAGE_BYTES]) -> Result<(), MemoryError> {
        self.read_pages(page, into)
    }

    /// Reads bytes from the start of page `first` on; `into` may end inside of a page.
    ///
    /// # Errors
    /// Outside of the memory.
    pub fn read_pages(&self, first: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        let offset = self.check(first, into.len())?;
        self.in_chunks(offset, into.len(), |at, range| self.read_at(at, &mut into[range]))
    }

    /// As [`GuestMemory::read_pages`], faster, for pages that have been written: one that has not would take memory
    /// from then on.
    ///
    /// # Errors
    /// Outside of the memory.
    pub fn read_present(&self, first: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        let offset = self.check(first, into.len())?;
        self.in_chunks(offset, into.len(), |at, range| {
            let chunk = (at / self.chunk_bytes) as usize;
            if self.huge || self.chunks[chunk].get().is_some() {
                return self.read_at(at, &mut into[range]);
            }
            let view = match self.views[chunk].get() {
                Some(view) => view,
                None => {
                    let view = self.map_chunk(chunk, libc::PROT_READ, 0)?;
                    self.views[chunk].get_or_init(|| view)
                }
            };
            self.read_region(view, at, &mut into[range])
        })
    }

    /// Calls `each` with every part of the range that lies in one chunk: its offset, and where it is in the range.
    fn in_chunks(
        &self,
        offset: u64,
        bytes: usize,
        mut each: impl FnMut(u64, Range<usize>) -> Result<(), MemoryError>,
    ) -> Result<(), MemoryError> {
        let mut done = 0;
        while done < bytes {
            let at = offset + done as u64;
            let in_chunk = (self.chunk_bytes - at % self.chunk_bytes) as usize;
            let end = bytes.min(done.saturating_add(in_chunk));
            each(at, done..end)?;
            done = end;
        }
        Ok(())
    }

    /// Forgets which pages are known to be zero: QEMU or the guest has written.
    pub fn mark_all(&self) {
        self.touched.iter().for_each(|word| word.store(u64::MAX, Ordering::Relaxed));
    }

    /// Sets memory aside for the whole guest. Blocks; see [`GuestMemory::preallocate_in_background`].
    /// Pages keep their content.
    ///
    /// # Errors
    /// The host is out of memory of this kind.
    pub fn preallocate(&self, how: Preallocate) -> Result<(), MemoryError> {
        (0..self.chunks.len()).try_for_each(|chunk| self.preallocate_chunk(chunk, how))
    }

    /// [`GuestMemory::preallocate`] in a thread of its own, which ends early when the memory is dropped.
    pub fn preallocate_in_background(
        self: &Arc<Self>,
        how: Preallocate,
    ) -> JoinHandle<Result<(), MemoryError>> {
        let chunks = self.chunks.len();
        let memory = Arc::downgrade(self);
        thread::spawn(move || {
            for chunk in 0..chunks {
                let Some(memory) = memory.upgrade() else { break };
                memory.preallocate_chunk(chunk, how)?;
            }
            Ok(())
        })
    }

    fn preallocate_chunk(&self, chunk: usize, how: Preallocate) -> Result<(), MemoryError> {
        let (offset, bytes) = self.chunk_range(chunk);
        fallocate(&self.file, FallocateFlags::empty(), offset, bytes as u64)
            .map_err(|e| MemoryError::Reserve { offset, source: e.into() })?;
        if how == Preallocate::Populate && self.chunks[chunk].get().is_none() {
            let both = libc::PROT_READ | libc::PROT_WRITE;
            let region = self.map_chunk(chunk, both, libc::MAP_POPULATE)?;
            // A thread that was faster has mapped the same.
            let _ = self.chunks[chunk].set(region);
        }
        Ok(())
    }

    fn chunk_range(&self, chunk: usize) -> (u64, usize) {
        let offset = chunk as u64 * self.chunk_bytes;
        (offset, self.chunk_bytes.min(self.bytes - offset) as usize)
    }

    fn map_chunk(
        &self,
        chunk: usize,
        protection: i32,
        flags: i32,
    ) -> Result<MmapRegion, MemoryError> {
        let (offset, bytes) = self.chunk_range(chunk);
        let failed = |source| MemoryError::Map { offset, source };
        let file = FileOffset::from_arc(self.file.clone(), offset);
        let flags = libc::MAP_SHARED | libc::MAP_NORESERVE | flags;
        MmapRegion::build(Some(file), bytes, protection, flags)
            .map_err(|error| failed(io::Error::other(error)))
    }

    /// `bytes` at `offset` must lie in one chunk.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        let chunk = (offset / self.chunk_bytes) as usize;
        if self.huge && self.chunks[chunk].get().is_none() {
            self.preallocate_chunk(chunk, Preallocate::Populate)?;
        }
        let failed = |source| MemoryError::Access { offset, source };
        match self.chunks[chunk].get() {
            Some(region) => {
                let at = (offset % self.chunk_bytes) as usize;
                let slice = region.get_slice(at, bytes.len());
                slice.map_err(|error| failed(io::Error::other(error)))?.copy_from(bytes);
                Ok(())
            }
            None => self.file.write_all_at(bytes, offset).map_err(failed),
        }
    }

    /// As [`GuestMemory::write_at`].
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), MemoryError> {
        match self.chunks[(offset / self.chunk_bytes) as usize].get() {
            Some(region) => self.read_region(region, offset, into),
            None => self
                .file
                .read_exact_at(into, offset)
                .map_err(|source| MemoryError::Access { offset, source }),
        }
    }

    /// From the mapping of the chunk that has `offset`.
    fn read_region(
        &self,
        region: &MmapRegion,
        offset: u64,
        into: &mut [u8],
    ) -> Result<(), MemoryError> {
        let slice = region.get_slice((offset % self.chunk_bytes) as usize, into.len());
        let failed = |error| MemoryError::Access { offset, source: io::Error::other(error) };
        slice.map_err(failed)?.copy_to(into);
        Ok(())
    }

    fn check(&self, first: u64, bytes: usize) -> Result<u64, MemoryError> {
        let offset = first.saturating_mul(PAGE_BYTES as u64);
        match offset.checked_add(bytes as u64) {
            Some(end) if end <= self.bytes => Ok(offset),
            _ => Err(MemoryError::OutOfRange { offset, bytes, size: self.bytes }),
        }
    }

    fn touched_bit(&self, page: u64) -> (&AtomicU64, u64) {
        (&self.touched[(page / 64) as usize], 1 << (page % 64))
    }

    fn mark(&self, page: u64) {
        let (word, bit) = self.touched_bit(page);
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }
}

impl AsFd for GuestMemory {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn check_size(bytes: u64, page_bytes: u64) -> Result<(), MemoryError> {
    if bytes == 0 || !bytes.is_multiple_of(page_bytes) {
        return Err(MemoryError::Size { bytes, page_bytes });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
