//! What can go wrong, and what to do about it.

use std::fmt;
use std::io;

use crate::peer::PeerError;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum RdmaError {
    /// The machine has no device, or none of the wanted name or address.
    #[error("no RDMA device{wanted}: {why}")]
    NoDevice {
        /// What was looked for, beginning with a blank; empty if any would do.
        wanted: String,
        /// What was found instead, and what to do.
        why: String,
    },
    /// The process may not lock as much memory as it wants to register.
    #[error(
        "{needed} bytes cannot be registered: the process may lock {limit} (set LimitMEMLOCK=infinity, or a smaller arena)"
    )]
    Memlock {
        /// Bytes of the registration that failed.
        needed: u64,
        /// The limit, for all registrations together.
        limit: u64,
    },
    /// The device, or its link, cannot do what is needed.
    #[error("{0}")]
    Unsupported(String),
    /// A call of the verbs library failed.
    #[error("{call} failed")]
    Call {
        /// Its name.
        call: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A READ ended otherwise than well.
    #[error("a READ ended with {status} (vendor code {vendor:#x})")]
    Completion {
        /// How.
        status: Status,
        /// What the device says of it.
        vendor: u32,
    },
    /// The device was removed or has failed.
    #[error("the RDMA device {0} is gone")]
    DeviceGone(String),
    /// The peer's values cannot be used.
    #[error("the peer's offer is refused: {0}")]
    Peer(#[from] PeerError),
    /// A queue of the device has no room now.
    #[error("the {queue} has no room for {wanted} more: {taken} of {total} are taken")]
    Full {
        /// Which queue.
        queue: &'static str,
        /// How many places are needed.
        wanted: u32,
        /// How many are taken.
        taken: u32,
        /// How many there are.
        total: u32,
    },
    /// A batch is empty, or longer than [`BATCH_MAX`](crate::limits::BATCH_MAX).
    #[error("a batch of {0} pages: it has 1 to {max}", max = crate::limits::BATCH_MAX)]
    BatchLength(usize),
    /// A slot is of another protection domain than the queue pair.
    #[error("a landing slot is of another domain than the queue pair")]
    OtherDomain,
    /// The queue pair has failed or was closed: connect anew.
    #[error("the queue pair is closed")]
    Closed,
}

impl RdmaError {
    /// The error that `errno` names, of this call.
    pub(crate) fn last(call: &'static str) -> Self {
        Self::Call { call, source: io::Error::last_os_error() }
    }

    /// The error of a call that returned this number.
    pub(crate) fn number(call: &'static str, errno: i32) -> Self {
        Self::Call { call, source: io::Error::from_raw_os_error(errno) }
    }
}

/// How a work request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The bytes are there.
    Success,
    /// It was not tried, or not finished: the queue pair had failed or was closed.
    Flushed,
    /// The peer's device does not let us read there.
    RemoteAccess,
    /// The peer does not answer.
    RetriesExceeded,
    /// Our own registration does not cover the landing slot.
    LocalProtection,
    /// The device gave no completion, and the queue pair was destroyed.
    Abandoned,
    /// Any other, by the number that verbs have for it.
    Other(u32),
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Success => f.write_str("success"),
            Self::Flushed => f.write_str("a flush: the queue pair had failed or was closed"),
            Self::RemoteAccess => f.write_str("a remote access error: wrong key or address"),
            Self::RetriesExceeded => f.write_str("no answer from the peer"),
            Self::LocalProtection => f.write_str("a local protection error"),
            Self::Abandoned => f.write_str("no completion: the queue pair was destroyed"),
            Self::Other(number) => write!(f, "work completion status {number}"),
        }
    }
}
