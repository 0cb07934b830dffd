//! What the counters say about a limit.

use std::time::Duration;

use serde::Serialize;

use crate::lab::rate::Rate;

/// Rates are looked at over this time.
const WINDOW: Duration = Duration::from_secs(1);
/// A window so far from the limit, in percent, follows it.
const NEAR_PERCENT: f64 = 5.0;
/// By then a limit should be followed; how far from it the link stays is measured from here on.
const SETTLED: Duration = Duration::from_secs(2);

/// A reading of the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Since the first.
    pub at: Duration,
    /// From rack `a` to rack `b` so far.
    pub bytes: u64,
}

/// How a limit was kept.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// The limit, Mbit/s.
    pub limit_mbit: f64,
    /// From the order until every second that followed was within 5 % of it; none if the last one was not.
    pub followed_s: Option<f64>,
    /// Mean from 2 s after the order on, Mbit/s.
    pub mean_mbit: f64,
    /// How far that is from the limit, percent.
    pub mean_off_percent: f64,
    /// The second that was farthest from it, from 2 s after the order on, percent.
    pub worst_off_percent: f64,
}

impl Step {
    /// A limit that was set at `from` and held until `to`.
    pub fn of(limit: Rate, from: Duration, to: Duration, samples: &[Sample]) -> Self {
        let off = |rate: f64| (rate / limit.0 as f64 - 1.0) * 100.0;
        let windows: Vec<(Duration, f64)> = samples
            .iter()
            .filter(|begin| begin.at >= from)
            .filter_map(|begin| {
                let end = samples.iter().find(|end| end.at >= begin.at + WINDOW)?;
                (end.at <= to).then(|| (begin.at - from, off(rate(begin, end))))
            })
            .collect();
        let far = windows.iter().rposition(|(_, off)| off.abs() > NEAR_PERCENT);
        let followed = windows.get(far.map_or(0, |last| last + 1));
        let settled = windows.iter().filter(|(at, _)| *at >= SETTLED);
        let worst = settled.map(|(_, off)| *off).max_by(|a, b| a.abs().total_cmp(&b.abs()));
        let mut held = samples.iter().filter(|s| s.at >= from + SETTLED && s.at <= to);
        let mean = held.next().zip(held.next_back()).map_or(0.0, |(first, last)| rate(first, last));
        Self {
            limit_mbit: limit.0 as f64 / 1e6,
            followed_s: followed.map(|(at, _)| at.as_secs_f64()),
            mean_mbit: mean / 1e6,
            mean_off_percent: off(mean),
            worst_off_percent: worst.unwrap_or(f64::NAN),
        }
    }
}

/// Bits per second between two readings.
fn rate(begin: &Sample, end: &Sample) -> f64 {
    (end.bytes - begin.bytes) as f64 * 8.0 / (end.at - begin.at).as_secs_f64()
}

/// The steps for people.
pub fn table(steps: &[Step]) -> String {
    let mut text = format!(
        "{:>12} {:>12} {:>12} {:>10} {:>16}\n",
        "limit Mbit/s", "followed s", "mean Mbit/s", "mean off", "worst second off"
    );
    for step in steps {
        let followed = step.followed_s.map_or_else(|| "never".into(), |s| format!("{s:.1}"));
        text += &format!(
            "{:>12.0} {followed:>12} {:>12.1} {:>8.1} % {:>14.1} %\n",
            step.limit_mbit, step.mean_mbit, step.mean_off_percent, step.worst_off_percent
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Readings every 100 ms at these Mbit/s.
    fn samples(rates: impl IntoIterator<Item = u64>) -> Vec<Sample> {
        let mut bytes = 0;
        let mut sample = |(index, mbit): (u64, u64)| {
            bytes += mbit * 12_500;
            Sample { at: Duration::from_millis(100 * index), bytes }
        };
        (0..).zip(rates).map(&mut sample).collect()
    }

    fn step(rates: impl IntoIterator<Item = u64>, seconds: u64) -> Step {
        Step::of(Rate::mbit(200), Duration::ZERO, Duration::from_secs(seconds), &samples(rates))
    }

    #[test]
    fn a_limit_is_followed_from_the_first_second_that_keeps_it() {
        let rates = std::iter::repeat_n(800, 10).chain(std::iter::repeat_n(198, 91));
        let step = step(rates, 10);
        let followed = step.followed_s.expect("it is followed");
        assert!((0.8..1.1).contains(&followed), "{followed}");
        assert!((step.mean_off_percent + 1.0).abs() < 0.01, "{step:?}");
        assert!((step.worst_off_percent + 1.0).abs() < 0.01, "{step:?}");
    }

    #[test]
    fn one_that_is_left_again_was_not() {
        let rates = std::iter::repeat_n(200, 80).chain(std::iter::repeat_n(300, 21));
        let step = step(rates, 10);
        assert_eq!(step.followed_s, None);
        assert!(step.worst_off_percent > 40.0);
        assert!(table(&[step]).contains("never"));
    }
}
