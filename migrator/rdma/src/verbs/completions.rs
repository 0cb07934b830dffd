//! A completion queue and the channel that says when it has something.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;

use rdma_sys::{
    ibv_ack_cq_events, ibv_comp_channel, ibv_cq, ibv_create_comp_channel, ibv_create_cq,
    ibv_destroy_comp_channel, ibv_destroy_cq, ibv_get_cq_event, ibv_poll_cq, ibv_req_notify_cq,
    ibv_wc,
};

use super::context::{Context, none};
use crate::error::RdmaError;
use crate::limits::POLL;

/// How one work request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Completion {
    /// The number it was posted with.
    pub id: u64,
    /// The library's number of how it ended; 0 is well.
    pub status: u32,
    /// The device's own code.
    pub vendor: u32,
}

/// Queue and channel.
#[derive(Debug)]
pub(crate) struct Completions {
    queue: NonNull<ibv_cq>,
    channel: Channel,
    context: Arc<Context>,
}

// SAFETY: as with `Context`: the library locks a queue for each call.
unsafe impl Send for Completions {}
// SAFETY: as above.
unsafe impl Sync for Completions {}

#[derive(Debug)]
struct Channel(NonNull<ibv_comp_channel>);

impl Drop for Channel {
    fn drop(&mut self) {
        // SAFETY: the queue that used the channel is destroyed first, or was never made.
        if unsafe { ibv_destroy_comp_channel(self.0.as_ptr()) } != 0 {
            tracing::warn!("ibv_destroy_comp_channel failed");
        }
    }
}

impl Completions {
    /// A queue of at least this many entries.
    pub(crate) fn new(context: &Arc<Context>, entries: u32) -> Result<Self, RdmaError> {
        // SAFETY: the context is open.
        let channel = NonNull::new(unsafe { ibv_create_comp_channel(context.raw()) });
        let channel = Channel(channel.ok_or_else(|| RdmaError::last("ibv_create_comp_channel"))?);
        let entries = i32::try_from(entries).unwrap_or(i32::MAX);
        // SAFETY: context and channel live; the queue is destroyed before the channel.
        let queue = unsafe { ibv_create_cq(context.raw(), entries, none(), channel.0.as_ptr(), 0) };
        let queue = NonNull::new(queue).ok_or_else(|| RdmaError::last("ibv_create_cq"))?;
        Ok(Self { queue, channel, context: Arc::clone(context) })
    }

    pub(super) fn raw(&self) -> *mut ibv_cq {
        self.queue.as_ptr()
    }

    /// The device.
    pub(crate) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Becomes readable when an armed queue gets a completion.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as the channel.
        unsafe { BorrowedFd::borrow_raw((*self.channel.0.as_ptr()).fd) }
    }

    /// Asks for one notice when the next completion comes. One that came before is not noticed: poll after it.
    pub(crate) fn arm(&self) -> Result<(), RdmaError> {
        // SAFETY: the queue lives.
        match unsafe { ibv_req_notify_cq(self.raw(), 0) } {
            0 => Ok(()),
            errno => Err(RdmaError::number("ibv_req_notify_cq", errno)),
        }
    }

    /// Takes all notices out of the channel, which must not block.
    pub(crate) fn drain(&self) -> io::Result<()> {
        loop {
            let (mut queue, mut ours) = (none(), none());
            // SAFETY: the channel lives, and the pointers are places for what it writes.
            let code =
                unsafe { ibv_get_cq_event(self.channel.0.as_ptr(), &raw mut queue, &raw mut ours) };
            if code != 0 {
                let error = io::Error::last_os_error();
                return if error.kind() == io::ErrorKind::WouldBlock { Ok(()) } else { Err(error) };
            }
            // SAFETY: the notice is of our queue, the only one of the channel; destroying the queue waits for this.
            unsafe { ibv_ack_cq_events(self.raw(), 1) };
        }
    }

    /// Takes completions out of the queue; none is left in it if fewer than [`POLL`] come.
    pub(crate) fn poll(&self, completions: &mut Vec<Completion>) -> Result<usize, RdmaError> {
        let mut taken = [const { MaybeUninit::<ibv_wc>::uninit() }; POLL];
        // SAFETY: the queue lives, and there is place for as many entries as are asked for.
        let count = unsafe { ibv_poll_cq(self.raw(), POLL as i32, taken.as_mut_ptr().cast()) };
        let count = usize::try_from(count).map_err(|_| RdmaError::last("ibv_poll_cq"))?;
        completions.extend(taken.iter().take(count).map(|entry| {
            let entry = entry.as_ptr();
            // SAFETY: the library filled the first `count` entries; of one that did not end well only number,
            // status, vendor's code and queue pair, so no others are read.
            unsafe {
                Completion {
                    id: (*entry).wr_id,
                    status: (*entry).status,
                    vendor: (*entry).vendor_err,
                }
            }
        }));
        Ok(count)
    }
}

impl Drop for Completions {
    fn drop(&mut self) {
        // SAFETY: every queue pair that completes into the queue holds an `Arc` of it, so none is left; all notices
        // were acknowledged where they were taken.
        if unsafe { ibv_destroy_cq(self.raw()) } != 0 {
            tracing::warn!(device = self.context.name(), "ibv_destroy_cq failed");
        }
    }
}
