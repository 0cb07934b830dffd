//! What the command line returns: exit codes, the same numbers as `result_code` in messages and JSON.

use serde::{Serialize, Serializer};

/// An exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ResultCode {
    /// The command is done; of an evacuation: its sources are empty.
    Done = 0,
    /// An unexpected error.
    Unexpected = 1,
    /// The command is wrong, or names what is not there.
    Usage = 2,
    /// The request cannot be carried out now.
    NotFeasible = 3,
    /// The command finished, and VMs are or may be where they should not be; none of them is lost.
    Incomplete = 4,
    /// The work was cancelled.
    Cancelled = 5,
    /// The command no longer waits; the work goes on.
    StillRunning = 6,
    /// No coordinator can be reached, or the coordinator denies access.
    Unreachable = 7,
    /// A VM is paused, lost, or its owner is uncertain.
    OperatorNeeded = 8,
}

impl ResultCode {
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

    /// The code of a number; numbers of later versions are unexpected.
    pub fn from_number(number: u32) -> Self {
        let mut all = Self::ALL.into_iter();
        all.find(|code| *code as u32 == number).unwrap_or(Self::Unexpected)
    }

    /// The meaning of the code, for the man page and for docs/operations.md; Markdown without blocks.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done; of an evacuation: its sources are empty",
            Self::Unexpected => "unexpected error",
            Self::Usage => {
                "wrong usage, no `--yes` where the command cannot ask, a name that does not exist, an inventory file with \
                 mistakes, or a plan file that was changed"
            }
            Self::NotFeasible => {
                "not possible now: VM busy or not movable, agent not connected, does not fit, target cordoned, \
                 evacuation ended or not yet ended, another change of the cluster under way, no longer as planned; of \
                 `check` and `plan`: a VM cannot move"
            }
            Self::Incomplete => {
                "the evacuation ended, and its sources are not known to be empty: VMs were left behind or left out, others are \
                 there, or an agent is not connected; a VM was not moved; of `plan`: it leaves VMs out; of `doctor`: it found \
                 problems"
            }
            Self::Cancelled => "cancelled, or declined at the prompt",
            Self::StillRunning => {
                "`--timeout` or `--deadline` is over, or `status` shows what has not ended; the work goes on"
            }
            Self::Unreachable => {
                "no coordinator can be reached, no coordinator leads for 10 s, or access is denied: no certificate, an \
                 invalid one, or one whose role does not allow the request"
            }
            Self::OperatorNeeded => {
                "operator needed: a VM is lost, paused, or its owner is uncertain"
            }
        }
    }
}

impl Serialize for ResultCode {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u32(*self as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_back() {
        for (number, code) in (0..).zip(ResultCode::ALL) {
            assert_eq!(code as u32, number);
            assert_eq!(ResultCode::from_number(number), code);
        }
        assert_eq!(ResultCode::from_number(77), ResultCode::Unexpected);
    }
}
