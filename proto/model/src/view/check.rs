//! Preflight checks as clients see them.

use serde::{Deserialize, Serialize};

use super::Received;
use crate::{FindingCode, Severity};

/// Something that keeps a VM from moving, or that its user should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How serious it is.
    pub severity: Received<Severity>,
    /// Its kind.
    pub code: Received<FindingCode>,
    /// The cause, with names and numbers.
    pub cause: String,
    /// The remedy.
    pub fix: String,
}

/// What was found at a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TargetCheck {
    /// The target.
    pub host: String,
    /// What was found there.
    pub findings: Vec<Finding>,
}

/// What was found about a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VmCheck {
    /// The VM.
    pub vm: String,
    /// Its owner.
    pub host: String,
    /// Nothing blocks it there, and a target takes it.
    pub can_move: bool,
    /// What was found at its owner.
    pub findings: Vec<Finding>,
    /// What was found at the targets.
    pub targets: Vec<TargetCheck>,
}

/// A planned migration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedMove {
    /// The VM.
    pub vm: String,
    /// Its source.
    pub source_host: String,
    /// Its target.
    pub target_host: String,
    /// Guest memory.
    pub memory_bytes: u64,
}
