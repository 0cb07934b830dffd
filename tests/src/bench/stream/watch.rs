//! Looks at the core link and at the processes' CPU time while a VM moves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use super::Run;
use crate::lab::Lab;
use crate::lab::shape::Core;
use crate::procs;

/// Short beside a move; a process that ends takes at most so much CPU time with it unseen.
const INTERVAL: Duration = Duration::from_millis(50);
const GIB: f64 = (1u64 << 30) as f64;
/// Start and end of a move, where other things than pages take the time, are left out of the rate.
const FROM: f64 = 0.05;
const TO: f64 = 0.95;

/// A watch under way.
#[derive(Debug)]
pub struct Watch {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Result<Watched>>,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Watched {
    /// When, and bytes that had crossed the core link by then.
    crossed: Vec<(Duration, u64)>,
    /// CPU time by name, before and after.
    cpu: BTreeMap<String, (Duration, Duration)>,
}

/// The QEMUs of the lab, in the order they were started.
pub fn qemus(lab: &Lab) -> Result<Vec<(u32, String)>> {
    let mut found: Vec<(u32, String)> = procs::marked(lab.prefix())?
        .into_iter()
        .filter(|(_, name)| name.starts_with("qemu-system"))
        .map(|(pid, name)| (pid.as_raw_nonzero().get() as u32, name))
        .collect();
    found.sort();
    Ok(found)
}

impl Watch {
    /// Watches these processes, and QEMUs beside them: what runs now is a source, what comes is a target.
    pub fn start(lab: &Lab, processes: &[(&str, u32)]) -> Result<Self> {
        let named: BTreeMap<u32, String> =
            processes.iter().map(|(name, pid)| (*pid, (*name).to_owned())).collect();
        let mut eye = Eye {
            prefix: lab.prefix().to_owned(),
            core: lab.core(),
            named,
            seen: Watched::default(),
        };
        for (pid, _) in qemus(lab)? {
            eye.named.entry(pid).or_insert_with(|| "source QEMU".to_owned());
        }
        let over = Arc::<AtomicBool>::default();
        let told = over.clone();
        eye.look(Duration::ZERO, true)?;
        let thread = thread::spawn(move || {
            let start = Instant::now();
            while !told.load(Ordering::Relaxed) {
                thread::sleep(INTERVAL);
                eye.look(start.elapsed(), false)?;
            }
            Ok(eye.seen)
        });
        Ok(Self { over, thread })
    }

    /// Ends the watch.
    pub fn end(self) -> Result<Watched> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the watch panicked"))?
    }
}

struct Eye {
    prefix: String,
    core: Core,
    named: BTreeMap<u32, String>,
    seen: Watched,
}

impl Eye {
    fn look(&mut self, at: Duration, first: bool) -> Result<()> {
        self.seen.crossed.push((at, self.core.bytes()?.total()));
        if !first {
            for (pid, name) in procs::marked(&self.prefix)? {
                if name.starts_with("qemu-system") {
                    let pid = pid.as_raw_nonzero().get() as u32;
                    self.named.entry(pid).or_insert_with(|| "target QEMU".to_owned());
                }
            }
        }
        for (pid, name) in &self.named {
            // A process that has ended keeps what was seen last.
            let Ok(now) = procs::cpu_of(&format!("/proc/{pid}/stat")) else { continue };
            let before = if first { now } else { Duration::ZERO };
            self.seen.cpu.entry(name.clone()).or_insert((before, now)).1 = now;
        }
        Ok(())
    }
}

impl Watched {
    /// The figures of a move of a VM of `bytes`; `stages` are CPU seconds.
    pub fn run(self, name: &str, whole: Duration, bytes: u64, stages: Vec<(String, f64)>) -> Run {
        let gib = bytes as f64 / GIB;
        let cpu = self.cpu.iter().map(|(name, (before, after))| {
            (name.clone(), after.saturating_sub(*before).as_secs_f64() / gib)
        });
        Run {
            name: name.to_owned(),
            gib,
            whole_s: whole.as_secs_f64(),
            gib_per_s: self.rate(),
            cpu_s_per_gib: cpu.collect(),
            stages: stages.into_iter().map(|(stage, seconds)| (stage, seconds / gib)).collect(),
        }
    }

    fn rate(&self) -> f64 {
        let first = self.crossed.first().map_or(0, |(_, bytes)| *bytes);
        let all = self.crossed.last().map_or(0, |(_, bytes)| *bytes) - first;
        let at = |part: f64| {
            let wanted = first + (all as f64 * part) as u64;
            self.crossed.iter().find(|(_, bytes)| *bytes >= wanted).copied().unwrap_or_default()
        };
        let ((begin, from), (end, to)) = (at(FROM), at(TO));
        (to - from) as f64 / GIB / (end.saturating_sub(begin)).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_middle() {
        let gib = |n: f64| (n * GIB) as u64;
        let at = |s: u64, n: f64| (Duration::from_secs(s), gib(n));
        // A slow start and a slow end around 2 GiB/s.
        let crossed = vec![at(0, 0.0), at(100, 1.0), at(101, 3.0), at(109, 19.0), at(200, 20.0)];
        let watched = Watched { crossed, ..Watched::default() };
        assert!((watched.rate() - 2.0).abs() < 1e-6, "{}", watched.rate());
    }
}
