//! How the program ends.

use rackferry_model::ProblemCode;
use rackferry_proto::{Reason, door::word, reason_of, v1};
use rackferry_tls::authority::AuthorityError;
use thiserror::Error;
use tonic::Status;

pub use rackferry_model::ResultCode as Code;

use crate::plan_file::PlanFileError;

/// Whether VMs can move.
pub fn of_checks(vms: &[v1::VmCheck]) -> Code {
    if vms.iter().all(|vm| vm.can_move) { Code::Done } else { Code::NotFeasible }
}

/// Whether the site has problems.
pub fn of_problems(problems: &[v1::Problem]) -> Code {
    // A problem of a later version is one, too.
    let code = |problem: &v1::Problem| word(problem.code).unwrap_or(ProblemCode::Leftover);
    ProblemCode::result(problems.iter().map(code))
}

/// Whether a VM is stopped, or it is uncertain which host may run it.
pub fn needs_operator(problem: &v1::Problem) -> bool {
    word(problem.code).is_some_and(ProblemCode::needs_operator)
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
    /// A plan file cannot be read or written, or is not as it was written.
    #[error(transparent)]
    PlanFile(#[from] PlanFileError),
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
    /// The command would ask, and cannot.
    #[error(
        "{0} asks before it starts, and cannot without a terminal or with JSON: say --yes to start without asking"
    )]
    NotConfirmed(&'static str),
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
            | Self::NotConfirmed(_)
            | Self::Inventory(_)
            | Self::PlanFile(_)
            | Self::File { .. }
            | Self::Write { .. } => Code::Usage,
            Self::Refused(status) => match self.reason() {
                Some(reason) => reason.result(),
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
        assert_eq!(code(Reason::NotEmpty), Code::Incomplete);
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
    fn a_vm_that_cannot_move_has_its_code() {
        let vm = |can_move| v1::VmCheck { can_move, ..Default::default() };
        assert_eq!(of_checks(&[vm(true), vm(false)]), Code::NotFeasible);
        assert_eq!(of_checks(&[vm(true)]), Code::Done);
    }

    #[test]
    fn problems_have_their_codes() {
        let of = |code: i32| v1::Problem { code, ..v1::Problem::default() };
        let leftover = of(v1::ProblemCode::Leftover.into());
        let later = of(1000);
        assert_eq!(of_problems(&[]), Code::Done);
        assert_eq!(of_problems(&[leftover.clone(), later]), Code::Incomplete);
        let halted = of(v1::ProblemCode::Halted.into());
        assert!(needs_operator(&halted) && !needs_operator(&leftover));
        assert_eq!(of_problems(&[leftover, halted]), Code::OperatorNeeded);
    }
}
