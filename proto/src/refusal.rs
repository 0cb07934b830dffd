//! Refusals that a program can read: every error status carries a `google.rpc.ErrorInfo` with a reason.

use std::{collections::HashMap, fmt, str::FromStr};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Domain of every [`Reason`], as `google.rpc.ErrorInfo` wants one.
const DOMAIN: &str = "rackferry";

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $code:ident;)*) => {
        /// Why a request was refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $variant,)* }

        impl Reason {
            /// Every reason there is.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The stable name on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The gRPC code this reason travels with.
            pub const fn code(self) -> Code {
                match self { $(Self::$variant => Code::$code,)* }
            }
        }
    };
}

reasons! {
    /// A field is missing or malformed.
    InvalidArgument = "INVALID_ARGUMENT", InvalidArgument;
    /// No host has this name.
    UnknownHost = "UNKNOWN_HOST", NotFound;
    /// Neither a rack nor a host has this name.
    UnknownPlace = "UNKNOWN_PLACE", NotFound;
    /// No VM has this name.
    UnknownVm = "UNKNOWN_VM", NotFound;
    /// No evacuation has this id.
    UnknownEvacuation = "UNKNOWN_EVACUATION", NotFound;
    /// No migration has this id.
    UnknownMigration = "UNKNOWN_MIGRATION", NotFound;
    /// The inventory has no such link.
    UnknownLink = "UNKNOWN_LINK", NotFound;
    /// Hosts that would have to take VMs are cordoned.
    HostCordoned = "HOST_CORDONED", FailedPrecondition;
    /// A planned move is not as it was planned any more; the message says what has changed.
    PlanChanged = "PLAN_CHANGED", FailedPrecondition;
    /// The evacuation has not ended yet.
    EvacuationRunning = "EVACUATION_RUNNING", FailedPrecondition;
    /// The evacuation has ended.
    EvacuationEnded = "EVACUATION_ENDED", FailedPrecondition;
    /// The inventory file has a mistake; the message says where.
    InvalidInventory = "INVALID_INVENTORY", InvalidArgument;
    /// Sources and targets overlap, or the VM is there already.
    SameHost = "SAME_HOST", InvalidArgument;
    /// The VM is part of another move.
    VmBusy = "VM_BUSY", FailedPrecondition;
    /// The VM cannot be moved: it does not run, or its agent does not say how to start it elsewhere.
    VmNotMovable = "VM_NOT_MOVABLE", FailedPrecondition;
    /// A host that is needed has no connected agent.
    HostDisconnected = "HOST_DISCONNECTED", FailedPrecondition;
    /// The targets have not the memory.
    DoesNotFit = "DOES_NOT_FIT", FailedPrecondition;
    /// VMs of one anti-affinity group would have to share a host.
    KeptApart = "KEPT_APART", FailedPrecondition;
    /// There is nothing to move.
    NothingToMove = "NOTHING_TO_MOVE", FailedPrecondition;
    /// The request id was used for something else.
    RequestIdReused = "REQUEST_ID_REUSED", AlreadyExists;
    /// This coordinator does not lead. The leader's address, if known, is in [`leader_of`] the status.
    NotLeader = "NOT_LEADER", Unavailable;
    /// No coordinator has this id.
    UnknownNode = "UNKNOWN_NODE", NotFound;
    /// The coordinators cannot change like this now.
    MembershipBusy = "MEMBERSHIP_BUSY", FailedPrecondition;
    /// The certificate does not allow it.
    NotPermitted = "NOT_PERMITTED", PermissionDenied;
    /// The token was used, has expired, or never was.
    TokenRefused = "TOKEN_REFUSED", PermissionDenied;
    /// This coordinator cannot make certificates.
    NoAuthority = "NO_AUTHORITY", FailedPrecondition;
    /// More tokens wait to be used than are kept.
    TooManyTokens = "TOO_MANY_TOKENS", ResourceExhausted;
    /// The coordinator is going down.
    ShuttingDown = "SHUTTING_DOWN", Unavailable;
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no reason of this version.
#[derive(Debug, PartialEq, Eq)]
pub struct UnknownReason;

impl FromStr for Reason {
    type Err = UnknownReason;

    fn from_str(text: &str) -> Result<Self, UnknownReason> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == text).ok_or(UnknownReason)
    }
}

/// The longest message of a refusal, in bytes. It travels twice in the headers of an answer, encoded; clients take 16 KiB
/// of them.
const MESSAGE_LIMIT: usize = 3000;

/// What stands for the rest of a message.
const CUT: &str = " ...";

/// The status that refuses a request for `reason`; `message` is for people, and is cut after 3000 bytes.
pub fn refuse(reason: Reason, message: impl Into<String>) -> Status {
    let mut message = message.into();
    if message.len() > MESSAGE_LIMIT {
        let whole = |end: &usize| message.is_char_boundary(*end);
        let end = (0..=MESSAGE_LIMIT - CUT.len()).rev().find(whole).unwrap_or_default();
        message.truncate(end);
        message.push_str(CUT);
    }
    let details = ErrorDetails::with_error_info(reason.as_str(), DOMAIN, HashMap::new());
    Status::with_error_details(reason.code(), message, details)
}

/// The reason a status carries, if it is one of ours.
pub fn reason_of(status: &Status) -> Option<Reason> {
    let info = status.get_details_error_info()?;
    if info.domain != DOMAIN {
        return None;
    }
    info.reason.parse().ok()
}

/// The metadata that leads clients to the leader.
const LEADER: &str = "rackferry-leader";

/// The status of a coordinator that does not lead; `leader` is the address of the one that does.
pub fn refuse_not_leader(leader: Option<&str>) -> Status {
    let message = match leader {
        Some(leader) => format!("the leader is at {leader}"),
        None => "no coordinator leads at the moment".to_owned(),
    };
    let mut status = refuse(Reason::NotLeader, message);
    // An address that is no header cannot be dialled either.
    if let Some(value) = leader.and_then(|leader| leader.parse().ok()) {
        status.metadata_mut().insert(LEADER, value);
    }
    status
}

/// The leader's address (`host:port`), if a status names it.
pub fn leader_of(status: &Status) -> Option<&str> {
    status.metadata().get(LEADER)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_read_back() {
        for &reason in Reason::ALL {
            let status = refuse(reason, "why");
            assert_eq!(reason_of(&status), Some(reason));
            assert_eq!(status.code(), reason.code());
            assert_eq!(status.message(), "why");
        }
    }

    #[test]
    fn a_long_message_is_cut() {
        for unit in ["x", "\u{fc}", "\u{1f980}"] {
            let status = refuse(Reason::UnknownVm, unit.repeat(10_000));
            let message = status.message();
            assert!(message.len() <= MESSAGE_LIMIT && message.len() > MESSAGE_LIMIT - 4, "{unit}");
            assert!(message.ends_with(CUT));
            assert_eq!(reason_of(&status), Some(Reason::UnknownVm));
        }
        let exact = "x".repeat(MESSAGE_LIMIT);
        assert_eq!(refuse(Reason::UnknownVm, exact.clone()).message(), exact);
    }

    #[test]
    fn names_are_distinct() {
        let names: std::collections::HashSet<_> =
            Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
    }

    #[test]
    fn the_leader_is_named() {
        let status = refuse_not_leader(Some("10.0.0.1:7400"));
        assert_eq!(reason_of(&status), Some(Reason::NotLeader));
        assert_eq!(leader_of(&status), Some("10.0.0.1:7400"));
        assert_eq!(leader_of(&refuse_not_leader(None)), None);
    }

    #[test]
    fn a_foreign_status_has_no_reason() {
        assert_eq!(reason_of(&Status::unavailable("gone")), None);
    }
}
