//! What coordinators and agents count alike, and how a program tells the recorder of its metrics.
//!
//! Each program has its own list of [`Metric`]s, in which those of this crate are rows. Where nothing serves `/metrics`
//! nothing here costs anything.

#[cfg(feature = "testing")]
pub mod testing;

use rackferry_model::{Metric, MetricKind};

/// When the program's certificate expires, in seconds of Unix.
pub const CERTIFICATE_EXPIRY: &str = "rackferry_tls_certificate_expiry_timestamp_seconds";
/// When the first CA of the site expires, in seconds of Unix.
pub const CA_EXPIRY: &str = "rackferry_tls_ca_expiry_timestamp_seconds";
/// Callers of the program's port that were refused, by reason.
pub const REFUSED: &str = "rackferry_connections_refused_total";
/// Always 1; the version is a label.
pub const BUILD_INFO: &str = "rackferry_build_info";

/// Tells the recorder what the metrics of a program mean, and which version it is.
pub fn describe(list: &[Metric], version: &'static str) {
    for &Metric { name, kind, help } in list {
        match kind {
            MetricKind::Counter => metrics::describe_counter!(name, help),
            MetricKind::Gauge => metrics::describe_gauge!(name, help),
            MetricKind::Histogram => metrics::describe_histogram!(name, help),
        }
    }
    metrics::gauge!(BUILD_INFO, "version" => version).set(1.0);
}

/// Shows when the program's certificate and the site's CA expire, in seconds of Unix.
pub fn certificates(own: i64, ca: i64) {
    metrics::gauge!(CERTIFICATE_EXPIRY).set(own as f64);
    metrics::gauge!(CA_EXPIRY).set(ca as f64);
}

/// Shows how many callers were refused since the program began, by reason.
pub fn refused(counts: impl IntoIterator<Item = (&'static str, u64)>) {
    for (reason, count) in counts {
        metrics::counter!(REFUSED, "reason" => reason).absolute(count);
    }
}
