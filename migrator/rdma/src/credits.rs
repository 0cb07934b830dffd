//! Room in a queue of the device: what is posted never exceeds it.

/// Places of a queue, taken and given back. A send queue counts its work requests so, a completion queue the send
/// queues that complete into it.
#[derive(Debug)]
pub(crate) struct Credits {
    free: u32,
    total: u32,
}

impl Credits {
    /// An empty queue.
    pub(crate) fn of(total: u32) -> Self {
        Self { free: total, total }
    }

    /// Takes all of them or none.
    pub(crate) fn take(&mut self, count: u32) -> bool {
        let rest = self.free.checked_sub(count);
        self.free = rest.unwrap_or(self.free);
        rest.is_some()
    }

    /// Gives back what was taken.
    pub(crate) fn give(&mut self, count: u32) {
        debug_assert!(self.taken() >= count, "more is given back than was taken");
        self.free = self.free.saturating_add(count).min(self.total);
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> u32 {
        self.total - self.free
    }

    /// How many there are.
    pub(crate) fn total(&self) -> u32 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn never_more_is_taken_than_there_is(total in 0..64_u32, steps in prop::collection::vec(0..32_u32, 0..100)) {
            let mut credits = Credits::of(total);
            let mut held = Vec::new();
            for count in steps {
                let fits = credits.taken() + count <= total;
                prop_assert_eq!(credits.take(count), fits);
                if fits {
                    held.push(count);
                } else if let Some(oldest) = held.pop() {
                    credits.give(oldest);
                }
                prop_assert_eq!(credits.taken(), held.iter().sum::<u32>());
            }
        }
    }
}
