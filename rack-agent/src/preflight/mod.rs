//! Looking before leaping: what would keep a VM from leaving this host, or from running on it. Nothing here changes
//! anything.

mod cpu;
mod host;
mod source;
mod target;
mod told;

use std::time::{SystemTime, UNIX_EPOCH};

use rackferry_migrator_protocol::frame::PROTOCOL_VERSION;
use rackferry_proto::v1::{self, FindingCode, Severity};

use crate::agent::Agent;

pub use cpu::{Model, Models};
pub use host::Programs;
pub use target::{blockers, cpu_lacks};
use told::Late;

/// Answers whether a VM could leave.
pub async fn check_source(agent: &Agent, order: v1::CheckSource) -> v1::CheckReport {
    let (findings, cpu) = source::findings(agent, &order.vm).await;
    let source::Cpu { features, properties } = cpu;
    v1::CheckReport {
        cpu_features: features,
        cpu_properties: properties,
        ..report(order.check, findings)
    }
}

/// Answers whether a VM could run here.
pub async fn check_target(agent: &Agent, order: v1::CheckTarget) -> v1::CheckReport {
    let findings = target::findings(agent, &order).await;
    report(order.check, findings)
}

fn report(check: u64, findings: Vec<v1::Finding>) -> v1::CheckReport {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    v1::CheckReport {
        check,
        findings,
        clock_unix_ms: now.as_millis() as u64,
        page_protocol_version: PROTOCOL_VERSION.into(),
        ..Default::default()
    }
}

fn blocks(code: FindingCode, cause: impl Into<String>, fix: impl Into<String>) -> v1::Finding {
    finding(Severity::Blocks, code, cause.into(), fix.into())
}

fn warns(code: FindingCode, cause: impl Into<String>, fix: impl Into<String>) -> v1::Finding {
    finding(Severity::Warns, code, cause.into(), fix.into())
}

fn finding(severity: Severity, code: FindingCode, cause: String, fix: String) -> v1::Finding {
    v1::Finding { severity: severity.into(), code: code.into(), cause, fix }
}
