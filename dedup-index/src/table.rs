//! The bounded table under index and content map: digest -> small value, visited in batches.
//!
//! PLACEHOLDER-WHY

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};

use crate::Digest;

/// Parts with a lock each. More of them let more threads in, fewer let a batch overlap more cache misses.
const STRIPES: usize = 16;
/// Keys sorted by stripe at a time, on the stack.
const BLOCK: usize = 256;
/// Slots after the last home, so that no run of entries has to wrap around.
const SLACK: usize = 64;
/// Slots a key may lie from its home. Random keys stay below; crafted ones are refused instead of slow.
const REACH: usize = 1024;
/// Homes of a stripe's first allocation.
const HOMES_MIN: usize = 256;
/// A stripe holds at most `LOAD_NUM / LOAD_DEN` of its homes.
const LOAD_NUM: usize = 4;
const LOAD_DEN: usize = 5;

/// The key no entry can have, in the slots that have no entry. It is the greatest, so it ends every search.
const VACANT: u128 = u128::MAX;

/// Bytes of table that each entry takes in a table filled to its ceiling, rounded up: its slot, its share
/// of vacant slots, and its share of the room kept free for growth.
pub(crate) const fn entry_bytes<V>() -> usize {
    let slots = size_of::<Slot<V>>() * LOAD_DEN * (STRIPES + 1);
    slots.div_ceil(LOAD_NUM * STRIPES)
}

/// A concurrent map from digests to `V` that never holds more bytes than its ceiling.
pub(crate) struct Table<V> {
    stripes: Box<[Mutex<Stripe<V>>]>,
    room: Room,
}

/// What the stripes share: how far each may grow. One stripe changes size at a time, so at most one
/// allocation exists besides the `STRIPES` counted ones; the ceiling is divided by one more than there are.
struct Room {
    homes_max: usize,
    resizing: Mutex<()>,
    bytes: AtomicUsize,
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

impl<V: Copy + Default> Table<V> {
    /// An empty table that will never hold more than `ceiling_bytes`, with what resizing needs.
    pub(crate) fn with_ceiling(ceiling_bytes: usize) -> Self {
        let fixed = STRIPES * size_of::<Mutex<Stripe<V>>>();
        let slots = ceiling_bytes.saturating_sub(fixed) / (STRIPES + 1) / size_of::<Slot<V>>();
        let homes_max = slots.saturating_sub(SLACK);
        let stripes = (0..STRIPES).map(|_| Mutex::new(Stripe::empty())).collect();
        let bytes = AtomicUsize::new(fixed);
        Self { stripes, room: Room { homes_max, resizing: Mutex::new(()), bytes } }
    }

    /// Calls `each(index, key, stripe)` for every item, with the stripe of its key locked.
    ///
    /// Items are taken stripe by stripe, so that one lock and one round of cache misses serve many of them;
    /// items of equal keys keep their order.
    pub(crate) fn visit<T>(
        &self,
        items: &[T],
        key_of: impl Fn(&T) -> Digest,
        mut each: impl FnMut(usize, u128, &mut StripeGuard<'_, V>),
    ) {
        for (number, block) in items.chunks(BLOCK).enumerate() {
            let mut keys = [0; BLOCK];
            for (key, item) in keys.iter_mut().zip(block) {
                *key = key_of(item).to_u128();
            }
            let keys = &keys[..block.len()];
            let (order, ends) = by_stripe(keys);
            let mut start = 0;
            for (stripe, &end) in self.stripes.iter().zip(&ends) {
                let group = &order[start..usize::from(end)];
                start = usize::from(end);
                if group.is_empty() {
                    continue;
                }
                let mut guard = StripeGuard { stripe: lock(stripe), room: &self.room };
                guard.stripe.warm(group.iter().map(|&at| keys[usize::from(at)]));
                for &at in group {
                    let at = usize::from(at);
                    each(number * BLOCK + at, keys[at], &mut guard);
                }
            }
        }
    }

    /// Calls `each` with the stripe of one key locked.
    pub(crate) fn visit_one<R>(
        &self,
        digest: Digest,
        each: impl FnOnce(u128, &mut StripeGuard<'_, V>) -> R,
    ) -> R {
        let key = digest.to_u128();
        each(
            key,
            &mut StripeGuard { stripe: lock(&self.stripes[stripe_of(key)]), room: &self.room },
        )
    }

    /// Drops every entry whose value `keep` refuses; says how many. One stripe is locked at a time.
    pub(crate) fn retain(&self, mut keep: impl FnMut(&V) -> bool) -> usize {
        let mut dropped = 0;
        for stripe in &self.stripes {
            let mut stripe = lock(stripe);
            dropped += stripe.retain(&mut keep);
            stripe.shrink(&self.room);
        }
        dropped
    }

    /// Entries present.
    pub(crate) fn len(&self) -> usize {
        self.stripes.iter().map(|stripe| lock(stripe).len).sum()
    }

    /// Bytes allocated at this moment.
    pub(crate) fn bytes(&self) -> usize {
        self.room.bytes.load(Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no code panics while it holds a stripe")
}

fn stripe_of(key: u128) -> usize {
    key as usize % STRIPES
}

/// Stable counting sort: indices into `keys` ordered by stripe, and where each stripe's end.
fn by_stripe(keys: &[u128]) -> ([u16; BLOCK], [u16; STRIPES]) {
    let mut ends = [0u16; STRIPES];
    for &key in keys {
        ends[stripe_of(key)] += 1;
    }
    let mut total = 0;
    let mut next = [0u16; STRIPES];
    for (next, end) in next.iter_mut().zip(&mut ends) {
        *next = total;
        total += *end;
        *end = total;
    }
    let mut order = [0; BLOCK];
    for (at, &key) in keys.iter().enumerate() {
        let next = &mut next[stripe_of(key)];
        order[usize::from(*next)] = at as u16;
        *next += 1;
    }
    (order, ends)
}

#[derive(Clone, Copy)]
struct Slot<V> {
    key: [u8; 16],
    value: V,
}

impl<V: Copy + Default> Slot<V> {
    fn vacant() -> Self {
        Self { key: VACANT.to_be_bytes(), value: V::default() }
    }

    fn key(&self) -> u128 {
        u128::from_be_bytes(self.key)
    }

    fn is_vacant(&self) -> bool {
        self.key() == VACANT
    }
}

/// One lock's part of the table. Its entries lie in the order of their keys, each at or after its home, the
/// slot its key's leading bits name, and no vacant slot lies between an entry and its home.
///
/// So a search ends at the first greater key, growth and purge are one pass in order, and a removal moves
/// its followers down instead of leaving a mark that fills the table.
struct Stripe<V> {
    slots: Vec<Slot<V>>,
    homes: usize,
    len: usize,
}

/// A locked stripe.
pub(crate) struct StripeGuard<'a, V> {
    stripe: MutexGuard<'a, Stripe<V>>,
    room: &'a Room,
}

impl<V: Copy + Default> StripeGuard<'_, V> {
    /// The value of `key`.
    pub(crate) fn get(&mut self, key: u128) -> Option<&mut V> {
        let at = self.stripe.seek(key).ok()?;
        Some(&mut self.stripe.slots[at].value)
    }

    /// Enters `value` under `key` unless the key is present or there is no room.
    pub(crate) fn offer(&mut self, key: u128, value: V) -> Offer<'_, V> {
        let stripe = &mut *self.stripe;
        let mut at = match stripe.seek(key) {
            Ok(at) => return Offer::Present(&mut stripe.slots[at].value),
            Err(at) => at,
        };
        if stripe.is_full() {
            if !stripe.grow(self.room) {
                return Offer::Refused;
            }
            at = stripe.seek(key).unwrap_or_else(|at| at);
        }
        if stripe.insert_at(at, key, value) { Offer::Entered } else { Offer::Refused }
    }

    /// Removes `key` if `wanted` agrees to its value.
    pub(crate) fn remove_if(&mut self, key: u128, wanted: impl FnOnce(&V) -> bool) -> bool {
        let found = self.stripe.seek(key).ok();
        let Some(at) = found.filter(|&at| wanted(&self.stripe.slots[at].value)) else {
            return false;
        };
        self.stripe.remove(at);
        true
    }
}

impl<V: Copy + Default> Stripe<V> {
    const fn empty() -> Self {
        Self { slots: Vec::new(), homes: 0, len: 0 }
    }

    fn home(&self, key: u128) -> usize {
        home(key, self.homes)
    }

    fn is_full(&self) -> bool {
        self.len >= self.homes * LOAD_NUM / LOAD_DEN
    }

    /// Loads the cache lines that `keys` will need, all at once rather than one behind the other.
    fn warm(&self, keys: impl Iterator<Item = u128>) {
        if self.homes > 0 {
            black_box(keys.fold(0, |seen, key| seen ^ self.slots[self.home(key)].key[0]));
        }
    }

    /// Where `key` is, or else where it belongs.
    fn seek(&self, key: u128) -> Result<usize, usize> {
        let home = self.home(key);
        let ahead = self.slots[home..].iter().position(|slot| slot.key() >= key);
        let at = home + ahead.unwrap_or(self.slots.len() - home);
        match self.slots.get(at) {
            Some(slot) if slot.key() == key && key != VACANT => Ok(at),
            _ => Err(at),
        }
    }

    /// Puts in an absent key where it belongs; says whether a vacant slot was within reach of its home.
    fn insert_at(&mut self, at: usize, key: u128, value: V) -> bool {
        let reach = (self.home(key) + REACH).min(self.slots.len());
        let followers = match self.slots.get(at..reach) {
            Some(run) if key != VACANT => run.iter().position(Slot::is_vacant),
            _ => None,
        };
        let Some(followers) = followers else { return false };
        self.slots.copy_within(at..at + followers, at + 1);
        self.slots[at] = Slot { key: key.to_be_bytes(), value };
        self.len += 1;
        true
    }

    /// Takes out the entry at `at` and moves down the followers that are not at home.
    fn remove(&mut self, at: usize) {
        let followers = self.slots[at + 1..]
            .iter()
            .zip(at + 1..)
            .take_while(|(slot, at)| !slot.is_vacant() && self.home(slot.key()) < *at)
            .count();
        self.slots.copy_within(at + 1..=at + followers, at);
        self.slots[at + followers] = Slot::vacant();
        self.len -= 1;
    }

    /// Drops what `keep` refuses. Entries only ever move down, so one pass in place does it.
    fn retain(&mut self, mut keep: impl FnMut(&V) -> bool) -> usize {
        let (before, mut next) = (self.len, 0);
        self.len = 0;
        for at in 0..self.slots.len() {
            let slot = std::mem::replace(&mut self.slots[at], Slot::vacant());
            if !slot.is_vacant() && keep(&slot.value) {
                next = next.max(self.home(slot.key()));
                self.slots[next] = slot;
                next += 1;
                self.len += 1;
            }
        }
        before - self.len
    }

    /// Doubles the stripe, or takes what is left below the ceiling; says whether it has room now.
    fn grow(&mut self, room: &Room) -> bool {
        let homes = (self.homes * 2).max(HOMES_MIN).min(room.homes_max);
        if homes > self.homes {
            self.resize(homes, room);
        }
        !self.is_full()
    }

    /// Gives memory back when most of it is vacant.
    fn shrink(&mut self, room: &Room) {
        if self.len * 8 < self.homes {
            let homes = if self.len == 0 { 0 } else { (self.len * 2).max(HOMES_MIN) };
            if homes < self.homes {
                self.resize(homes, room);
            }
        }
    }

    /// Moves all entries, in their order, to `homes` homes. One that would fall off the end is lost.
    fn resize(&mut self, homes: usize, room: &Room) {
        let _one_at_a_time = lock(&room.resizing);
        let count = if homes == 0 { 0 } else { homes + SLACK };
        let mut slots = vec![Slot::vacant(); count];
        let (mut next, mut len) = (0, 0);
        for slot in self.slots.iter().filter(|slot| !slot.is_vacant()) {
            next = home(slot.key(), homes).max(next);
            if let Some(free) = slots.get_mut(next) {
                *free = *slot;
                next += 1;
                len += 1;
            }
        }
        room.bytes.fetch_add(count * size_of::<Slot<V>>(), Relaxed);
        room.bytes.fetch_sub(self.slots.len() * size_of::<Slot<V>>(), Relaxed);
        *self = Self { slots, homes, len };
    }
}

/// The slot where the search for `key` begins: its leading bits, scaled to any number of homes.
fn home(key: u128, homes: usize) -> usize {
    let leading = key >> 64;
    ((leading * homes as u128) >> 64) as usize
}
