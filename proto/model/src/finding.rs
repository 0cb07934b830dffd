//! What keeps VMs from moving, and what is wrong at a site.

use crate::{result::ResultCode, word::words};

words! {
    /// How serious a finding is.
    #[serde(rename_all = "snake_case")]
    Severity {
        /// The VM cannot move.
        Blocks = "blocks",
        /// The VM can move; its user should know.
        Warns = "warns",
    }

    /// What a preflight check looks at.
    #[serde(rename_all = "snake_case")]
    FindingCode {
        /// The VM does not run, or moves already.
        VmState = "vm_state",
        /// QEMU says why the VM cannot be migrated.
        QemuBlocks = "qemu_blocks",
        /// The target has a VM or a copy of that name.
        NameTaken = "name_taken",
        /// The target lacks the memory.
        Memory = "memory",
        /// The target lacks the huge pages.
        HugePages = "huge_pages",
        /// The target's QEMU is missing, or does not start.
        QemuMissing = "qemu_missing",
        /// The target's QEMU does not know the machine type.
        MachineType = "machine_type",
        /// The target's QEMU is older than the VM's.
        QemuOlder = "qemu_older",
        /// The target has no KVM.
        Kvm = "kvm",
        /// The target's CPU lacks features.
        CpuFeatures = "cpu_features",
        /// The target lacks a disk, a kernel or an initrd.
        File = "file",
        /// The target lacks a tap device.
        Network = "network",
        /// The host's clock differs from the coordinator's.
        Clock = "clock",
        /// The agents' page protocols differ.
        Protocol = "protocol",
        /// The agent is not connected, or did not answer.
        Silent = "silent",
        /// The target cannot read the VM's spec.
        Spec = "spec",
        /// The VM's QEMU loses writes during migrations.
        DirtyTracking = "dirty_tracking",
        /// The target's policy does not allow what the VM's spec has.
        Policy = "policy",
    }

    /// What is wrong at a site.
    #[serde(rename_all = "snake_case")]
    ProblemCode {
        /// Two hosts may each have the VM, and neither is certain to be its owner.
        OwnerUncertain = "owner_uncertain",
        /// The VM runs where it should not.
        Astray = "astray",
        /// The VM's owner has it, and it does not run.
        Halted = "halted",
        /// The agent of the VM's owner reports another spec than the registered one.
        VmSpecChanged = "vm_spec_changed",
        /// The VM's QEMU does not answer its agent.
        QemuSilent = "qemu_silent",
        /// A copy that belongs to no migration under way.
        Leftover = "leftover",
        /// The host's agent is not connected.
        AgentAway = "agent_away",
        /// The agent's version differs from the coordinator's.
        AgentVersion = "agent_version",
        /// The host is in the inventory, and its agent was never connected.
        HostMissing = "host_missing",
        /// The host is not in the inventory.
        HostUnlisted = "host_unlisted",
        /// The host is in another rack than the inventory says.
        HostElsewhere = "host_elsewhere",
        /// Another installation wants to speak for the host: a cloned image, or a new state directory.
        HostDuplicate = "host_duplicate",
        /// The host's clock differs from the coordinator's.
        Clock = "clock",
        /// The coordinator's own certificate expires soon.
        Certificate = "certificate",
    }
}

impl ProblemCode {
    /// Whether a VM is stopped, or it is uncertain which host may run it.
    pub const fn needs_operator(self) -> bool {
        matches!(self, Self::OwnerUncertain | Self::Astray | Self::Halted | Self::HostDuplicate)
    }

    /// The exit code of `doctor` for what it found.
    pub fn result(found: impl IntoIterator<Item = Self>) -> ResultCode {
        let mut code = ResultCode::Done;
        for problem in found {
            if problem.needs_operator() {
                return ResultCode::OperatorNeeded;
            }
            code = ResultCode::Incomplete;
        }
        code
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_have_their_codes() {
        use ProblemCode::{Astray, Halted, Leftover, OwnerUncertain};
        assert_eq!(ProblemCode::result([]), ResultCode::Done);
        assert_eq!(ProblemCode::result([Leftover]), ResultCode::Incomplete);
        for code in [OwnerUncertain, Astray, Halted] {
            assert_eq!(ProblemCode::result([Leftover, code]), ResultCode::OperatorNeeded);
        }
    }
}
