//! The working set of `busy`: rewritten all the time at a steady rate.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::content::{PAGE_BYTES, SplitMix};
use crate::region::Region;

const TICK: Duration = Duration::from_millis(10);

/// Starts rewriting `kib_per_second` of the region. Even pages get content that never was, odd ones
/// toggle between two contents.
pub fn start(region: Arc<Region>, seed: u64, kib_per_second: usize) {
    if region.pages() == 0 || kib_per_second == 0 {
        return;
    }
    thread::spawn(move || {
        rustix::process::setpriority_process(None, 5).ok();
        let mut random = SplitMix(seed);
        let (mut last, mut owed) = (Instant::now(), 0.0);
        loop {
            thread::sleep(TICK);
            // What a slow host made the guest miss is not made up for: the rate is an upper bound.
            owed += last.elapsed().min(TICK * 4).as_secs_f64() * (kib_per_second << 10) as f64;
            last = Instant::now();
            while owed >= PAGE_BYTES as f64 {
                owed -= PAGE_BYTES as f64;
                let page = random.next() as usize % region.pages();
                region.rewrite(page, |version| next_version(page, version));
            }
        }
    });
}

/// Even pages get content that never was, odd ones toggle between two contents.
pub fn next_version(page: usize, version: u32) -> u32 {
    if page.is_multiple_of(2) { version.wrapping_add(1) } else { version ^ 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_pages_come_back_to_what_they_were() {
        assert_eq!(next_version(3, next_version(3, 0)), 0);
        assert_eq!(next_version(4, next_version(4, 0)), 2);
    }
}
