//! Durations of turns by their kind.

use std::{collections::BTreeMap, fmt, time::Duration};

use rustix::time::{ClockId, clock_gettime};

/// CPU time of this thread: other programs on the machine are not in it.
pub fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Durations by the kind of turn.
#[derive(Default)]
pub struct Samples(BTreeMap<&'static str, Vec<Duration>>);

impl Samples {
    /// Measures one turn.
    pub fn measure<T>(&mut self, kind: &'static str, turn: impl FnOnce() -> T) -> T {
        let begin = cpu_time();
        let value = turn();
        self.0.entry(kind).or_default().push(cpu_time().saturating_sub(begin));
        value
    }
}

impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {:<24}{:>8}{:>12}{:>12}{:>12}", "turn", "turns", "p50", "p99", "max")?;
        let all: Vec<Duration> = self.0.values().flatten().copied().collect();
        let kinds = self.0.iter().map(|(kind, durations)| (*kind, durations.clone()));
        for (kind, mut durations) in kinds.chain([("all", all)]) {
            durations.sort_unstable();
            let at = |percent: usize| {
                let last = durations.len().saturating_sub(1);
                durations.get(last * percent / 100).copied().unwrap_or_default()
            };
            let [p50, p99, max] = [50, 99, 100].map(|percent| micros(at(percent)));
            writeln!(f, "  {kind:<24}{:>8}{p50:>12}{p99:>12}{max:>12}", durations.len())?;
        }
        Ok(())
    }
}

fn micros(duration: Duration) -> String {
    let micros = duration.as_secs_f64() * 1e6;
    if micros < 10_000.0 { format!("{micros:.1} us") } else { format!("{:.1} ms", micros / 1e3) }
}
