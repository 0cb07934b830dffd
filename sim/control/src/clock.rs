//! Virtual time: what happens when. Equal moments happen in the order they were asked for.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// A microsecond of virtual time, in nanoseconds.
pub const MICROSECOND: u64 = 1_000;
/// A millisecond.
pub const MS: u64 = 1_000_000;
/// A second.
pub const SECOND: u64 = 1_000_000_000;

#[derive(Debug)]
struct Entry<T> {
    at: u64,
    number: u64,
    what: T,
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Entry<T> {}

/// The events that are to come.
#[derive(Debug)]
pub struct Clock<T> {
    /// The present.
    pub now: u64,
    count: u64,
    heap: BinaryHeap<Reverse<Entry<T>>>,
}

impl<T> Clock<T> {
    /// A clock that starts at this moment.
    pub fn new(now: u64) -> Self {
        Self { now, count: 0, heap: BinaryHeap::new() }
    }

    /// Lets something happen after a while.
    pub fn after(&mut self, pause: u64, what: T) {
        self.count += 1;
        self.heap.push(Reverse(Entry { at: self.now + pause, number: self.count, what }));
    }

    /// What happens next, unless it is later than `limit`; time passes until then.
    pub fn next(&mut self, limit: u64) -> Option<T> {
        if self.heap.peek().is_none_or(|Reverse(entry)| entry.at > limit) {
            self.now = self.now.max(limit);
            return None;
        }
        let Reverse(entry) = self.heap.pop()?;
        self.now = entry.at;
        Some(entry.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_moments_keep_their_order() {
        let mut clock = Clock::new(5);
        clock.after(10, 'b');
        clock.after(0, 'a');
        clock.after(10, 'c');
        let all: Vec<char> = std::iter::from_fn(|| clock.next(100)).collect();
        assert_eq!(all, ['a', 'b', 'c']);
        assert_eq!(clock.now, 100);
    }
}
