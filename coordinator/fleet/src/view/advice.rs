//! What an operator does about a problem: commands that exist, with their arguments and the host they run on.

use crate::{HostName, VmName};

/// Two copies, of which one must go.
pub(super) fn two_copies(vm: &VmName, first: &HostName, second: &HostName) -> String {
    format!(
        "compare the copies, on {first} and on {second}: rackferry-agent vm list; end the one that is not to go on, on \
         its host: rackferry-agent vm destroy {vm} (--force if it takes part in a migration)"
    )
}

/// A copy that has to go if it is not needed. `marked`: its agent still counts it to a migration.
pub(super) fn unneeded_copy(vm: &VmName, host: &HostName, marked: bool) -> String {
    let force = if marked { " --force" } else { "" };
    format!(
        "if the VM runs elsewhere or is not needed, on {host}: rackferry-agent vm destroy {vm}{force}"
    )
}

/// An agent that does not run.
pub(super) fn start_agent(host: &HostName) -> String {
    format!("on {host}: systemctl start rackferry-agent")
}

/// An agent that is not connected, for whatever reason.
pub(super) fn find_agent(host: &HostName) -> String {
    format!("{}; if it runs: journalctl -u rackferry-agent", start_agent(host))
}

/// The only copy of a VM stands still, and reconciliation does not help.
pub(super) fn only_copy(host: &HostName) -> String {
    format!("wait 10 s; if it stays so, on {host}: journalctl -u rackferry-agent")
}

/// A QEMU that does not answer.
pub(super) fn silent_qemu(vm: &VmName, host: &HostName) -> String {
    format!(
        "wait: its agent asks it every second; if it stays so, read vms/{vm}/qemu.log in the state_dir of {host}"
    )
}

/// Two versions.
pub(super) fn other_version(host: &HostName) -> String {
    format!(
        "install the newer version, then on the coordinator: systemctl restart rackferry-coordinator, or on {host}: \
         systemctl restart rackferry-agent"
    )
}

/// A host that the inventory does not have.
pub(super) fn list_host() -> String {
    "add it to the inventory file: rackferry inventory import FILE".to_owned()
}

/// A host in another rack than the inventory says.
pub(super) fn other_rack(host: &HostName) -> String {
    format!(
        "correct the inventory file: rackferry inventory import FILE; or correct `rack` in the settings of the agent, \
         on {host}: systemctl restart rackferry-agent"
    )
}

/// A host that the inventory has, and that was never here.
pub(super) fn missing_host(host: &HostName) -> String {
    format!(
        "let it join: rackferry token create {host}, then on {host}: rackferry-agent join; or take it out of the \
         inventory file: rackferry inventory import FILE"
    )
}
