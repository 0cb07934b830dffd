//! Devices, and one that is open.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull, addr_of};

use rdma_sys::{
    ___ibv_query_port, ibv_ack_async_event, ibv_async_event, ibv_close_device, ibv_context,
    ibv_device, ibv_device_attr, ibv_free_device_list, ibv_get_async_event, ibv_get_device_list,
    ibv_get_device_name, ibv_open_device, ibv_port_attr, ibv_query_device,
};

use crate::error::RdmaError;

/// The devices that the library finds.
struct List {
    raw: NonNull<*mut ibv_device>,
    count: usize,
}

impl List {
    fn new() -> Result<Self, RdmaError> {
        let mut count = 0;
        // SAFETY: `count` is a place for a C int.
        let raw = unsafe { ibv_get_device_list(&raw mut count) };
        let raw = NonNull::new(raw).ok_or_else(|| RdmaError::last("ibv_get_device_list"))?;
        Ok(Self { raw, count: usize::try_from(count).unwrap_or(0) })
    }

    fn devices(&self) -> impl Iterator<Item = (String, *mut ibv_device)> {
        (0..self.count).map(move |at| {
            // SAFETY: the library wrote `count` devices, which live as long as the list.
            let device = unsafe { *self.raw.as_ptr().add(at) };
            // SAFETY: the device is one of the list's; its name is a C string in it.
            let name = unsafe { CStr::from_ptr(ibv_get_device_name(device)) };
            (name.to_string_lossy().into_owned(), device)
        })
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: the list is the library's and was not freed; devices that were opened stay.
        unsafe { ibv_free_device_list(self.raw.as_ptr()) };
    }
}

/// Names of this machine's devices.
pub(crate) fn device_names() -> Result<Vec<String>, RdmaError> {
    Ok(List::new()?.devices().map(|(name, _)| name).collect())
}

/// An open device.
#[derive(Debug)]
pub(crate) struct Context {
    raw: NonNull<ibv_context>,
    name: String,
}

// SAFETY: the library lets every call be made from any thread, several at a time (libibverbs, "Thread safety"); the
// struct behind the pointer is written by the library alone.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// Opens a device; none if there is none of that name.
    pub(crate) fn open(name: &str) -> Result<Option<Self>, RdmaError> {
        let list = List::new()?;
        let Some((_, device)) = list.devices().find(|(other, _)| other == name) else {
            return Ok(None);
        };
        // SAFETY: the device is one of a list that still lives.
        let raw = unsafe { ibv_open_device(device) };
        let raw = NonNull::new(raw).ok_or_else(|| RdmaError::last("ibv_open_device"))?;
        Ok(Some(Self { raw, name: name.to_owned() }))
    }

    /// The device's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Name of its node in `/dev/infiniband`.
    pub(crate) fn node(&self) -> String {
        // SAFETY: an open context names its device, which lives as long; the name is a C string in it.
        let name = unsafe { CStr::from_ptr((*(*self.raw()).device).dev_name.as_ptr()) };
        name.to_string_lossy().into_owned()
    }

    pub(super) fn raw(&self) -> *mut ibv_context {
        self.raw.as_ptr()
    }

    /// What the device can do.
    pub(crate) fn attributes(&self) -> Result<ibv_device_attr, RdmaError> {
        let mut attributes = MaybeUninit::<ibv_device_attr>::zeroed();
        // SAFETY: the context is open, and the struct is one that the library fills.
        let code = unsafe { ibv_query_device(self.raw(), attributes.as_mut_ptr()) };
        if code != 0 {
            return Err(RdmaError::number("ibv_query_device", code));
        }
        // SAFETY: it holds numbers only, so all zeros are a value, and the call filled it.
        Ok(unsafe { attributes.assume_init() })
    }

    /// What a port is.
    pub(crate) fn port(&self, number: u8) -> Result<ibv_port_attr, RdmaError> {
        let mut attributes = MaybeUninit::<ibv_port_attr>::zeroed();
        // SAFETY: the context is open, and the struct is one that the library fills.
        let code = unsafe { ___ibv_query_port(self.raw(), number, attributes.as_mut_ptr()) };
        if code != 0 {
            return Err(RdmaError::number("ibv_query_port", code));
        }
        // SAFETY: it holds numbers only, so all zeros are a value, and the call filled it.
        Ok(unsafe { attributes.assume_init() })
    }

    /// Becomes readable when [`next_event`](Self::next_event) has one.
    pub(crate) fn events_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as the context.
        unsafe { BorrowedFd::borrow_raw((*self.raw()).async_fd) }
    }

    /// The next event of the device, by its number; none if the descriptor, which must not block, has none now.
    ///
    /// It is acknowledged at once: destroying a queue pair waits for that.
    pub(crate) fn next_event(&self) -> io::Result<Option<u32>> {
        let mut event = MaybeUninit::<ibv_async_event>::zeroed();
        // SAFETY: the context is open, and the struct is one that the library fills.
        if unsafe { ibv_get_async_event(self.raw(), event.as_mut_ptr()) } != 0 {
            let error = io::Error::last_os_error();
            let none = error.kind() == io::ErrorKind::WouldBlock;
            return if none { Ok(None) } else { Err(error) };
        }
        // SAFETY: the call filled the field. It is read as a number, as the binding's type is a Rust enum, and a
        // kernel newer than it may have numbers that it has not.
        let number = unsafe { addr_of!((*event.as_ptr()).event_type).cast::<u32>().read() };
        // SAFETY: the event is what the library filled, and is acknowledged once.
        unsafe { ibv_ack_async_event(event.as_mut_ptr()) };
        Ok(Some(number))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: nothing that lives in the context is left: all of it holds an `Arc` of it.
        let code = unsafe { ibv_close_device(self.raw()) };
        if code != 0 {
            tracing::warn!(device = self.name, "ibv_close_device failed");
        }
    }
}

/// A null pointer, where the library takes none.
pub(super) fn none<T>() -> *mut T {
    ptr::null_mut()
}
