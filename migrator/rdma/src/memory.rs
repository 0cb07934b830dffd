//! Memory that is registered: mapped at one place for as long as its owner lives.
#![allow(unsafe_code, reason = "mappings are made and unmade here")]

use std::ffi::c_void;
use std::os::fd::OwnedFd;
use std::ptr::{self, NonNull};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::error::RdmaError;
use crate::limits::PAGE_BYTES;

/// Bytes of a huge page; a registration of huge pages begins and ends on one.
const HUGE_BYTES: usize = 2 << 20;

/// Memory that a [`Region`](crate::Region) can own.
///
/// # Safety
/// The `bytes` from `start` on are mapped, readable, writable and initialised from now until the value is dropped,
/// and are reached through this value alone. They are shared memory: after a fork a private page would be copied, and the
/// device would go on with the one that the child has.
pub unsafe trait Backing: Send + Sync + 'static {
    /// First byte; a multiple of 4096.
    fn start(&self) -> NonNull<u8>;
    /// How many; a multiple of 4096.
    fn bytes(&self) -> usize;
}

/// Which pages memory has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// 4 KiB.
    Small,
    /// 2 MiB: the device's own tables stay small.
    Huge,
}

/// A shared mapping of anonymous memory.
#[derive(Debug)]
pub struct Memory {
    start: NonNull<u8>,
    bytes: usize,
    file: OwnedFd,
}

// SAFETY: the mapping belongs to the process, not to a thread, and this value has no interior of its own.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// Memory of at least so many slots, all zeros.
    ///
    /// # Errors
    /// The system has not as much, or no huge pages.
    pub fn new(slots: u32, pages: Pages) -> Result<Self, RdmaError> {
        let (unit, flags) = match pages {
            Pages::Small => (PAGE_BYTES, MemfdFlags::CLOEXEC),
            Pages::Huge => {
                (HUGE_BYTES, MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB)
            }
        };
        let bytes = (slots.max(1) as usize * PAGE_BYTES).next_multiple_of(unit);
        let call =
            |call| move |error: rustix::io::Errno| RdmaError::number(call, error.raw_os_error());
        let file = memfd_create("rackferry-rdma", flags).map_err(call("memfd_create"))?;
        ftruncate(&file, bytes as u64).map_err(call("ftruncate"))?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses a place where nothing is mapped.
        let start = unsafe { mmap(ptr::null_mut(), bytes, access, MapFlags::SHARED, &file, 0) };
        let start = start.map_err(call("mmap"))?.cast::<u8>();
        let start = NonNull::new(start).expect("nothing is mapped at address 0");
        Ok(Self { start, bytes, file })
    }

    /// How many slots it has.
    #[must_use]
    pub fn slots(&self) -> u32 {
        (self.bytes / PAGE_BYTES) as u32
    }
}

// SAFETY: the mapping is made in `new` and unmade in `drop`; it is shared, and zero where nothing was written. The file
// is not given away, so nothing else maps it.
unsafe impl Backing for Memory {
    fn start(&self) -> NonNull<u8> {
        self.start
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let start = self.start.as_ptr().cast::<c_void>();
        // SAFETY: the mapping is this value's, and no reference into it outlives the value.
        if let Err(error) = unsafe { munmap(start, self.bytes) } {
            tracing::warn!(%error, file = ?self.file, "munmap failed");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]
mod tests {
    use super::*;

    #[test]
    fn memory_is_whole_pages_of_zeros() {
        let memory = Memory::new(3, Pages::Small).unwrap();
        assert_eq!((memory.slots(), memory.bytes()), (3, 3 * PAGE_BYTES));
        assert_eq!(memory.start().as_ptr() as usize % PAGE_BYTES, 0);
        // SAFETY: the mapping lives, and nothing writes.
        let bytes = unsafe { std::slice::from_raw_parts(memory.start().as_ptr(), memory.bytes()) };
        assert!(bytes.iter().all(|&byte| byte == 0));
        assert_eq!(Memory::new(0, Pages::Small).unwrap().slots(), 1);
    }
}
