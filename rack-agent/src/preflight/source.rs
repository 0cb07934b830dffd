//! Could a VM leave?

use rackferry_migrator::qmp::QmpError;
use rackferry_proto::v1::{self, FindingCode};

use super::{blocks, host, warns};
use crate::agent::Agent;
use crate::vm::VmState;

/// What speaks against it, and the CPU features it sees if those are the host's own.
pub async fn findings(agent: &Agent, name: &str) -> (Vec<v1::Finding>, Vec<String>) {
    let Ok(vm) = agent.vms().get(name) else {
        let cause = format!("there is no VM {name} on {}", agent.config().host);
        let fix = "look where it is: rackferry vm list";
        return (vec![blocks(FindingCode::VmState, cause, fix)], Vec::new());
    };
    let state = vm.run_state().await;
    let mut findings = Vec::new();
    if state != VmState::Running {
        let fix = match state {
            VmState::Paused => {
                let host = &agent.config().host;
                format!("let it run on, on {host}: rackferry-agent vm resume {}", vm.name())
            }
            VmState::Dead => format!("remove it: rackferry-agent vm destroy {}", vm.name()),
            _ => "wait until it runs".to_owned(),
        };
        findings.push(blocks(FindingCode::VmState, format!("it is {state}"), fix));
    }
    match vm.qmp().check_can_migrate().await {
        Err(QmpError::Blocked { reasons }) => findings.extend(reasons.into_iter().map(|reason| {
            blocks(FindingCode::QemuBlocks, reason, "take that away from the VM, or stop the VM")
        })),
        Err(error) if state == VmState::Running => {
            let fix = "look at its qemu.log";
            let cause = format!("its QEMU does not answer: {error}");
            findings.push(blocks(FindingCode::QemuBlocks, cause, fix));
        }
        Ok(facts) if facts.accelerator.loses_writes(facts.version) => {
            let cause = format!(
                "QEMU {} without KVM loses writes of its guest during migrations (mended in 9.0)",
                facts.version
            );
            let fix = "restart the VM under QEMU 9.0 or later, or move it with --verify";
            findings.push(warns(FindingCode::DirtyTracking, cause, fix));
        }
        _ => {}
    }
    let sees_host = vm.spec().needs().host_cpu;
    (findings, if sees_host { host::cpu_features() } else { Vec::new() })
}
