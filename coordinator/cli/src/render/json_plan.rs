//! What could move and what would, for programs.

use rackferry_proto::v1;
use serde::Serialize;

use super::{
    json::{Resulting, text},
    plan::{by_target, movable},
    word,
};
use crate::exit::Code;

#[derive(Serialize)]
struct Found<'a> {
    severity: String,
    code: String,
    cause: &'a str,
    fix: &'a str,
}

#[derive(Serialize)]
struct Target<'a> {
    host: &'a str,
    findings: Vec<Found<'a>>,
}

#[derive(Serialize)]
struct Check<'a> {
    vm: &'a str,
    host: &'a str,
    can_move: bool,
    findings: Vec<Found<'a>>,
    targets: Vec<Target<'a>>,
}

fn found(finding: &v1::Finding) -> Found<'_> {
    Found {
        severity: word::severity(finding.severity()),
        code: word::finding(finding.code()),
        cause: &finding.cause,
        fix: &finding.fix,
    }
}

impl<'a> From<&'a v1::VmCheck> for Check<'a> {
    fn from(vm: &'a v1::VmCheck) -> Self {
        let target = |target: &'a v1::TargetCheck| Target {
            host: &target.host,
            findings: target.findings.iter().map(found).collect(),
        };
        Self {
            vm: &vm.vm,
            host: &vm.host,
            can_move: vm.can_move,
            findings: vm.findings.iter().map(found).collect(),
            targets: vm.targets.iter().map(target).collect(),
        }
    }
}

/// What keeps VMs from moving.
pub fn checks(vms: &[v1::VmCheck]) -> String {
    #[derive(Serialize)]
    struct All<'a> {
        vms: Vec<Check<'a>>,
    }
    let all = All { vms: vms.iter().map(Check::from).collect() };
    text(&Resulting { result_code: Code::of_checks(vms) as u32, value: all })
}

/// What would be done, and where that is written.
pub fn plan(
    plan: &v1::Evacuation,
    blocked: &[v1::VmCheck],
    file: Option<&str>,
    code: Code,
) -> String {
    #[derive(Serialize)]
    struct Move<'a> {
        vm: &'a str,
        source_host: &'a str,
        target_host: &'a str,
        memory_bytes: u64,
    }
    #[derive(Serialize)]
    struct Host<'a> {
        host: &'a str,
        vms: usize,
        memory_bytes: u64,
    }
    #[derive(Serialize)]
    struct Plan<'a> {
        file: Option<&'a str>,
        sources: &'a [String],
        targets: &'a [String],
        moves: Vec<Move<'a>>,
        hosts: Vec<Host<'a>>,
        blocked: Vec<Check<'a>>,
    }
    let movable = movable(plan, blocked);
    let moves = movable.iter().map(|one| Move {
        vm: &one.vm,
        source_host: &one.source_host,
        target_host: &one.target_host,
        memory_bytes: one.memory_bytes,
    });
    let hosts = by_target(&movable).into_iter();
    let hosts = hosts.map(|(host, (vms, memory_bytes))| Host { host, vms, memory_bytes });
    let value = Plan {
        file,
        sources: &plan.sources,
        targets: &plan.targets,
        moves: moves.collect(),
        hosts: hosts.collect(),
        blocked: blocked.iter().map(Check::from).collect(),
    };
    text(&Resulting { result_code: code as u32, value })
}
