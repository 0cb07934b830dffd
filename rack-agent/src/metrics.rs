//! What the agent counts, for Prometheus. [`METRICS`] is the whole list; docs/operations.md shows it to operators, and
//! a test keeps the two the same.
//!
//! Sessions are metered while they last, so that a rate is true at any moment. Where no `metrics_listen` is set
//! nothing here costs anything.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rackferry_metrics::{
    BUILD_INFO, CA_EXPIRY, CERTIFICATE_EXPIRY, REFUSED, certificates, refused,
};
use rackferry_migrator::stats::Totals;
use rackferry_model::Metric;

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
    rackferry_metrics::describe(&METRICS, env!("CARGO_PKG_VERSION"));
}

/// Looks at sizes now and then until the agent ends.
pub async fn sample(agent: Agent) {
    loop {
        ::metrics::gauge!(CONNECTED).set(if agent.is_connected() { 1.0 } else { 0.0 });
        if let Some(tls) = agent.tls() {
            certificates(tls.expires(), tls.ca_expires());
        }
        refused(agent.admission().refusals().map(|(why, count)| (why.as_str(), count)));
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
    use metrics_exporter_prometheus::PrometheusBuilder;
    use rackferry_metrics::testing;

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
        testing::is_in_the_manual(&METRICS, include_str!("../../docs/operations.md"), "Metrics");
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
            refused([("address", 6)]);
            let mut meter = Meter::new(Side::Source);
            meter.read(&Totals { verify_failures: 1, ..Totals::default() });
            migration_ended(Side::Source, "moved");
        })
    }

    #[test]
    fn every_metric_is_shown_with_its_type() {
        testing::is_shown(&METRICS, &all());
    }

    #[test]
    fn promtool_has_no_objections() {
        testing::promtool_accepts(&all());
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
