//! Counters of a session: bytes by kind and CPU time by stage.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustix::time::{ClockId, clock_gettime};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Live counters of one session; every field only rises.
        #[derive(Debug, Default)]
        pub struct Counters { $($(#[$doc])* pub $name: AtomicU64),* }

        /// A reading of [`Counters`].
        #[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
        pub struct Totals { $($(#[$doc])* pub $name: u64),* }

        impl Counters {
            /// Reads all counters.
            pub fn totals(&self) -> Totals {
                Totals { $($name: self.$name.load(Relaxed)),* }
            }
        }

        impl Totals {
            /// Names and values, in a fixed order.
            pub fn fields(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name)),*]
            }
        }
    };
}

impl Totals {
    /// Pages as QEMU sent them, zero pages included, bytes.
    pub const fn logical_bytes(&self) -> u64 {
        self.zero_bytes + self.duplicate_bytes + self.raw_bytes
    }

    /// Bytes by kind: what is counted in bytes, under its name without the unit.
    pub fn bytes(&self) -> Vec<(&'static str, u64)> {
        let mut bytes = vec![("logical", self.logical_bytes())];
        bytes.extend(self.counted_in("_bytes"));
        bytes
    }

    /// Nanoseconds of CPU by stage: what is counted in nanoseconds, under its name without the unit.
    pub fn stages(&self) -> Vec<(&'static str, u64)> {
        self.counted_in("_ns").collect()
    }

    fn counted_in(&self, unit: &str) -> impl Iterator<Item = (&'static str, u64)> {
        let fields = self.fields().into_iter();
        fields.filter_map(move |(name, value)| Some((name.strip_suffix(unit)?, value)))
    }
}

counters! {
    /// Page records of zeros, bytes of memory they stand for.
    zero_bytes,
    /// Sent as references, bytes.
    duplicate_bytes,
    /// Sent as content, bytes before compression.
    raw_bytes,
    /// Everything written to the session's connection, bytes.
    wire_bytes,
    /// Contents sent again because the target could not resolve a reference, bytes.
    supplied_bytes,
    /// Bytes placed from this host's own guest memories.
    local_bytes,
    /// Bytes fetched from rack neighbours.
    fetched_bytes,
    /// Contents that came from a holder and did not match their digest, pages.
    verify_failures,
    /// Batches of pages.
    batches,
    /// Reading QEMU's stream (source) or the source's frames with their checksums (target), nanoseconds of CPU.
    read_ns,
    /// Taking the stream apart, nanoseconds of CPU.
    parse_ns,
    /// Hashing pages, nanoseconds of CPU.
    hash_ns,
    /// Claims at the own shard and requests to others, nanoseconds of CPU.
    claim_ns,
    /// Compressing or decompressing, nanoseconds of CPU.
    zstd_ns,
    /// Checksums of batches and writing them to the network, nanoseconds of CPU.
    send_ns,
    /// Writing guest memory, nanoseconds of CPU.
    place_ns,
    /// Noting contents that were placed, nanoseconds of CPU.
    note_ns,
    /// Contents from this host's guest memories: finding, verifying, placing, nanoseconds of CPU.
    local_ns,
}

/// CPU time of a thread at some moment, nanoseconds. What other work takes from the machine does not show in it.
#[derive(Debug, Clone, Copy)]
pub struct CpuMoment(u64);

impl CpuMoment {
    /// The running thread's.
    pub fn now() -> Self {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Self(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
    }
}

/// Adds the CPU time since `start` to a counter; no await may lie between, which may change the thread.
pub fn lap(counter: &AtomicU64, start: CpuMoment) {
    counter.fetch_add(CpuMoment::now().0.saturating_sub(start.0), Relaxed);
}

/// Does `work` and adds the CPU time of it to a counter, waiting left out. As cancel safe as the work.
pub async fn timed<T>(counter: &AtomicU64, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|cx| {
        let start = CpuMoment::now();
        let result = work.as_mut().poll(cx);
        lap(counter, start);
        result
    })
    .await
}

/// Adds to a counter.
pub fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Relaxed);
}
