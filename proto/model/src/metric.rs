//! What programs count for Prometheus, as their lists say it.

use crate::word::words;

words! {
    /// A metric's type.
    #[serde(rename_all = "snake_case")]
    MetricKind {
        /// A metric that only rises, in whole numbers.
        Counter = "counter",
        /// A metric that may be any number.
        Gauge = "gauge",
        /// A metric that counts observations by size.
        Histogram = "histogram",
    }
}

/// A row of a program's list of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name, with the prefix `rackferry_`.
    pub name: &'static str,
    /// Its type.
    pub kind: MetricKind,
    /// Its meaning, for `# HELP`.
    pub help: &'static str,
}

impl Metric {
    /// A metric that only rises.
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: MetricKind::Counter, help }
    }

    /// A metric that may be any number.
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: MetricKind::Gauge, help }
    }

    /// A metric that counts observations by size.
    pub const fn histogram(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: MetricKind::Histogram, help }
    }
}
