//! Why requests are refused: names that programs read, and the exit code of each.

use std::{fmt, str::FromStr};

use crate::{result::ResultCode, word::UnknownWord};

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $result:ident;)*) => {
        /// Why a request was refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $variant,)* }

        impl Reason {
            /// Every reason there is.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The stable name in messages and JSON.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The exit code of a command that was refused for it.
            pub const fn result(self) -> ResultCode {
                match self { $(Self::$variant => ResultCode::$result,)* }
            }
        }
    };
}

reasons! {
    /// A field is missing or malformed.
    InvalidArgument = "INVALID_ARGUMENT", Usage;
    /// No host has this name.
    UnknownHost = "UNKNOWN_HOST", Usage;
    /// Neither a rack nor a host has this name.
    UnknownPlace = "UNKNOWN_PLACE", Usage;
    /// No VM has this name.
    UnknownVm = "UNKNOWN_VM", Usage;
    /// No evacuation has this id.
    UnknownEvacuation = "UNKNOWN_EVACUATION", Usage;
    /// No migration has this id.
    UnknownMigration = "UNKNOWN_MIGRATION", Usage;
    /// The inventory has no such link.
    UnknownLink = "UNKNOWN_LINK", Usage;
    /// Hosts that would have to take VMs are cordoned.
    HostCordoned = "HOST_CORDONED", NotFeasible;
    /// A planned migration is no longer as it was planned; the message says what has changed.
    PlanChanged = "PLAN_CHANGED", NotFeasible;
    /// The evacuation has not ended yet.
    EvacuationRunning = "EVACUATION_RUNNING", NotFeasible;
    /// The evacuation has ended.
    EvacuationEnded = "EVACUATION_ENDED", NotFeasible;
    /// The inventory file has a mistake; the message says where.
    InvalidInventory = "INVALID_INVENTORY", Usage;
    /// Sources and targets overlap, or the VM is there already.
    SameHost = "SAME_HOST", Usage;
    /// The VM takes part in another migration.
    VmBusy = "VM_BUSY", NotFeasible;
    /// The VM cannot be moved: it does not run, or its agent does not say how to start it elsewhere.
    VmNotMovable = "VM_NOT_MOVABLE", NotFeasible;
    /// The agent of a host that is needed is not connected.
    HostDisconnected = "HOST_DISCONNECTED", NotFeasible;
    /// The agent of a host that is to be declared dead is connected.
    HostConnected = "HOST_CONNECTED", NotFeasible;
    /// The host was not declared dead, or VMs or migrations still name it.
    HostInUse = "HOST_IN_USE", NotFeasible;
    /// Another installation speaks for the host, or the host was declared dead.
    InstallationRefused = "INSTALLATION_REFUSED", Unreachable;
    /// The VM may run: it cannot be forgotten.
    VmMayRun = "VM_MAY_RUN", NotFeasible;
    /// The agent of the VM's owner does not report the spec that was to be accepted.
    SpecDiffers = "SPEC_DIFFERS", NotFeasible;
    /// The targets lack the memory.
    DoesNotFit = "DOES_NOT_FIT", NotFeasible;
    /// VMs of one anti-affinity group would have to share a host.
    KeptApart = "KEPT_APART", NotFeasible;
    /// There is nothing to move.
    NothingToMove = "NOTHING_TO_MOVE", Done;
    /// No VM can be moved, and the sources are not known to be empty.
    NotEmpty = "NOT_EMPTY", Incomplete;
    /// The request id was used for another request.
    RequestIdReused = "REQUEST_ID_REUSED", Usage;
    /// This coordinator does not lead.
    NotLeader = "NOT_LEADER", Unreachable;
    /// No coordinator has this id.
    UnknownNode = "UNKNOWN_NODE", Usage;
    /// The cluster's members cannot change like this now.
    MembershipBusy = "MEMBERSHIP_BUSY", NotFeasible;
    /// The certificate does not allow the request.
    NotPermitted = "NOT_PERMITTED", Unreachable;
    /// The token was used, has expired, or is not known.
    TokenRefused = "TOKEN_REFUSED", Unreachable;
    /// This coordinator cannot make certificates.
    NoAuthority = "NO_AUTHORITY", NotFeasible;
    /// As many tokens wait to be used as the coordinator keeps.
    TooManyTokens = "TOO_MANY_TOKENS", NotFeasible;
    /// The certificates of this name are expelled from the site.
    Expelled = "EXPELLED", Unreachable;
    /// As many certificates are expelled as every program keeps.
    TooManyExpelled = "TOO_MANY_EXPELLED", NotFeasible;
    /// The coordinators that would be left and answer are no majority.
    NoMajority = "NO_MAJORITY", NotFeasible;
    /// The coordinator is shutting down.
    ShuttingDown = "SHUTTING_DOWN", Unreachable;
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Reason {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == text).ok_or(UnknownWord)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_distinct() {
        for (at, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(reason.as_str().parse(), Ok(*reason));
            assert!(Reason::ALL[..at].iter().all(|other| other.as_str() != reason.as_str()));
        }
        assert_eq!("NO_SUCH_REASON".parse::<Reason>(), Err(UnknownWord));
    }
}
