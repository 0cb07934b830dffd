//! What keeps VMs from moving.

use insta::assert_snapshot;
use rackferry_proto::v1;

use crate::render::{check, json};

pub(super) fn checks() -> Vec<v1::VmCheck> {
    let finding =
        |severity: v1::Severity, code: v1::FindingCode, cause: &str, fix: &str| v1::Finding {
            severity: severity.into(),
            code: code.into(),
            cause: cause.to_owned(),
            fix: fix.to_owned(),
        };
    let target = |host: &str, findings| v1::TargetCheck { host: host.to_owned(), findings };
    let older = finding(
        v1::Severity::Warns,
        v1::FindingCode::QemuOlder,
        "QEMU 7.2.22 of this host is older than the VM's 10.0.2",
        "take a target that is not older, if there is one",
    );
    let blocked = finding(
        v1::Severity::Blocks,
        v1::FindingCode::QemuBlocks,
        "VFIO device doesn't support migration",
        "take that away from the VM, or stop the VM",
    );
    let memory = finding(
        v1::Severity::Blocks,
        v1::FindingCode::Memory,
        "needs 4096 MiB, 1024 MiB are free",
        "take another target, or move VMs away",
    );
    vec![
        v1::VmCheck {
            vm: "web-1".to_owned(),
            host: "r1-h1".to_owned(),
            targets: vec![target("r2-h1", vec![memory]), target("r2-h2", vec![older])],
            can_move: true,
            ..v1::VmCheck::default()
        },
        v1::VmCheck {
            vm: "gpu-1".to_owned(),
            host: "r1-h2".to_owned(),
            findings: vec![blocked],
            ..v1::VmCheck::default()
        },
    ]
}

#[test]
fn what_keeps_vms_from_moving() {
    assert_snapshot!("checks", check::vms(&checks()));
    assert_snapshot!("json_checks", json::checks(&checks()));
    assert_snapshot!("no_checks", check::vms(&[]));
}
