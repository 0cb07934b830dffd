//! What events say was done or has happened at the site.

use crate::word::words;

words! {
    /// What was done at the site, or has happened there: the action of an event.
    #[serde(rename_all = "kebab-case")]
    Action {
        /// VMs of racks or hosts are moved off (`evacuate`, `apply`).
        Evacuate = "evacuate",
        /// VMs of an evacuation go back.
        Restore = "restore",
        /// One VM is moved.
        Migrate = "migrate",
        /// An evacuation or a migration is cancelled.
        Cancel = "cancel",
        /// An evacuation starts no further migrations.
        Pause = "pause",
        /// A paused evacuation goes on.
        Resume = "resume",
        /// A VM is stopped for as long as its move takes.
        ForceSwitchover = "force-switchover",
        /// What migrations may send over links is changed.
        LimitSet = "limit-set",
        /// Hosts take no further VMs.
        Cordon = "cordon",
        /// Hosts take VMs again.
        Uncordon = "uncordon",
        /// Leftovers of migrations are removed (`doctor --repair`).
        Repair = "repair",
        /// The inventory is replaced.
        InventoryImport = "inventory-import",
        /// A host is said to be dead for good.
        DeclareDead = "declare-dead",
        /// The record of a host is removed.
        HostForget = "host-forget",
        /// The record of a VM is removed.
        VmForget = "vm-forget",
        /// The spec that a VM's agent reports is registered in place of the former one.
        VmAcceptSpec = "vm-accept-spec",
        /// A coordinator joins the cluster.
        ClusterAdd = "cluster-add",
        /// A coordinator leaves the cluster.
        ClusterRemove = "cluster-remove",
        /// A copy of the log is handed out.
        ClusterBackup = "cluster-backup",
        /// A token is made by which a host may join.
        TokenCreate = "token-create",
        /// A host exchanges its token for a certificate.
        Join = "join",
        /// A certificate is renewed by its holder.
        CertificateRenew = "certificate-renew",
        /// A certificate ends before it expires.
        CertificateExpel = "certificate-expel",
        /// An expelled certificate is good again.
        CertificateReadmit = "certificate-readmit",
        /// A method is called that the caller's role does not allow.
        Call = "call",
        /// An agent's stream is refused.
        Connect = "connect",
        /// An evacuation is over.
        EvacuationEnded = "evacuation-ended",
        /// A VM's QEMU died in its migration.
        VmLost = "vm-lost",
        /// Source and target of a migration contradict each other.
        OwnerUncertain = "owner-uncertain",
        /// The owner of a VM that was uncertain is known.
        OwnerSettled = "owner-settled",
        /// Another installation of an agent takes the place of a dead host's.
        InstallationAdmitted = "installation-admitted",
        /// Requests were refused that were only counted.
        Refusals = "refusals",
        /// Acts are recorded from here on.
        RecordBegins = "record-begins",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Word;

    #[test]
    fn the_manual_has_every_action_and_no_other() {
        let manual = include_str!("../../../docs/operations.md");
        let (_, table) =
            manual.split_once("| action | what was done |\n|---|---|\n").expect("a table");
        let (table, _) = table.split_once("\n\n").expect("an end");
        let rows: Vec<String> = Action::ALL
            .iter()
            .map(|one| format!("| `{one}` | {} |", one.about().trim_end_matches('.')))
            .collect();
        assert_eq!(table.lines().collect::<Vec<_>>(), rows);
    }
}
