//! How the program ends.

use std::process::ExitCode;

use rackferry_proto::{Reason, reason_of, v1};
use rackferry_tls::authority::AuthorityError;
use thiserror::Error;
use tonic::Status;

/// Exit codes; the same numbers are `result_code` in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// Done; of an evacuation: every VM moved.
    Done = 0,
    /// Something nobody expected.
    Unexpected = 1,
    /// The command is wrong, or names what is not there.
    Usage = 2,
    /// It cannot be done now.
    NotFeasible = 3,
    /// Finished, with VMs left behind; all of them run somewhere.
    Incomplete = 4,
    /// Cancelled.
    Cancelled = 5,
    /// No longer waited for; the work goes on.
    StillRunning = 6,
    /// No coordinator can be reached, or it does not let us in.
    Unreachable = 7,
    /// A VM is paused, lost, or its owner is uncertain.
    OperatorNeeded = 8,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

impl Code {
    /// Every code, in order of the numbers.
    pub const ALL: [Self; 9] = [
        Self::Done,
        Self::Unexpected,
        Self::Usage,
        Self::NotFeasible,
        Self::Incomplete,
        Self::Cancelled,
        Self::StillRunning,
        Self::Unreachable,
        Self::OperatorNeeded,
    ];

    /// What it means, for the man page and for docs/operations.md; Markdown without blocks.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done; of an evacuation: every VM moved, or there was nothing to move",
            Self::Unexpected => "unexpected error",
            Self::Usage => {
                "wrong usage, a name that does not exist, an inventory file with mistakes, or a plan file that was changed"
            }
            Self::NotFeasible => {
                "it cannot be done now: VM busy or not movable, agent not connected, does not fit, target cordoned, \
                 evacuation ended or not yet, another change of the cluster under way, not as in the plan any more; of \
                 `check` and `plan`: a VM cannot move"
            }
            Self::Incomplete => {
                "finished with VMs left behind; all of them run somewhere; of `doctor`: there are problems"
            }
            Self::Cancelled => "cancelled, or declined at the prompt",
            Self::StillRunning => "`--timeout` or `--deadline` is over; the work goes on",
            Self::Unreachable => {
                "no coordinator can be reached, none leads for 10 s, or it does not let us in: no certificate, one \
                 that is no good, or one that does not allow this"
            }
            Self::OperatorNeeded => {
                "operator needed: a VM is lost, paused, or its owner is uncertain"
            }
        }
    }

    /// How an evacuation ended.
    pub fn of_evacuation(evacuation: &v1::Evacuation) -> Self {
        match evacuation.result_code {
            0 => Self::Done,
            4 => Self::Incomplete,
            5 => Self::Cancelled,
            8 => Self::OperatorNeeded,
            _ => Self::Unexpected,
        }
    }

    /// Whether VMs can move.
    pub fn of_checks(vms: &[v1::VmCheck]) -> Self {
        if vms.iter().all(|vm| vm.can_move) { Self::Done } else { Self::NotFeasible }
    }

    /// Whether something is not as it should be.
    pub fn of_problems(problems: &[v1::Problem]) -> Self {
        match problems {
            [] => Self::Done,
            all if all.iter().any(needs_operator) => Self::OperatorNeeded,
            _ => Self::Incomplete,
        }
    }

    /// How a single move ended.
    pub fn of_migration(migration: &v1::Migration) -> Self {
        match migration.phase() {
            v1::Phase::Done => Self::Done,
            v1::Phase::RolledBack if migration.reason == "cancelled" => Self::Cancelled,
            v1::Phase::RolledBack => Self::Incomplete,
            v1::Phase::Failed | v1::Phase::PausedRecoverable | v1::Phase::OwnerUnknown => {
                Self::OperatorNeeded
            }
            _ => Self::StillRunning,
        }
    }
}

/// Whether a VM is stopped, or nobody knows for certain who may run it.
pub fn needs_operator(problem: &v1::Problem) -> bool {
    use v1::ProblemCode::{Astray, Halted, OwnerUncertain};
    matches!(problem.code(), OwnerUncertain | Astray | Halted)
}

/// Why a command did not do what it should.
#[derive(Debug, Error)]
pub enum Failure {
    /// There is no connection.
    #[error("cannot reach the coordinator at {address}")]
    Unreachable {
        /// Where it should be.
        address: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// There are coordinators, and none of them leads.
    #[error("no coordinator leads at the moment; asked {0}")]
    NoLeader(String),
    /// The address is none.
    #[error("{0} is not an address of a coordinator")]
    Address(String),
    /// The coordinator refused.
    #[error("{}", .0.message())]
    Refused(Box<Status>),
    /// The answer has a hole.
    #[error("the coordinator's answer has no {0}")]
    Answer(&'static str),
    /// The name is neither an evacuation's nor a migration's.
    #[error("{0} is neither an evacuation (evac-N) nor a migration (mig-N)")]
    Name(String),
    /// The name is no evacuation's.
    #[error("{0} is no evacuation (evac-N)")]
    Evacuation(String),
    /// The name is no migration's.
    #[error("{0} is no migration (mig-N)")]
    Migration(String),
    /// The inventory file has mistakes.
    #[error("{0}")]
    Inventory(Box<rackferry_inventory::Mistakes>),
    /// What is in a plan file cannot be what was written.
    #[error("{} is no plan to apply: {why}", path.display())]
    PlanFile {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        why: crate::plan_file::PlanError,
    },
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The user said no.
    #[error("nothing was started")]
    Declined,
    /// There is no certificate to show.
    #[error(
        "there is no certificate in {0}: an admin makes one by `rackferry issue`; name its folder by --tls DIR or \
         RACKFERRY_TLS. At a site without TLS say --tls off"
    )]
    NoCertificate(String),
    /// We speak without TLS, and were not understood.
    #[error("the coordinator at {0} does not answer without TLS: leave out --tls off")]
    NoTls(String),
    /// A certificate, a key or the CA is no good, or cannot be made.
    #[error("the certificates")]
    Certificates(#[from] AuthorityError),
    /// The terminal or the signal handler failed.
    #[error("input or output failed")]
    Io(#[from] std::io::Error),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

impl Failure {
    /// The exit code.
    pub fn code(&self) -> Code {
        match self {
            Self::Unreachable { .. }
            | Self::NoLeader(_)
            | Self::NoCertificate(_)
            | Self::NoTls(_) => Code::Unreachable,
            Self::Certificates(AuthorityError::Exists(_) | AuthorityError::Name(_)) => Code::Usage,
            Self::Certificates(AuthorityError::File(_)) => Code::Unreachable,
            Self::Address(_)
            | Self::Name(_)
            | Self::Evacuation(_)
            | Self::Migration(_)
            | Self::Inventory(_)
            | Self::PlanFile { .. }
            | Self::File { .. }
            | Self::Write { .. } => Code::Usage,
            Self::Refused(status) => match self.reason() {
                Some(reason) => code_of(reason),
                None => code_of_grpc(status.code()),
            },
            Self::Answer(_) | Self::Io(_) | Self::Certificates(_) => Code::Unexpected,
            Self::Declined => Code::Cancelled,
        }
    }

    /// The coordinator's reason, if it gave one.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Refused(status) => reason_of(status),
            _ => None,
        }
    }

    /// The whole chain of causes.
    pub fn text(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

fn code_of(reason: Reason) -> Code {
    match reason {
        Reason::InvalidArgument
        | Reason::UnknownHost
        | Reason::UnknownPlace
        | Reason::UnknownVm
        | Reason::UnknownEvacuation
        | Reason::UnknownMigration
        | Reason::UnknownNode
        | Reason::UnknownLink
        | Reason::InvalidInventory
        | Reason::SameHost
        | Reason::RequestIdReused => Code::Usage,
        Reason::VmBusy
        | Reason::VmNotMovable
        | Reason::HostDisconnected
        | Reason::DoesNotFit
        | Reason::KeptApart
        | Reason::HostCordoned
        | Reason::EvacuationEnded
        | Reason::EvacuationRunning
        | Reason::PlanChanged
        | Reason::NoAuthority
        | Reason::TooManyTokens
        | Reason::MembershipBusy => Code::NotFeasible,
        Reason::NothingToMove => Code::Done,
        Reason::ShuttingDown | Reason::NotLeader | Reason::NotPermitted | Reason::TokenRefused => {
            Code::Unreachable
        }
    }
}

fn code_of_grpc(code: tonic::Code) -> Code {
    match code {
        tonic::Code::Unavailable | tonic::Code::Unauthenticated | tonic::Code::PermissionDenied => {
            Code::Unreachable
        }
        tonic::Code::DeadlineExceeded => Code::StillRunning,
        _ => Code::Unexpected,
    }
}

#[cfg(test)]
mod tests {
    use rackferry_proto::refuse;

    use super::*;

    fn code(reason: Reason) -> Code {
        Failure::from(refuse(reason, "")).code()
    }

    #[test]
    fn refusals_have_their_codes() {
        assert_eq!(code(Reason::DoesNotFit), Code::NotFeasible);
        assert_eq!(code(Reason::KeptApart), Code::NotFeasible);
        assert_eq!(code(Reason::VmBusy), Code::NotFeasible);
        assert_eq!(code(Reason::UnknownPlace), Code::Usage);
        assert_eq!(code(Reason::UnknownLink), Code::Usage);
        assert_eq!(code(Reason::InvalidInventory), Code::Usage);
        assert_eq!(code(Reason::HostCordoned), Code::NotFeasible);
        assert_eq!(code(Reason::EvacuationEnded), Code::NotFeasible);
        assert_eq!(code(Reason::EvacuationRunning), Code::NotFeasible);
        assert_eq!(code(Reason::PlanChanged), Code::NotFeasible);
        assert_eq!(code(Reason::NothingToMove), Code::Done);
        assert_eq!(code(Reason::ShuttingDown), Code::Unreachable);
        assert_eq!(code(Reason::NotPermitted), Code::Unreachable);
    }

    #[test]
    fn the_manual_has_the_same_table() {
        let manual = include_str!("../../../docs/operations.md");
        let part = manual.split("## Exit codes").nth(1).expect("it has a section");
        let rows =
            part.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| code"));
        let rows: Vec<&str> = rows.take(Code::ALL.len()).collect();
        let wanted = Code::ALL.map(|code| format!("| {} | {} |", code as u8, code.meaning()));
        assert_eq!(rows, wanted);
    }

    #[test]
    fn other_errors_have_theirs() {
        for (status, code) in [
            (Status::unavailable(""), Code::Unreachable),
            (Status::permission_denied(""), Code::Unreachable),
            (Status::deadline_exceeded(""), Code::StillRunning),
            (Status::internal(""), Code::Unexpected),
        ] {
            assert_eq!(Failure::from(status).code(), code);
        }
        assert_eq!(Failure::Declined.code(), Code::Cancelled);
        assert_eq!(Failure::Name("x".to_owned()).code(), Code::Usage);
    }

    #[test]
    fn an_evacuation_ends_with_its_code() {
        for (number, code) in [
            (0, Code::Done),
            (4, Code::Incomplete),
            (5, Code::Cancelled),
            (8, Code::OperatorNeeded),
            (77, Code::Unexpected),
        ] {
            let evacuation = v1::Evacuation { result_code: number, ..Default::default() };
            assert_eq!(Code::of_evacuation(&evacuation), code);
        }
    }

    #[test]
    fn a_vm_that_cannot_move_has_its_code() {
        let vm = |can_move| v1::VmCheck { can_move, ..Default::default() };
        assert_eq!(Code::of_checks(&[vm(true), vm(false)]), Code::NotFeasible);
        assert_eq!(Code::of_checks(&[vm(true)]), Code::Done);
    }

    #[test]
    fn problems_have_their_codes() {
        let of =
            |code: v1::ProblemCode| v1::Problem { code: code.into(), ..v1::Problem::default() };
        let leftover = of(v1::ProblemCode::Leftover);
        assert_eq!(Code::of_problems(&[]), Code::Done);
        assert_eq!(Code::of_problems(std::slice::from_ref(&leftover)), Code::Incomplete);
        for code in
            [v1::ProblemCode::OwnerUncertain, v1::ProblemCode::Astray, v1::ProblemCode::Halted]
        {
            assert_eq!(Code::of_problems(&[leftover.clone(), of(code)]), Code::OperatorNeeded);
        }
    }

    #[test]
    fn a_move_ends_with_its_code() {
        let ended = |phase: v1::Phase, reason: &str| {
            let reason = reason.to_owned();
            let one = v1::Migration { phase: phase.into(), reason, ..Default::default() };
            Code::of_migration(&one)
        };
        assert_eq!(ended(v1::Phase::Done, ""), Code::Done);
        assert_eq!(ended(v1::Phase::RolledBack, "cancelled"), Code::Cancelled);
        assert_eq!(ended(v1::Phase::RolledBack, "no memory"), Code::Incomplete);
        assert_eq!(ended(v1::Phase::Failed, "its QEMU died"), Code::OperatorNeeded);
        assert_eq!(ended(v1::Phase::Copying, ""), Code::StillRunning);
    }
}
