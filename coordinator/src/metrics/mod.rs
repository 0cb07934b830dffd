//! What a coordinator counts, for Prometheus. [`METRICS`] is the whole list; docs/operations.md shows it to operators,
//! and tests keep the two the same.
//!
//! Figures of the fleet are 0 where the coordinator does not lead, so that the sum over all coordinators is the site's.
//! Each migration's end is counted by the coordinator that committed it: the counters of all coordinators add up, also
//! across changes of the leader. Labels are words and names of links: none grows with the number of VMs or hosts.

mod sample;
#[cfg(test)]
mod tests;

use std::{net::SocketAddr, time::Duration};

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};
use rackferry_fleet::End;
use rackferry_metrics::{BUILD_INFO, CA_EXPIRY, CERTIFICATE_EXPIRY, REFUSED, describe};
use rackferry_model::Metric;

pub use sample::sample;

const TURN_SECONDS: &str = "rackferry_coordinator_turn_seconds";
const COMMIT_SECONDS: &str = "rackferry_coordinator_commit_seconds";
const QUEUE_DEPTH: &str = "rackferry_coordinator_queue_depth";
const LEADS: &str = "rackferry_coordinator_leads";
const TERM: &str = "rackferry_coordinator_term";
const LOG_LAG: &str = "rackferry_coordinator_log_lag_entries";
const MIGRATIONS: &str = "rackferry_coordinator_migrations";
const ENDED: &str = "rackferry_coordinator_migrations_ended_total";
const HOSTS: &str = "rackferry_coordinator_hosts";
const CORDONED: &str = "rackferry_coordinator_hosts_cordoned";
const VMS: &str = "rackferry_coordinator_vms";
const PROBLEMS: &str = "rackferry_coordinator_problems";
const LINK_MIGRATIONS: &str = "rackferry_coordinator_link_migrations";
const LINK_LIMIT: &str = "rackferry_coordinator_link_limit_bytes_per_second";
const LINK_RESERVED: &str = "rackferry_coordinator_link_reserved_bytes_per_second";
const LINK_SENT: &str = "rackferry_coordinator_link_sent_bytes_per_second";

/// Every metric.
const METRICS: [Metric; 20] = [
    Metric::histogram(TURN_SECONDS, "Time of a turn of the leader, its commit included"),
    Metric::histogram(COMMIT_SECONDS, "Time until what a turn changed is committed and applied"),
    Metric::gauge(QUEUE_DEPTH, "Entries that wait, by queue"),
    Metric::gauge(LEADS, "1 where this coordinator leads"),
    Metric::gauge(TERM, "The term of the log"),
    Metric::gauge(LOG_LAG, "Entries that another coordinator is behind the leader, by its number"),
    Metric::gauge(MIGRATIONS, "Migrations that have not ended, by phase"),
    Metric::counter(ENDED, "Migrations whose end this coordinator committed, by how they ended"),
    Metric::gauge(HOSTS, "Hosts, by what is heard of them"),
    Metric::gauge(CORDONED, "Hosts that take no VMs"),
    Metric::gauge(VMS, "VMs that have an owner"),
    Metric::gauge(PROBLEMS, "Problems of the site, by code"),
    Metric::gauge(LINK_MIGRATIONS, "Migrations that cross a link, by direction"),
    Metric::gauge(
        LINK_LIMIT,
        "What migrations may send over a link in each direction; 0: no limit",
    ),
    Metric::gauge(LINK_RESERVED, "What sources were told that they may send over a link"),
    Metric::gauge(LINK_SENT, "What sources say that they send over a link"),
    Metric::gauge(CERTIFICATE_EXPIRY, "When this coordinator's certificate expires"),
    Metric::gauge(CA_EXPIRY, "When the first CA of the site expires"),
    Metric::counter(REFUSED, "Callers of this coordinator's port that were refused, by reason"),
    Metric::gauge(BUILD_INFO, "Always 1; the version is a label"),
];

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Bounds of turns and commits: an fsync of a good disk up to what no quorum survives.
const BUCKETS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

/// Serves `/metrics`.
///
/// # Errors
/// If the address cannot be listened on.
pub fn serve(addr: SocketAddr) -> Result<(), BuildError> {
    builder()?.with_http_listener(addr).install()?;
    describe(&METRICS, VERSION);
    Ok(())
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &BUCKETS)
}

/// A turn has taken so long.
pub fn turned(took: Duration) {
    ::metrics::histogram!(TURN_SECONDS).record(took);
}

/// A write has taken so long.
pub fn committed(took: Duration) {
    ::metrics::histogram!(COMMIT_SECONDS).record(took);
}

/// Migrations have ended so, and that is committed.
pub fn migrations_ended((end, count): (End, u64)) {
    ::metrics::counter!(ENDED, "outcome" => end.to_string()).increment(count);
}
