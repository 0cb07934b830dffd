//! What the agent counts, for Prometheus. [`METRICS`] is the whole list; docs/operations.md shows it to operators, and
//! a test keeps the two the same.
//!
//! Sessions are metered while they last, so that a rate is true at any moment. Where no `metrics_listen` is set
//! nothing here costs anything.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rackferry_migrator::stats::Totals;
use rackferry_model::{Metric, MetricKind};
use rackferry_tls::Admission;

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
const CA_EXPIRY: &str = "rackferry_tls_ca_expiry_timestamp_seconds";
const REFUSED: &str = "rackferry_connections_refused_total";
const BUILD_INFO: &str = "rackferry_build_info";

/// Every metric.
pub const METRICS: [Metric; 13] = [
    Metric::counter(BYTES, "Bytes of guest memory and of the core link, by kind"),
    Metric::counter(STAGE_SECONDS, "CPU time of sessions in whole seconds, by side and stage"),
    Metric::counter(MIGRATIONS, "Sessions that ended, by side and outcome"),
    Metric::counter(VERIFY_FAILURES, "Pages from rack neighbours that did not match their digest"),
    Metric::gauge(ACTIVE_STREAMS, "Sessions under way, by side"),
    Metric::gauge(INDEX_ENTRIES, "Claims in this host's shard of the content index"),
    Metric::gauge(INDEX_BYTES, "Bytes this host's shard of the content index takes"),
    Metric::gauge(CONTENT_ENTRIES, "Pages of this host's guests that neighbours may fetch"),
    Metric::gauge(CONNECTED, "1 while the coordinator's stream is up"),
    Metric::gauge(CERTIFICATE_EXPIRY, "When this host's certificate expires"),
    Metric::gauge(CA_EXPIRY, "When the first CA of the site expires"),
    Metric::counter(REFUSED, "Callers of the page server that were refused, by reason"),
    Metric::gauge(BUILD_INFO, "Always 1; the version is a label"),
];

/// Tells the recorder what the metrics mean.
pub fn describe() {
    for Metric { name, kind, help } in METRICS {
        match kind {
            MetricKind::Counter => ::metrics::describe_counter!(name, help),
            MetricKind::Gauge => ::metrics::describe_gauge!(name, help),
            MetricKind::Histogram => ::metrics::describe_histogram!(name, help),
        }
    }
    ::metrics::gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

/// Looks at sizes now and then until the agent ends.
pub async fn sample(agent: Agent) {
    loop {
        ::metrics::gauge!(CONNECTED).set(if agent.is_connected() { 1.0 } else { 0.0 });
        if let Some(tls) = agent.tls() {
            certificates(tls.expires(), tls.ca_expires());
        }
        refused(agent.admission());
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

fn certificates(own: i64, ca: i64) {
    ::metrics::gauge!(CERTIFICATE_EXPIRY).set(own as f64);
    ::metrics::gauge!(CA_EXPIRY).set(ca as f64);
}

fn refused(admission: &Admission) {
    for (why, count) in admission.refusals() {
        ::metrics::counter!(REFUSED, "reason" => why.as_str()).absolute(count);
    }
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

/// CPU time of all sessions, in nanoseconds, by side and stage: what is less than a second is kept for later.
static STAGES: [[AtomicU64; STAGE_COUNT]; 2] =
    [const { [const { AtomicU64::new(0) }; STAGE_COUNT] }; 2];
/// Stages of a session.
const STAGE_COUNT: usize = 9;

/// Adds CPU time to a stage; the stage's whole seconds since the agent began.
fn stage_seconds(side: Side, stage: usize, nanoseconds: u64) -> u64 {
    let sum = &STAGES[side as usize][stage];
    let before = sum.fetch_add(nanoseconds, Ordering::Relaxed);
    Duration::from_nanos(before + nanoseconds).as_secs()
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
        let stages = now.stages().into_iter().zip(was.stages());
        for (at, ((stage, now), (_, was))) in stages.enumerate() {
            let labels = [("side", word(self.side)), ("stage", stage)];
            let seconds = stage_seconds(self.side, at, now.saturating_sub(was));
            ::metrics::counter!(STAGE_SECONDS, &labels).absolute(seconds);
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

    #[test]
    fn every_metric_is_in_the_manual_and_no_other() {
        let manual = include_str!("../../docs/operations.md");
        let (_, section) =
            manual.split_once("\n## Metrics\n").expect("the manual has a section on metrics");
        let section = section.split("\n## ").next().expect("split gives at least one part");
        let word = |c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        let found: BTreeSet<_> =
            section.split(word).filter(|name| name.starts_with("rackferry_")).collect();
        assert_eq!(found, METRICS.iter().map(|metric| metric.name).collect());
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

    /// What an agent shows when there is something of everything.
    fn all() -> String {
        shown(|| {
            describe();
            ::metrics::gauge!(CONNECTED).set(1.0);
            sizes(1, 2, 3);
            certificates(4, 5);
            refused(&Admission::default());
            let mut meter = Meter::new(Side::Source);
            meter.read(&Totals { verify_failures: 1, ..Totals::default() });
            migration_ended(Side::Source, "moved");
        })
    }

    #[test]
    fn every_metric_is_shown_with_its_type() {
        let text = all();
        for Metric { name, kind, .. } in METRICS {
            assert!(text.contains(&format!("# TYPE {name} {kind}\n")), "{name}:\n{text}");
        }
    }

    #[test]
    fn promtool_has_no_objections() {
        let Some(promtool) = std::env::var_os("RACKFERRY_PROMTOOL") else {
            eprintln!("skipped: RACKFERRY_PROMTOOL is not set; `cargo xtask test` sets it");
            return;
        };
        let mut check = std::process::Command::new(promtool)
            .args(["check", "metrics"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut check.stdin.take().unwrap(), all().as_bytes()).unwrap();
        assert!(check.wait().unwrap().success());
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
        assert!(text.contains("rackferry_active_streams{side=\"target\"} 0\n"), "{text}");
        // Half a second is kept for later; whichever session it is then.
        assert!(text.contains("side=\"target\",stage=\"hash\"} 1\n"), "{text}");
        let text = shown(|| {
            Meter::new(Side::Target).read(&Totals { hash_ns: 500_000_000, ..Totals::default() });
        });
        assert!(text.contains("side=\"target\",stage=\"hash\"} 2\n"), "{text}");
    }
}
