//! Refusals that a program can read: every error status carries a `google.rpc.ErrorInfo` with a reason.

use std::collections::HashMap;

use rackferry_model::Reason;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::door::Invalid;

/// Domain of every [`Reason`], as `google.rpc.ErrorInfo` wants one.
const DOMAIN: &str = "rackferry";

/// The gRPC code a reason travels with.
pub const fn grpc_code(reason: Reason) -> Code {
    match reason {
        Reason::InvalidArgument | Reason::InvalidInventory | Reason::SameHost => {
            Code::InvalidArgument
        }
        Reason::UnknownHost
        | Reason::UnknownPlace
        | Reason::UnknownVm
        | Reason::UnknownEvacuation
        | Reason::UnknownMigration
        | Reason::UnknownLink
        | Reason::UnknownNode => Code::NotFound,
        Reason::HostCordoned
        | Reason::PlanChanged
        | Reason::EvacuationRunning
        | Reason::EvacuationEnded
        | Reason::VmBusy
        | Reason::VmNotMovable
        | Reason::HostDisconnected
        | Reason::HostConnected
        | Reason::HostInUse
        | Reason::InstallationRefused
        | Reason::VmMayRun
        | Reason::SpecDiffers
        | Reason::DoesNotFit
        | Reason::KeptApart
        | Reason::NothingToMove
        | Reason::NotEmpty
        | Reason::MembershipBusy
        | Reason::NoMajority
        | Reason::NoAuthority => Code::FailedPrecondition,
        Reason::RequestIdReused => Code::AlreadyExists,
        Reason::NotLeader | Reason::ShuttingDown => Code::Unavailable,
        Reason::NotPermitted | Reason::TokenRefused | Reason::Expelled => Code::PermissionDenied,
        Reason::TooManyTokens | Reason::TooManyExpelled => Code::ResourceExhausted,
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
    Status::with_error_details(grpc_code(reason), message, details)
}

impl From<Invalid> for Status {
    fn from(invalid: Invalid) -> Self {
        refuse(Reason::InvalidArgument, invalid.to_string())
    }
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
            assert_eq!(status.code(), grpc_code(reason));
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
