//! Registered memory, and the slots that it is made of.
#![allow(unsafe_code, reason = "slots are pieces of mapped memory")]

use std::io;
use std::marker::PhantomData;
use std::mem;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Resource, getrlimit};

use crate::device::{Domain, Export, Kind, Landing};
use crate::error::RdmaError;
use crate::limits::{PAGE_BYTES, SLOTS_MAX};
use crate::memory::Backing;
use crate::peer::RemoteRegion;
use crate::verbs::{Entry, Mr, Pd};

/// Memory that the device knows, as slots of 4 KiB. Of an [`Export`] region peers read; into a [`Landing`] region our
/// own READs write. No region can be written by a peer.
///
/// A region owns its memory, which can be neither unmapped nor used otherwise while the device knows it:
///
/// ```no_run
/// # use rackferry_rdma::{Domain, Export, Memory, Pages, Region, RdmaError};
/// # fn f(domain: &Domain<Export>) -> Result<(), RdmaError> {
/// let memory = Memory::new(16, Pages::Small)?;
/// let region = Region::register(domain, memory)?;
/// region.slots();
/// # Ok(())
/// # }
/// ```
///
/// ```compile_fail,E0382
/// # use rackferry_rdma::{Domain, Export, Memory, Pages, Region, RdmaError};
/// # fn f(domain: &Domain<Export>) -> Result<(), RdmaError> {
/// let memory = Memory::new(16, Pages::Small)?;
/// let region = Region::register(domain, memory)?;
/// memory.slots();
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Region<K: Kind> {
    inner: Arc<Registered>,
    kind: PhantomData<K>,
}

/// The registration and what it needs, in the order in which they end.
pub(crate) struct Registered {
    mr: Option<Mr>,
    memory: Option<Box<dyn Backing>>,
    start: NonNull<u8>,
    slots: u32,
    lkey: u32,
    rkey: u32,
    pd: Arc<Pd>,
    /// Slots that are not handed out, the next one last.
    free: Mutex<Vec<u32>>,
}

// SAFETY: `start` is the address of `memory`, which may be shared between threads; slots say which thread reaches what.
unsafe impl Send for Registered {}
// SAFETY: as above.
unsafe impl Sync for Registered {}

impl std::fmt::Debug for Registered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registered").field("slots", &self.slots).finish_non_exhaustive()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let released = self.mr.take().map_or(Ok(()), Mr::release);
        if let Err(error) = released {
            tracing::warn!(%error, "memory that the device does not let go stays mapped");
            mem::forget(self.memory.take());
        }
    }
}

impl<K: Kind> Region<K> {
    /// Registers memory.
    ///
    /// # Errors
    /// [`RdmaError::Memlock`] if the process may not lock so much.
    pub fn register(domain: &Domain<K>, memory: impl Backing) -> Result<Self, RdmaError> {
        let (start, bytes) = (memory.start(), memory.bytes());
        let slots = u32::try_from(bytes / PAGE_BYTES).unwrap_or(u32::MAX);
        if slots > SLOTS_MAX {
            return Err(RdmaError::Unsupported(format!(
                "a region of {slots} slots: {SLOTS_MAX} is the most"
            )));
        }
        // SAFETY: the region owns the memory, which is mapped as long as it lives, and gives it up after the
        // registration, or never.
        let mr = unsafe { Mr::register(domain.pd(), start, bytes, K::ACCESS) }
            .map_err(|error| registration(error, bytes as u64))?;
        let (lkey, rkey, pd) = (mr.lkey(), mr.rkey(), Arc::clone(mr.pd()));
        let memory: Option<Box<dyn Backing>> = Some(Box::new(memory));
        let free = Mutex::new((0..slots).rev().collect());
        let inner = Registered { mr: Some(mr), memory, start, slots, lkey, rkey, pd, free };
        Ok(Self { inner: Arc::new(inner), kind: PhantomData })
    }

    /// How many slots it has.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.inner.slots
    }

    /// How many of them are free.
    #[must_use]
    pub fn free(&self) -> usize {
        self.inner.free().len()
    }

    /// Hands out slots, none if there are not as many. They come back by being dropped.
    #[must_use]
    pub fn take(&self, count: usize) -> Option<Vec<Slot<K>>> {
        let mut free = self.inner.free();
        let rest = free.len().checked_sub(count)?;
        let slot = |index| Slot { inner: Arc::clone(&self.inner), index, kind: PhantomData };
        Some(free.drain(rest..).rev().map(slot).collect())
    }
}

impl Region<Export> {
    /// What a peer must know to read it, if it is of this domain.
    pub(crate) fn offer(&self, pd: &Arc<Pd>) -> Option<RemoteRegion> {
        let base = self.inner.start.as_ptr() as u64;
        let ours = Arc::ptr_eq(&self.inner.pd, pd);
        ours.then(|| RemoteRegion::new(base, self.inner.slots, self.inner.rkey).ok()).flatten()
    }
}

impl Registered {
    fn free(&self) -> std::sync::MutexGuard<'_, Vec<u32>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A page of a region, owned: by whoever fills or reads it, or by the device between post and completion. It is not
/// `Clone`, and free again when it is dropped.
#[derive(Debug)]
pub struct Slot<K: Kind> {
    inner: Arc<Registered>,
    index: u32,
    kind: PhantomData<K>,
}

impl<K: Kind> Slot<K> {
    /// Its number in its region: what a peer names it by.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// What is in it.
    #[must_use]
    pub fn bytes(&self) -> &[u8; PAGE_BYTES] {
        // SAFETY: the page is mapped and initialised, and reached through this slot alone: another of the same index
        // is handed out only after this was dropped, and a slot that the device writes to is owned by its queue pair.
        unsafe { self.start().cast::<[u8; PAGE_BYTES]>().as_ref() }
    }

    fn start(&self) -> NonNull<u8> {
        debug_assert!(self.index < self.inner.slots, "a slot lies in its region");
        // SAFETY: the index is below the number of slots, so the address lies within the mapping.
        unsafe { self.inner.start.add(self.index as usize * PAGE_BYTES) }
    }
}

impl Slot<Export> {
    /// Puts a page into it. A peer that reads meanwhile gets parts of both contents, and finds so by its digest.
    pub fn fill(&mut self, page: &[u8; PAGE_BYTES]) {
        // SAFETY: the page is mapped, `&mut` says that nothing of ours reads it, and `page` is no part of it.
        unsafe { self.start().copy_from_nonoverlapping(NonNull::from(page).cast(), PAGE_BYTES) };
    }
}

impl Slot<Landing> {
    /// As a READ wants it, if it is of this domain.
    pub(crate) fn entry(&self, pd: &Arc<Pd>) -> Option<Entry> {
        let bytes = PAGE_BYTES as u32;
        let entry = || Entry { start: self.start(), bytes, lkey: self.inner.lkey };
        Arc::ptr_eq(&self.inner.pd, pd).then(entry)
    }
}

impl<K: Kind> Drop for Slot<K> {
    fn drop(&mut self) {
        self.inner.free().push(self.index);
    }
}

/// What a failed registration means: verbs say only that there is not enough memory.
fn registration(error: io::Error, needed: u64) -> RdmaError {
    let refused = [io::ErrorKind::OutOfMemory, io::ErrorKind::PermissionDenied];
    match getrlimit(Resource::Memlock).current {
        Some(limit) if limit < needed && refused.contains(&error.kind()) => {
            RdmaError::Memlock { needed, limit }
        }
        _ => RdmaError::Call { call: "ibv_reg_mr", source: error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Needs no device: a limit of this machine, or none, decides.
    #[test]
    fn a_registration_beyond_the_limit_names_both_numbers() {
        let error = || io::Error::from(io::ErrorKind::OutOfMemory);
        let said = registration(error(), u64::MAX).to_string();
        match getrlimit(Resource::Memlock).current {
            Some(limit) => assert!(said.contains(&limit.to_string()) && said.contains("MEMLOCK")),
            None => assert_eq!(said, "ibv_reg_mr failed"),
        }
        let other = registration(io::Error::from(io::ErrorKind::InvalidInput), u64::MAX);
        assert_eq!(other.to_string(), "ibv_reg_mr failed");
    }
}
