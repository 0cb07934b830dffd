//! How many bytes of one session may be under way on the core link.
//!
//! QEMU judges whether a VM can be stopped by the rate at which it gets rid of bytes; a long queue behind it
//! makes that a lie (a bottomless one turned a 300 ms limit into 5.4 s). So the queue is kept at about
//! [`DELAY_GOAL_US`] of what the link really carries for this session: the window grows while batches arrive sooner
//! than that and shrinks when they arrive later.

/// Smallest window: two small batches, so that the pipeline never runs dry.
pub const MIN_BYTES: usize = 128 << 10;

/// Largest window: 25 Gbit/s x 10 ms, and the most a session may hold on the sender's side.
pub const MAX_BYTES: usize = 32 << 20;

/// Wanted time from handing a batch to the socket to its receipt, in microseconds.
pub const DELAY_GOAL_US: u64 = 40_000;

/// Adaptive limit of unreceived bytes.
#[derive(Debug)]
pub struct Window {
    limit: usize,
    in_flight: usize,
    rate: f64,
}

impl Default for Window {
    fn default() -> Self {
        Self { limit: 1 << 20, in_flight: 0, rate: 0.0 }
    }
}

impl Window {
    /// May another batch be taken in?
    pub fn is_open(&self) -> bool {
        self.in_flight < self.limit
    }

    /// Bytes that were sent and not received yet.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The present limit, bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// What the link carried for this session lately, bytes per second; 0 before the first receipt.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// `bytes` were handed to the connection.
    pub fn sent(&mut self, bytes: usize) {
        self.in_flight += bytes;
    }

    /// A batch of `bytes` was received `delay_us` after it was handed over.
    pub fn received(&mut self, bytes: usize, delay_us: u64) {
        let queued = self.in_flight.max(bytes);
        self.in_flight = self.in_flight.saturating_sub(bytes);
        // Everything that was in front of the batch, and the batch, took the delay.
        let sample = queued as f64 / (delay_us.max(50) as f64 / 1e6);
        self.rate = if self.rate == 0.0 { sample } else { self.rate * 0.9 + sample * 0.1 };
        if delay_us > 2 * DELAY_GOAL_US {
            self.limit = (self.limit - self.limit / 8).max(MIN_BYTES);
        } else if delay_us < DELAY_GOAL_US && queued * 2 > self.limit {
            self.limit = (self.limit + self.limit / 4).min(MAX_BYTES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A link of `rate` bytes/s with nothing else on it, driven at full window.
    fn run(rate: f64, batch: usize, batches: usize) -> Window {
        let mut w = Window::default();
        for _ in 0..batches {
            while w.is_open() {
                w.sent(batch);
            }
            let delay_us = (w.in_flight() as f64 / rate * 1e6) as u64;
            w.received(batch, delay_us);
        }
        w
    }

    #[test]
    fn a_slow_link_gets_a_short_queue() {
        let w = run(5e6, 64 << 10, 2000);
        let delay = w.limit() as f64 / 5e6;
        assert!(delay < 0.12, "{delay} s of queue");
    }

    #[test]
    fn a_fast_link_gets_a_window_that_fills_it() {
        let w = run(3e9, 1 << 20, 2000);
        assert!(w.limit() >= 16 << 20, "{}", w.limit());
    }

    #[test]
    fn a_window_never_leaves_its_bounds() {
        let mut w = Window::default();
        for n in 0..10_000u64 {
            w.sent(1 << 20);
            w.received(1 << 20, (n * 7919) % 500_000);
            assert!((MIN_BYTES..=MAX_BYTES).contains(&w.limit()));
        }
        assert_eq!(w.in_flight(), 0);
    }
}
