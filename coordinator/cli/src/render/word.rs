//! The words for states: the same in tables and in JSON.

use rackferry_proto::v1::{
    EvacuationState, FindingCode, Listed, NodeRole, Ownership, Phase, ProblemCode, Severity,
    VmCondition, WaitCode,
};

/// The name of a value without the name of its enum: `PHASE_ROLLED_BACK` is `rolled_back`.
fn strip(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase()
}

pub fn phase(phase: Phase) -> String {
    strip(phase.as_str_name(), "PHASE_")
}

pub fn state(state: EvacuationState) -> String {
    strip(state.as_str_name(), "EVACUATION_STATE_")
}

pub fn wait_code(code: WaitCode) -> String {
    strip(code.as_str_name(), "WAIT_CODE_")
}

pub fn listed(listed: Listed) -> String {
    strip(listed.as_str_name(), "LISTED_")
}

pub fn ownership(ownership: Ownership) -> String {
    strip(ownership.as_str_name(), "OWNERSHIP_")
}

pub fn role(role: NodeRole) -> String {
    strip(role.as_str_name(), "NODE_ROLE_")
}

pub fn severity(severity: Severity) -> String {
    strip(severity.as_str_name(), "SEVERITY_")
}

pub fn finding(code: FindingCode) -> String {
    strip(code.as_str_name(), "FINDING_CODE_")
}

pub fn problem(code: ProblemCode) -> String {
    strip(code.as_str_name(), "PROBLEM_CODE_")
}

pub fn condition(condition: VmCondition) -> String {
    strip(condition.as_str_name(), "VM_CONDITION_")
}
