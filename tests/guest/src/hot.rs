//! The working set of `hot`: rewritten and checked at once, in sleeps so short that the same few pages (its stack, the
//! kernel's stack below it with the timer of the sleep) are written hundreds of times per second through TLB entries
//! that live long.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::busy::next_version;
use crate::content::PAGE_BYTES;
use crate::region::Region;
use crate::serial::Serial;

const TICK: Duration = Duration::from_millis(2);

/// Pages that are rewritten at each tick, before the writing moves on: a write that is missed among many is noticed only
/// if it is a page's last for a while.
const WINDOW_PAGES: usize = 4;

/// A page is checked every so many ticks: an emulated CPU has better things to do than to compare.
const CHECK_EVERY: usize = 4;

/// Starts rewriting the region through a window of a few pages that moves on by `kib_per_second`, and reading all of it
/// again and again.
pub fn start(region: Arc<Region>, kib_per_second: usize, serial: Serial) {
    if region.pages() == 0 {
        return;
    }
    thread::spawn(move || {
        let mut last = Instant::now();
        let (mut owed, mut next, mut looked) = (0.0, 0_usize, 0_usize);
        loop {
            thread::sleep(TICK);
            owed += last.elapsed().min(TICK * 8).as_secs_f64() * (kib_per_second << 10) as f64;
            last = Instant::now();
            for page in (next..next + WINDOW_PAGES).map(|page| page % region.pages()) {
                region.rewrite(page, |version| next_version(page, version));
            }
            while owed >= PAGE_BYTES as f64 {
                owed -= PAGE_BYTES as f64;
                next += 1;
            }
            looked += 1;
            let page = looked / CHECK_EVERY % region.pages();
            if looked.is_multiple_of(CHECK_EVERY)
                && let Err(wrong) = region.check(page)
            {
                let (word, got, want) = (wrong.word, wrong.got, wrong.want);
                serial.line(&format!("RF BAD hot page {page} word {word}: {got:x}, not {want:x}"));
            }
        }
    });
}
