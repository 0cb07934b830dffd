//! How far migrations and evacuations are, and what VMs do.

use crate::{End, result::ResultCode, word::words};

words! {
    /// What a VM's QEMU does, as its agent sees it.
    #[serde(rename_all = "snake_case")]
    RunState {
        /// The guest runs, or will run by itself.
        Running = "running",
        /// The VM's user stopped it.
        Paused = "paused",
        /// The target's copy is not (or not known to be) loaded.
        Incoming = "incoming",
        /// The target's copy is loaded and paused.
        Loaded = "loaded",
        /// The source's copy has switched over: it never runs again by itself.
        MovedOut = "moved_out",
        /// The QEMU process is gone.
        Dead = "dead",
        /// The QEMU process does not answer a restarted agent: it may be in any of these states.
        Unknown = "unknown",
    }

    /// A side of a migration.
    #[serde(rename_all = "snake_case")]
    Side {
        /// The VM leaves.
        Source = "source",
        /// The VM arrives.
        Target = "target",
    }

    /// How far a migration is.
    #[serde(rename_all = "snake_case")]
    Phase {
        /// The migration has not begun.
        Queued = "queued",
        /// The target prepares.
        Preparing = "preparing",
        /// Pages move while the guest runs.
        Copying = "copying",
        /// Both sides hash the guest's memory.
        Verifying = "verifying",
        /// The guest stops at the source and starts at the target.
        Switching = "switching",
        /// The guest runs at the target; the source cleans up.
        Announcing = "announcing",
        /// The VM has moved.
        Done = "done",
        /// The migration stops as asked.
        Cancelling = "cancelling",
        /// The VM stayed with its source.
        RolledBack = "rolled_back",
        /// The VM is lost.
        Failed = "failed",
        /// The VM is paused with a recorded owner, until its agent comes back.
        PausedRecoverable = "paused_recoverable",
        /// The commit stands and the source is silent, or a host did what no order told it.
        OwnerUnknown = "owner_unknown",
    }

    /// How far an evacuation is.
    #[serde(rename_all = "snake_case")]
    EvacuationState {
        /// The evacuation moves VMs.
        Running = "running",
        /// No migration starts; those under way finish.
        Paused = "paused",
        /// The evacuation stops as asked.
        Cancelling = "cancelling",
        /// Every VM moved, and nothing is left on the sources.
        Done = "done",
        /// The evacuation ended, and its sources are not known to be empty.
        Incomplete = "incomplete",
        /// The evacuation was cancelled, with VMs left behind.
        Cancelled = "cancelled",
    }

    /// Why a migration waits.
    #[serde(rename_all = "snake_case")]
    WaitCode {
        /// As many migrations are under way as may.
        FleetBusy = "fleet_busy",
        /// As many migrations leave the source as may.
        SourceBusy = "source_busy",
        /// As many migrations reach the target as may.
        TargetBusy = "target_busy",
        /// The source's agent is not connected.
        SourceDisconnected = "source_disconnected",
        /// The target's agent is not connected.
        TargetDisconnected = "target_disconnected",
        /// Every switchover slot is in use.
        SwitchoverSlot = "switchover_slot",
        /// The target has not yet confirmed that an earlier copy is gone.
        TargetDiscard = "target_discard",
        /// The target lacks the memory at the moment.
        NoRoom = "no_room",
        /// The VM does not run at the moment.
        VmNotRunning = "vm_not_running",
        /// As many migrations cross a link as its limit allows.
        LinkFull = "link_full",
        /// The evacuation is paused.
        EvacuationPaused = "evacuation_paused",
        /// The target is cordoned.
        TargetCordoned = "target_cordoned",
        /// An attempt was rolled back; the next one waits for a while.
        RetryBackoff = "retry_backoff",
        /// Another VM of its anti-affinity group is at the target.
        AntiAffinity = "anti_affinity",
    }

    /// How sure the ownership of a VM is.
    #[serde(rename_all = "snake_case")]
    Ownership {
        /// The owner alone may run the VM.
        Stable = "stable",
        /// The source owns the VM while it moves.
        Moving = "moving",
        /// The target owns the VM, and may not run it yet.
        Committed = "committed",
    }

    /// What a VM does, as its owner's agent says.
    #[serde(rename_all = "snake_case")]
    Condition {
        /// The guest runs.
        Running = "running",
        /// The VM's user stopped it.
        Paused = "paused",
        /// The VM is paused for its switchover.
        Switching = "switching",
        /// The VM's QEMU is gone.
        Dead = "dead",
        /// The owner's agent is not connected, or cannot reach its QEMU.
        Unknown = "unknown",
    }

    /// Whether the inventory lists a host.
    #[serde(rename_all = "snake_case")]
    Listed {
        /// The inventory lists the host in the rack that its agent says.
        Yes = "yes",
        /// The inventory does not list the host.
        No = "no",
        /// The inventory lists the host in another rack than its agent says.
        Elsewhere = "elsewhere",
    }

    /// The part of a copy of a VM.
    #[serde(rename_all = "snake_case")]
    CopyRole {
        /// The copy is that of the owner, and the VM does not move.
        Owner = "owner",
        /// The copy leaves.
        Source = "source",
        /// The copy arrives.
        Target = "target",
        /// No migration takes care of the copy.
        Other = "other",
    }

    /// The part of a coordinator in its cluster.
    #[serde(rename_all = "snake_case")]
    NodeRole {
        /// The coordinator leads.
        Leader = "leader",
        /// The coordinator follows and votes.
        Follower = "follower",
        /// The coordinator has the log and does not vote.
        Learner = "learner",
    }

    /// What became of an act.
    #[serde(rename_all = "snake_case")]
    EventOutcome {
        /// The act was done, or its work has begun.
        Accepted = "accepted",
        /// The act was refused, and has changed nothing.
        Refused = "refused",
        /// The event has happened without a request.
        Happened = "happened",
    }
}

impl Phase {
    /// Whether the migration is over.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::RolledBack | Self::Failed)
    }

    /// Whether the migration waits for a silent agent, with its VM stopped or its owner uncertain: an operator may have to
    /// bring that agent back.
    pub const fn is_stuck(self) -> bool {
        matches!(self, Self::PausedRecoverable | Self::OwnerUnknown)
    }

    /// The exit code of a single migration in this phase, which ended like this if it is over.
    pub fn result(self, end: Option<End>) -> ResultCode {
        match self {
            Self::Done => ResultCode::Done,
            Self::RolledBack if end == Some(End::Cancelled) => ResultCode::Cancelled,
            Self::RolledBack => ResultCode::Incomplete,
            Self::Failed | Self::PausedRecoverable | Self::OwnerUnknown => {
                ResultCode::OperatorNeeded
            }
            _ => ResultCode::StillRunning,
        }
    }
}

impl EvacuationState {
    /// Whether the evacuation has ended.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Incomplete | Self::Cancelled)
    }

    /// The exit code of an evacuation in this state; of one that has ended, without what became of single VMs.
    pub const fn result(self) -> ResultCode {
        match self {
            Self::Running | Self::Paused | Self::Cancelling => ResultCode::StillRunning,
            Self::Done => ResultCode::Done,
            Self::Incomplete => ResultCode::Incomplete,
            Self::Cancelled => ResultCode::Cancelled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Word;

    #[test]
    fn a_migration_ends_with_its_code() {
        assert_eq!(Phase::Done.result(Some(End::Moved)), ResultCode::Done);
        let back = |end| Phase::RolledBack.result(end);
        assert_eq!(back(Some(End::Cancelled)), ResultCode::Cancelled);
        assert_eq!(back(Some(End::RolledBack)), ResultCode::Incomplete);
        assert_eq!(back(None), ResultCode::Incomplete);
        assert_eq!(Phase::Failed.result(Some(End::Lost)), ResultCode::OperatorNeeded);
        assert_eq!(Phase::Copying.result(None), ResultCode::StillRunning);
    }

    #[test]
    fn an_evacuation_that_is_not_over_goes_on() {
        use EvacuationState::{Cancelled, Cancelling, Done, Incomplete, Paused, Running};
        for state in [Running, Paused, Cancelling, Done, Incomplete, Cancelled] {
            assert_eq!(state.result() == ResultCode::StillRunning, !state.is_over(), "{state}");
        }
    }

    #[test]
    fn a_stuck_migration_is_not_over_and_needs_an_operator() {
        for &phase in Phase::ALL.iter().filter(|phase| phase.is_stuck()) {
            assert!(!phase.is_over(), "{phase}");
            assert_eq!(phase.result(None), ResultCode::OperatorNeeded, "{phase}");
        }
    }
}
