//! What the agent counts, for Prometheus. [`METRICS`] is the whole list; docs/operations.md shows it to operators, and
//! a test keeps the two the same.
//!
//! Sessions are metered while they last, so that a rate is true at any moment. Where no `metrics_listen` is set
//! nothing here costs anything.

use std::time::Duration;

use rackferry_migrator::stats::Totals;

use crate::agent::Agent;
use crate::vm::Side;

/// Time between two looks at sizes.
const SAMPLE_EVERY: Duration = Duration::from_secs(5);

const BYTES: &str = "rackferry_bytes_total";
const STAGE_SECONDS: &str = "rackferry_stage_seconds_total";
const MIGRATIONS: &str = "rackferry_migrations_total";
const VERIFY_FAILURES: &str = "rackferry_page_verify_failures_total";
const ACTIVE_STREAMS: &str = "rackferry_active_streams";
const INDEX_ENTRIES: &str = "rackferry_dedup_index_entries";
const INDEX_BYTES: &str = "rackferry_dedup_index_bytes";
const CONTENT_ENTRIES: &str = "rackferry_dedup_content_entries";
const CONNECTED: &str = "rackferry_coordinator_connected";
const CERTIFICATE_EXPIRY: &str = "rackferry_tls_certificate_expiry_timestamp_seconds";
const BUILD_INFO: &str = "rackferry_build_info";

/// A metric's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A metric that only rises, in whole numbers.
    Counter,
    /// A metric that may be any number.
    Gauge,
}

/// Name, type and meaning of every metric.
pub const METRICS: [(&str, Kind, &str); 11] = [
    (BYTES, Kind::Counter, "Bytes of guest memory and of the core link, by kind"),
    (STAGE_SECONDS, Kind::Gauge, "CPU time of sessions, by side and stage; only rises"),
    (MIGRATIONS, Kind::Counter, "Sessions that ended, by side and outcome"),
    (VERIFY_FAILURES, Kind::Counter, "Pages from rack neighbours that did not match their digest"),
    (ACTIVE_STREAMS, Kind::Gauge, "Sessions under way, by side"),
    (INDEX_ENTRIES, Kind::Gauge, "Claims in this host's shard of the content index"),
    (INDEX_BYTES, Kind::Gauge, "Bytes this host's shard of the content index takes"),
    (CONTENT_ENTRIES, Kind::Gauge, "Pages of this host's guests that neighbours may fetch"),
    (CONNECTED, Kind::Gauge, "1 while the coordinator's stream is up"),
    (CERTIFICATE_EXPIRY, Kind::Gauge, "When this host's certificate expires"),
    (BUILD_INFO, Kind::Gauge, "Always 1; the version is a label"),
];

/// Tells the recorder what the metrics mean.
pub fn describe() {
    for (name, kind, help) in METRICS {
        match kind {
            Kind::Counter => ::metrics::describe_counter!(name, help),
            Kind::Gauge => ::metrics::describe_gauge!(name, help),
        }
    }
    ::metrics::gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

/// Looks at sizes now and then until the agent ends.
pub async fn sample(agent: Agent) {
    loop {
        ::metrics::gauge!(CONNECTED).set(if agent.is_connected() { 1.0 } else { 0.0 });
        if let Some(tls) = agent.tls() {
            certificate(tls.expires());
        }
        if let Some(rack) = agent.rack() {
            sizes(rack.shard.len(), rack.shard.bytes(), rack.store.len());
        }
        tokio::time::sleep(SAMPLE_EVERY).await;
    }
}

fn sizes(index_entries: usize, index_bytes: usize, content_entries: usize) {
    ::metrics::gauge!(INDEX_ENTRIES).set(index_entries as f64);
    ::metrics::gauge!(INDEX_BYTES).set(index_bytes as f64);
    ::metrics::gauge!(CONTENT_ENTRIES).set(content_entries as f64);
}

fn certificate(expires: i64) {
    ::metrics::gauge!(CERTIFICATE_EXPIRY).set(expires as f64);
}

/// Counts a migration that ended on this side.
pub fn migration_ended(side: Side, outcome: &'static str) {
    ::metrics::counter!(MIGRATIONS, "side" => word(side), "outcome" => outcome).increment(1);
}

fn word(side: Side) -> &'static str {
    match side {
        Side::Source => "source",
        Side::Target => "target",
    }
}

/// Feeds the figures of one session to the metrics; counts as an active stream until it is dropped.
#[derive(Debug)]
pub struct Meter {
    side: Side,
    seen: Totals,
}

impl Meter {
    /// Makes the meter of a session that begins.
    #[must_use]
    pub fn new(side: Side) -> Self {
        ::metrics::gauge!(ACTIVE_STREAMS, "side" => word(side)).increment(1.0);
        Self { side, seen: Totals::default() }
    }

    /// Takes a reading of the session's counters: what is new since the last one is added.
    pub fn read(&mut self, now: &Totals) {
        let was = std::mem::replace(&mut self.seen, *now);
        for ((kind, now), (_, was)) in now.bytes().into_iter().zip(was.bytes()) {
            ::metrics::counter!(BYTES, "kind" => kind).increment(now.saturating_sub(was));
        }
        for ((stage, now), (_, was)) in now.stages().into_iter().zip(was.stages()) {
            let seconds = Duration::from_nanos(now.saturating_sub(was)).as_secs_f64();
            let labels = [("side", word(self.side)), ("stage", stage)];
            ::metrics::gauge!(STAGE_SECONDS, &labels).increment(seconds);
        }
        let failures = now.verify_failures.saturating_sub(was.verify_failures);
        ::metrics::counter!(VERIFY_FAILURES).increment(failures);
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        ::metrics::gauge!(ACTIVE_STREAMS, "side" => word(self.side)).decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    /// What `/metrics` shows after `act`.
    fn shown(act: impl FnOnce()) -> String {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        ::metrics::with_local_recorder(&recorder, act);
        handle.render()
    }

    fn names() -> BTreeSet<&'static str> {
        METRICS.iter().map(|(name, ..)| *name).collect()
    }

    #[test]
    fn every_metric_is_in_the_manual_and_no_other() {
        let manual = include_str!("../../docs/operations.md");
        let (_, section) =
            manual.split_once("## Metrics").expect("the manual has a section on metrics");
        let section = section.split("\n## ").next().expect("split gives at least one part");
        let word = |c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        let found: BTreeSet<_> =
            section.split(word).filter(|name| name.starts_with("rackferry_")).collect();
        assert_eq!(found, names());
    }

    #[test]
    fn every_stage_and_every_kind_is_in_the_manual() {
        let manual = include_str!("../../docs/operations.md");
        let begins = format!("| `{STAGE_SECONDS}`");
        let row = manual.lines().find(|line| line.starts_with(&begins)).unwrap();
        let totals = Totals::default();
        let stages: Vec<_> =
            totals.stages().iter().map(|(stage, _)| format!("`{stage}`")).collect();
        assert!(row.contains(&stages.join(" ")), "{row}");
        for (kind, _) in totals.bytes() {
            assert!(manual.contains(&format!("\n| `{kind}` | ")), "{kind}");
        }
    }

    #[test]
    fn every_metric_is_shown_with_its_type() {
        let text = shown(|| {
            describe();
            ::metrics::gauge!(CONNECTED).set(1.0);
            sizes(1, 2, 3);
            certificate(4);
            let mut meter = Meter::new(Side::Source);
            meter.read(&Totals { verify_failures: 1, ..Totals::default() });
            migration_ended(Side::Source, "moved");
        });
        for (name, kind, _) in METRICS {
            let kind = if kind == Kind::Counter { "counter" } else { "gauge" };
            assert!(text.contains(&format!("# TYPE {name} {kind}\n")), "{name}:\n{text}");
        }
    }

    #[test]
    fn readings_add_up_and_a_stream_ends_with_its_meter() {
        let text = shown(|| {
            let mut meter = Meter::new(Side::Target);
            for n in 1..=3 {
                meter.read(&Totals {
                    wire_bytes: n * 10,
                    hash_ns: n * 500_000_000,
                    ..Totals::default()
                });
            }
        });
        assert!(text.contains("rackferry_bytes_total{kind=\"wire\"} 30\n"), "{text}");
        assert!(text.contains("stage=\"hash\"} 1.5\n"), "{text}");
        assert!(text.contains("rackferry_active_streams{side=\"target\"} 0\n"), "{text}");
    }
}
