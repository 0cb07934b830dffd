//! Counters of a session: bytes by kind and time by stage.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

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

counters! {
    /// Page records QEMU emitted x 4096, bytes.
    logical_bytes,
    /// Of these, pages of zeros, bytes.
    zero_bytes,
    /// Of these, sent as references, bytes.
    duplicate_bytes,
    /// Of these, sent as content, bytes before compression.
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
    /// Time reading QEMU's stream, nanoseconds of a task, waiting excluded.
    read_ns,
    /// Time taking the stream apart, nanoseconds.
    parse_ns,
    /// Time hashing pages, nanoseconds.
    hash_ns,
    /// Time in claims at the own shard and encoding requests, nanoseconds.
    claim_ns,
    /// Time compressing or decompressing, nanoseconds.
    zstd_ns,
    /// Time writing to or checking from the network, nanoseconds, waiting included.
    send_ns,
    /// Time writing guest memory, nanoseconds.
    place_ns,
    /// Time reading contents from this host's guest memories, hashing included, nanoseconds.
    local_ns,
}

/// Adds the time since `start` to a counter.
pub fn lap(counter: &AtomicU64, start: Instant) {
    counter.fetch_add(start.elapsed().as_nanos() as u64, Relaxed);
}

/// Adds to a counter.
pub fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Relaxed);
}
