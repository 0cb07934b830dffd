//! The bounded table under index and content map: digest -> small value, visited in batches.
//!
//! Hashbrown tables behind a few mutexes rather than a `DashMap`, for the ceiling and not for speed. Measured on
//! one core (3 GHz, 4 to 8 million entries, batches of 256, half of them hits; best of many windows of 8,192
//! claims): dashmap 6 answers 13 to 17 million claims/s, this table with owners and ceiling 11 to 13. But a
//! `DashMap` doubles its shards when it likes and holds old and new meanwhile, so nothing can promise that it
//! stays below a number of bytes. Here every allocation passes [`Stripe::rebuild`].

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};

use hashbrown::HashTable;

use crate::Digest;

/// Stripes, with a lock each: more of them let more threads in, fewer share locks better among a batch. Their
/// number within these bounds makes full stripes, whose sizes are powers of two, fill the ceiling.
const STRIPES_MIN: usize = 16;
const STRIPES_MAX: usize = 2 * (STRIPES_MIN + 1);
/// Keys sorted by stripe at a time, on the stack.
const BLOCK: usize = 256;
/// Buckets of a stripe's first allocation.
const BUCKETS_MIN: usize = 64;
/// Bytes of a table with nothing in it, at most.
const FIXED_BYTES: usize = 4096;

/// Bytes that each entry of a full table takes, rounded up: its bucket and control byte at the greatest load
/// of 7/8, and its share of the stripe kept free for growth and of the rest that makes no whole stripe.
pub(crate) const fn entry_bytes<V>() -> usize {
    let bucket = size_of::<Slot<V>>() + 1;
    (bucket * 8 * (STRIPES_MIN + 1)).div_ceil(7 * (STRIPES_MIN - 1))
}

/// A concurrent map from digests to `V` that never holds more bytes than its ceiling.
pub(crate) struct Table<V> {
    stripes: Box<[Mutex<Stripe<V>>]>,
    room: Room,
}

/// What the stripes share.
struct Room {
    /// Buckets that one stripe may have. The ceiling has room for one stripe more than there are, and only
    /// the holder of `rebuilding` allocates, so an old and a new table fit side by side.
    buckets_max: usize,
    rebuilding: Mutex<()>,
    bytes: AtomicUsize,
    /// Unknown to peers, which could otherwise choose digests that all want the same bucket.
    seed: u64,
}

/// What became of an entry offered to a stripe.
pub(crate) enum Offer<'a, V> {
    /// The key is present, with this value; the offered one was dropped.
    Present(&'a mut V),
    /// The entry is in now.
    Entered,
    /// There is no room for it.
    Refused,
}

impl<V> Table<V> {
    /// An empty table that will never hold more than `ceiling_bytes`, with what growth needs meanwhile.
    /// Below [`FIXED_BYTES`] it has no room for any entry.
    pub(crate) fn with_ceiling(ceiling_bytes: usize) -> Self {
        const { assert!(STRIPES_MAX * size_of::<Mutex<Stripe<V>>>() <= FIXED_BYTES) };
        let free = ceiling_bytes.saturating_sub(FIXED_BYTES);
        let mut buckets_max = BUCKETS_MIN;
        while Stripe::<V>::bytes_of(2 * buckets_max) <= free / (STRIPES_MIN + 1) {
            buckets_max *= 2;
        }
        let mut stripes = (free / Stripe::<V>::bytes_of(buckets_max)).saturating_sub(1);
        if stripes < STRIPES_MIN {
            (stripes, buckets_max) = (1, 0);
        }
        let room = Room {
            buckets_max,
            rebuilding: Mutex::new(()),
            bytes: AtomicUsize::new(FIXED_BYTES.min(ceiling_bytes)),
            seed: RandomState::new().hash_one(0),
        };
        let empty = || Mutex::new(Stripe { table: HashTable::new(), buckets: 0 });
        Self { stripes: std::iter::repeat_with(empty).take(stripes).collect(), room }
    }

    /// Calls `each(index, key, stripe)` for every item, with the stripe of its key locked.
    ///
    /// Items are taken stripe by stripe, so that many share a lock and their cache misses overlap; items of
    /// equal keys keep their order.
    pub(crate) fn visit<T>(
        &self,
        items: &[T],
        key_of: impl Fn(&T) -> Digest,
        mut each: impl FnMut(usize, Digest, &mut StripeGuard<'_, V>),
    ) {
        for (number, block) in items.chunks(BLOCK).enumerate() {
            let mut keys = [Digest::default(); BLOCK];
            for (key, item) in keys.iter_mut().zip(block) {
                *key = key_of(item);
            }
            let (order, ends) = self.by_stripe(&keys[..block.len()]);
            let mut start = 0;
            for (stripe, &end) in self.stripes.iter().zip(&ends) {
                let group = &order[start..usize::from(end)];
                start = usize::from(end);
                if group.is_empty() {
                    continue;
                }
                let mut guard = StripeGuard { stripe: lock(stripe), room: &self.room };
                for &at in group {
                    let at = usize::from(at);
                    each(number * BLOCK + at, keys[at], &mut guard);
                }
            }
        }
    }

    /// Calls `each` with the stripe of `key` locked.
    pub(crate) fn visit_one<R>(
        &self,
        key: Digest,
        each: impl FnOnce(&mut StripeGuard<'_, V>) -> R,
    ) -> R {
        let stripe = lock(&self.stripes[self.stripe_of(key)]);
        each(&mut StripeGuard { stripe, room: &self.room })
    }

    /// Drops every entry whose value `keep` refuses; says how many. One stripe is locked at a time.
    pub(crate) fn retain(&self, keep: impl Fn(&V) -> bool) -> usize {
        self.stripes.iter().map(|stripe| lock(stripe).retain(&keep, &self.room)).sum()
    }

    /// Entries present.
    pub(crate) fn len(&self) -> usize {
        self.stripes.iter().map(|stripe| lock(stripe).table.len()).sum()
    }

    /// Bytes held at this moment.
    pub(crate) fn bytes(&self) -> usize {
        self.room.bytes.load(Relaxed)
    }

    /// The stripe of a key, by bits that placement within the stripe does not lean on.
    fn stripe_of(&self, key: Digest) -> usize {
        let bits = u128::from(key.to_u128() as u64);
        ((bits * self.stripes.len() as u128) >> 64) as usize
    }

    /// Stable counting sort: indices into `keys` ordered by stripe, and where each stripe's end.
    fn by_stripe(&self, keys: &[Digest]) -> ([u16; BLOCK], [u16; STRIPES_MAX]) {
        let mut ends = [0u16; STRIPES_MAX];
        for &key in keys {
            ends[self.stripe_of(key)] += 1;
        }
        let (mut next, mut total) = ([0u16; STRIPES_MAX], 0);
        for (next, end) in next.iter_mut().zip(&mut ends) {
            *next = total;
            total += *end;
            *end = total;
        }
        let mut order = [0; BLOCK];
        for (at, &key) in keys.iter().enumerate() {
            let next = &mut next[self.stripe_of(key)];
            order[usize::from(*next)] = at as u16;
            *next += 1;
        }
        (order, ends)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no code panics while it holds a stripe")
}

struct Slot<V> {
    key: Digest,
    value: V,
}

/// A locked stripe.
pub(crate) struct StripeGuard<'a, V> {
    stripe: MutexGuard<'a, Stripe<V>>,
    room: &'a Room,
}

impl<V> StripeGuard<'_, V> {
    /// The value of `key`.
    pub(crate) fn get(&mut self, key: Digest) -> Option<&mut V> {
        let slot = self.stripe.table.find_mut(key.mix(self.room.seed), |slot| slot.key == key);
        slot.map(|slot| &mut slot.value)
    }

    /// Enters `value` under `key` unless the key is present or there is no room.
    pub(crate) fn offer(&mut self, key: Digest, value: V) -> Offer<'_, V> {
        let hash = key.mix(self.room.seed);
        let stripe = &mut *self.stripe;
        if let Some(at) = stripe.table.find_bucket_index(hash, |slot| slot.key == key) {
            let slot = stripe.table.get_bucket_mut(at).expect("the bucket was just found");
            return Offer::Present(&mut slot.value);
        }
        if !stripe.make_room(self.room) {
            return Offer::Refused;
        }
        stripe.insert(hash, Slot { key, value });
        Offer::Entered
    }

    /// Removes `key` if `wanted` agrees to its value.
    pub(crate) fn remove_if(&mut self, key: Digest, wanted: impl Fn(&V) -> bool) -> bool {
        let hash = key.mix(self.room.seed);
        let wanted = |slot: &Slot<V>| slot.key == key && wanted(&slot.value);
        self.stripe.table.find_entry(hash, wanted).map(|entry| entry.remove()).is_ok()
    }
}

/// One lock's part of the table.
struct Stripe<V> {
    table: HashTable<Slot<V>>,
    /// What `table` was built with.
    buckets: usize,
}

impl<V> Stripe<V> {
    /// Bytes of a table of so many buckets, at most: hashbrown's layout, checked at every allocation.
    const fn bytes_of(buckets: usize) -> usize {
        const GROUP: usize = 16;
        if buckets == 0 {
            return 0;
        }
        (buckets * size_of::<Slot<V>>()).next_multiple_of(GROUP) + buckets + GROUP
    }

    /// Entries that so many buckets hold.
    const fn capacity_of(buckets: usize) -> usize {
        buckets / 8 * 7
    }

    /// Puts in an absent key, for which there is room.
    fn insert(&mut self, hash: u64, slot: Slot<V>) {
        debug_assert!(self.table.len() < self.table.capacity());
        self.table.insert_unique(hash, slot, |_| unreachable!("a table with room does not grow"));
    }

    /// Sees to it that one more entry fits without an allocation of the table's own; false if it cannot.
    fn make_room(&mut self, room: &Room) -> bool {
        let len = self.table.len();
        if len < self.table.capacity() {
            return true;
        }
        // Removed entries may have left marks that take room as entries do: clear them when they are many.
        let wanted = if len < Self::capacity_of(self.buckets) / 8 * 7 {
            self.buckets
        } else {
            (2 * self.buckets).max(BUCKETS_MIN)
        };
        if wanted > room.buckets_max {
            return false;
        }
        self.rebuild(wanted, room);
        true
    }

    fn retain(&mut self, keep: impl Fn(&V) -> bool, room: &Room) -> usize {
        let before = self.table.len();
        self.table.retain(|slot| keep(&slot.value));
        let len = self.table.len();
        let wanted = match len {
            0 => 0,
            _ => (2 * len).next_power_of_two().max(BUCKETS_MIN).min(self.buckets),
        };
        if len < before
            && (wanted < self.buckets || self.table.capacity() < Self::capacity_of(wanted))
        {
            self.rebuild(wanted, room);
        }
        before - len
    }

    /// Moves the entries to a table of `buckets`. The only place that allocates.
    fn rebuild(&mut self, buckets: usize, room: &Room) {
        let _one_at_a_time = lock(&room.rebuilding);
        let mut table = HashTable::with_capacity(Self::capacity_of(buckets));
        debug_assert!(
            table.allocation_size() <= Self::bytes_of(buckets),
            "hashbrown's layout changed"
        );
        let hash = |slot: &Slot<V>| slot.key.mix(room.seed);
        for slot in self.table.drain() {
            table.insert_unique(hash(&slot), slot, hash);
        }
        room.bytes.fetch_add(table.allocation_size(), Relaxed);
        room.bytes.fetch_sub(self.table.allocation_size(), Relaxed);
        *self = Self { table, buckets };
    }
}
