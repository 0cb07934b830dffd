//! Where content lies in this host's memory: guests that run here, arrivals, old copies.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::Digest;
use crate::table::{self, Offer, Table};

/// A page of some guest memory of this host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// The memory, as the agent numbers them.
    pub memory: u32,
    /// Index of the page in it.
    pub page: u32,
}

/// Counters since the map was built, and its size now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContentStats {
    /// Digests with a location.
    pub entries: usize,
    /// Bytes held.
    pub bytes: usize,
    /// Insertions refused because there was no room.
    pub refused: u64,
}

/// Digest -> one location that had this content when it was last looked at.
///
/// A hint, never a proof: guests write, so a reader of a location hashes the page first. Full, the map
/// refuses digests it does not know and goes on updating those it does: what it knows is as good as what comes.
pub struct ContentMap {
    locations: Table<Location>,
    refused: AtomicU64,
}

impl ContentMap {
    /// Bytes per entry of a full map, all told: bucket, vacant buckets, growth room. A map of `n * ENTRY_BYTES`
    /// bytes, `n` from 2,000 up, keeps at least `n` entries when offered more than it can keep. Parts of it fill
    /// before others, so it refuses a few before it is full.
    pub const ENTRY_BYTES: usize = table::entry_bytes::<Location>();

    /// An empty map that will never hold more than `ceiling_bytes`. Below 32 KiB it has no room for entries.
    pub fn with_ceiling(ceiling_bytes: usize) -> Self {
        Self { locations: Table::with_ceiling(ceiling_bytes), refused: AtomicU64::new(0) }
    }

    /// Notes that these pages of `memory` have these contents. The last location of a digest wins.
    pub fn insert_batch(&self, memory: u32, entries: &[(Digest, u32)]) {
        let mut refused = 0;
        self.locations.visit(
            entries,
            |(digest, _)| *digest,
            |at, key, stripe| {
                let location = Location { memory, page: entries[at].1 };
                match stripe.offer(key, location) {
                    Offer::Entered => {}
                    Offer::Present(old) => *old = location,
                    Offer::Refused => refused += 1,
                }
            },
        );
        self.refused.fetch_add(refused, Relaxed);
    }

    /// Appends where each of `digests` lies, in order.
    pub fn lookup_batch(&self, digests: &[Digest], out: &mut Vec<Option<Location>>) {
        let start = out.len();
        out.resize(start + digests.len(), None);
        let answers = &mut out[start..];
        self.locations.visit(
            digests,
            |digest| *digest,
            |at, key, stripe| {
                answers[at] = stripe.get(key).copied();
            },
        );
    }

    /// Drops `digest` if it is still said to lie at `location`; says whether it was.
    pub fn remove(&self, digest: &Digest, location: Location) -> bool {
        self.locations
            .visit_one(*digest, |stripe| stripe.remove_if(*digest, |known| *known == location))
    }

    /// Drops everything that lies in `memory`; says how much. Reads the whole map.
    pub fn remove_memory(&self, memory: u32) -> usize {
        self.locations.retain(|location| location.memory != memory)
    }

    /// Digests with a location.
    pub fn len(&self) -> usize {
        self.locations.len()
    }

    /// Whether no location is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes held: never more than the ceiling.
    pub fn bytes(&self) -> usize {
        self.locations.bytes()
    }

    /// Size and counters.
    pub fn stats(&self) -> ContentStats {
        ContentStats {
            entries: self.len(),
            bytes: self.bytes(),
            refused: self.refused.load(Relaxed),
        }
    }
}
