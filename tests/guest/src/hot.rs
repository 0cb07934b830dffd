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

/// Pages that are checked per tick, beside the one that was written.
const CHECKED_PER_TICK: usize = 2;

/// Starts rewriting `kib_per_second` of the region, page after page, and reading all of it again and again.
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
            while owed >= PAGE_BYTES as f64 {
                owed -= PAGE_BYTES as f64;
                let page = next % region.pages();
                region.rewrite(page, |version| next_version(page, version));
                next += 1;
            }
            for _ in 0..CHECKED_PER_TICK {
                let page = looked % region.pages();
                if let Err(wrong) = region.check(page) {
                    let (word, got, want) = (wrong.word, wrong.got, wrong.want);
                    serial.line(&format!("RF BAD hot page {page} word {word}: {got:x}, not {want:x}"));
                }
                looked += 1;
            }
        }
    });
}
