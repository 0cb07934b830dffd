//! Every limit of the page path in one place, with the reason for its size.

use std::time::Duration;

/// One read of QEMU's stream at most: a batch of 255 pages, which is large enough that nothing that is done once a
/// batch shows in a profile, and small enough for the L2 cache.
pub const READ_BYTES: usize = (1 << 20) - (8 << 10);

/// A read of at least this much means that QEMU is sending pages, and more is about to come.
pub const STREAMING: usize = 16 << 10;

/// How long a batch may then wait to become a full one.
pub const GATHER: Duration = Duration::from_millis(4);

/// Buffers of a source session: what may be unresolved at the target. 32 MiB, so that 16 sessions of a host
/// hold at most half a GiB.
pub const SOURCE_BUFFERS: usize = 32;

/// Batches between parser and sender: enough to hide a claim's round trip behind the parsing of others.
pub const CLAIMED_BATCHES: usize = 4;

/// Frames between a target's socket and its placement.
pub const RECEIVED_FRAMES: usize = 4;

/// Messages between the tasks of a session.
pub const SESSION_EVENTS: usize = 64;

/// A claim that is not answered by then counts as granted: its page is sent, which costs bytes only.
pub const CLAIM_TIMEOUT: Duration = Duration::from_millis(400);

/// A fetch that is not answered by then counts as lost: the source is asked.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(2);

/// Content that a holder still expects is waited for this long before the source is asked.
pub const PENDING_TIMEOUT: Duration = Duration::from_secs(3);

/// Contents kept of what lies in no mapped memory: 32 MiB, several VMs' ROMs many times over.
pub const POOL_PAGES: u32 = 8192;

/// Pause before expected content is looked for again.
pub const PENDING_RETRY: Duration = Duration::from_millis(4);

/// Requests of one neighbour connection that wait for their answer.
pub const NEIGHBOUR_REQUESTS: usize = 64;

/// Pause after a failed connection to a neighbour, during which it counts as dead.
pub const NEIGHBOUR_BACKOFF: Duration = Duration::from_millis(300);
