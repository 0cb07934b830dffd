//! Protection domains, and memory that a device may reach.

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

use rdma_sys::{
    ibv_access_flags, ibv_alloc_pd, ibv_dealloc_pd, ibv_dereg_mr, ibv_mr, ibv_pd, ibv_reg_mr,
};

use super::context::Context;
use crate::error::RdmaError;

/// A protection domain: queue pairs reach memory of their own one only.
#[derive(Debug)]
pub(crate) struct Pd {
    raw: NonNull<ibv_pd>,
    context: Arc<Context>,
}

// SAFETY: as with `Context`.
unsafe impl Send for Pd {}
// SAFETY: as with `Context`.
unsafe impl Sync for Pd {}

impl Pd {
    /// A new domain.
    pub(crate) fn new(context: &Arc<Context>) -> Result<Self, RdmaError> {
        // SAFETY: the context is open.
        let raw = NonNull::new(unsafe { ibv_alloc_pd(context.raw()) });
        let raw = raw.ok_or_else(|| RdmaError::last("ibv_alloc_pd"))?;
        Ok(Self { raw, context: Arc::clone(context) })
    }

    pub(super) fn raw(&self) -> *mut ibv_pd {
        self.raw.as_ptr()
    }
}

impl Drop for Pd {
    fn drop(&mut self) {
        // SAFETY: registrations and queue pairs of the domain hold an `Arc` of it, so none is left.
        if unsafe { ibv_dealloc_pd(self.raw()) } != 0 {
            tracing::warn!(device = self.context.name(), "ibv_dealloc_pd failed");
        }
    }
}

/// What may be done to registered memory. There is no more than this: no peer ever writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Peers read it.
    RemoteRead,
    /// Our own READs land in it.
    LocalWrite,
}

/// Memory that the device knows.
#[derive(Debug)]
pub(crate) struct Mr {
    raw: NonNull<ibv_mr>,
    pd: Arc<Pd>,
}

// SAFETY: as with `Context`; the keys that are read are constant.
unsafe impl Send for Mr {}
// SAFETY: as above.
unsafe impl Sync for Mr {}

impl Mr {
    /// Registers memory.
    ///
    /// # Safety
    /// The memory stays mapped until [`release`](Self::release) has returned `Ok`.
    pub(crate) unsafe fn register(
        pd: &Arc<Pd>,
        start: NonNull<u8>,
        bytes: usize,
        access: Access,
    ) -> io::Result<Self> {
        let access = match access {
            Access::RemoteRead => ibv_access_flags::IBV_ACCESS_REMOTE_READ,
            Access::LocalWrite => ibv_access_flags::IBV_ACCESS_LOCAL_WRITE,
        };
        let access = i32::try_from(access.0).expect("flags of few bits");
        // SAFETY: the domain lives; the memory is mapped, as the caller promises.
        let raw = unsafe { ibv_reg_mr(pd.raw(), start.as_ptr().cast(), bytes, access) };
        let raw = NonNull::new(raw).ok_or_else(io::Error::last_os_error)?;
        Ok(Self { raw, pd: Arc::clone(pd) })
    }

    /// Its domain.
    pub(crate) fn pd(&self) -> &Arc<Pd> {
        &self.pd
    }

    /// The key for our own work requests.
    pub(crate) fn lkey(&self) -> u32 {
        // SAFETY: the registration lives, and its keys do not change.
        unsafe { (*self.raw.as_ptr()).lkey }
    }

    /// The key for peers.
    pub(crate) fn rkey(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.raw.as_ptr()).rkey }
    }

    /// Makes the device forget the memory. If it does not, the memory must stay mapped for ever.
    pub(crate) fn release(self) -> Result<(), RdmaError> {
        // SAFETY: the registration was not released before, as this takes it; domain and context live.
        match unsafe { ibv_dereg_mr(self.raw.as_ptr()) } {
            0 => Ok(()),
            errno => Err(RdmaError::number("ibv_dereg_mr", errno)),
        }
    }
}
