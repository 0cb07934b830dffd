//! Could a VM leave?

use rackferry_migrator::qmp::QmpError;
use rackferry_proto::v1::{self, FindingCode, Severity};

use super::{blocks, finding, host};
use crate::agent::Agent;
use crate::vm::VmState;

/// What the VM's CPU has.
#[derive(Debug, Default)]
pub struct Cpu {
    /// As the kernel names them, if the guest sees the host's own: for targets of an earlier version.
    pub features: Vec<String>,
    /// As QEMU names them; none if it does not say.
    pub properties: Vec<String>,
}

/// What speaks against it, and what its CPU has.
pub async fn findings(agent: &Agent, name: &str) -> (Vec<v1::Finding>, Cpu) {
    let Ok(vm) = agent.vms().get(name) else {
        let cause = format!("there is no VM {name} on {}", agent.config().host);
        let fix = "look where it is: rackferry vm list";
        return (vec![blocks(FindingCode::VmState, cause, fix)], Cpu::default());
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
            let allowed = agent.config().allow_lost_writes;
            let severity = if allowed { Severity::Warns } else { Severity::Blocks };
            findings.push(finding(severity, FindingCode::DirtyTracking, cause, fix.to_owned()));
        }
        _ => {}
    }
    let needs = vm.spec().needs();
    let features = if needs.host_cpu { host::cpu_features() } else { Vec::new() };
    let properties = if vm.spec().attach().is_some() {
        // Of it the spec alone is known.
        Vec::new()
    } else {
        agent.cpu_properties(&needs).await.unwrap_or_default()
    };
    (findings, Cpu { features, properties })
}
