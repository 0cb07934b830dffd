//! Many seeds on all cores.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::coverage::Coverage;
use crate::{Bug, Report, play};

/// What became of a sweep.
#[derive(Debug, Default)]
pub struct Sweep {
    /// Everything together.
    pub coverage: Coverage,
    /// Worlds in which an invariant did not hold, the lowest seed first.
    pub failed: Vec<Report>,
    /// How long it took.
    pub took: Duration,
}

impl Sweep {
    /// Seeds a minute.
    pub fn per_minute(&self) -> f64 {
        self.coverage.worlds as f64 * 60.0 / self.took.as_secs_f64().max(1e-9)
    }
}

/// Runs `count` seeds from `first` on; ends early after `most` worlds that failed.
pub fn sweep(first: u64, count: u64, threads: usize, most: usize, bug: Option<Bug>) -> Sweep {
    let begin = Instant::now();
    let next = AtomicU64::new(0);
    let enough = AtomicBool::new(false);
    let sum = Mutex::new(Sweep::default());
    let work = || {
        let mut coverage = Coverage::default();
        let mut failed = Vec::new();
        while !enough.load(Ordering::Relaxed) {
            let offset = next.fetch_add(1, Ordering::Relaxed);
            if offset >= count {
                break;
            }
            let report = play(first.wrapping_add(offset), bug);
            coverage.add(&report.coverage);
            if report.violation.is_some() {
                failed.push(report);
                if failed.len() >= most {
                    enough.store(true, Ordering::Relaxed);
                }
            }
        }
        let mut sum = sum.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        sum.coverage.add(&coverage);
        sum.failed.append(&mut failed);
    };
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(work);
        }
    });
    let mut sum = sum.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    sum.failed.sort_by_key(|report| report.seed);
    sum.took = begin.elapsed();
    sum
}
