//! Certificates that are expelled, for people.

use rackferry_proto::v1::ExpelledCertificate;

use super::table;
use crate::units::millis;

/// Those who are expelled, by whom, and for how long now.
pub fn list(all: &[ExpelledCertificate], now_unix_ms: u64) -> String {
    if all.is_empty() {
        return "No certificate is expelled.".to_owned();
    }
    let rows = all.iter().map(|one| {
        let serial = if one.serial.is_empty() { "all" } else { &one.serial };
        let age = now_unix_ms.saturating_sub(one.expelled_unix_ms);
        vec![one.name.clone(), serial.to_owned(), one.by.clone(), millis(age)]
    });
    table(&["name", "serial", "by", "age"], &["age"], rows)
}

/// A certificate, or all of a name.
pub fn name(one: &ExpelledCertificate) -> String {
    match one.serial.as_str() {
        "" => one.name.clone(),
        serial => format!("certificate {serial} of {}", one.name),
    }
}
