//! Words: enums of the model and of messages.

use rackferry_model as model;

use super::FromNumber;
use crate::v1;

macro_rules! words {
    ($($word:ty = $message:ty { $($name:ident)* })+) => {$(
        impl From<$word> for $message {
            fn from(word: $word) -> Self {
                match word { $(<$word>::$name => Self::$name,)* }
            }
        }

        impl FromNumber for $word {
            fn from_number(number: i32) -> Option<Self> {
                match <$message>::try_from(number) {
                    $(Ok(<$message>::$name) => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    )+};
}

words! {
    model::Dedup = v1::DedupMode { Off Host Rack }
    model::Compress = v1::CompressMode { Off Zstd }
    model::Disruption = v1::Disruption { None Brief Allow }
    model::Outcome = v1::Outcome { Moved RolledBack VmLost Stopped }
    model::End = v1::MigrationEnd { Moved RolledBack Cancelled Lost Ended }
    model::RunState = v1::RunState { Running Paused Incoming Loaded MovedOut Dead Unknown }
    model::Phase = v1::Phase {
        Queued Preparing Copying Verifying Switching Announcing Done Cancelling RolledBack Failed PausedRecoverable
        OwnerUnknown
    }
    model::EvacuationState = v1::EvacuationState {
        Running Paused Cancelling Done Incomplete Cancelled
    }
    model::WaitCode = v1::WaitCode {
        FleetBusy SourceBusy TargetBusy SourceDisconnected TargetDisconnected SwitchoverSlot TargetDiscard NoRoom
        VmNotRunning LinkFull EvacuationPaused TargetCordoned RetryBackoff AntiAffinity
    }
    model::Ownership = v1::Ownership { Stable Moving Committed }
    model::Condition = v1::VmCondition { Running Paused Switching Dead Unknown }
    model::Listed = v1::Listed { Yes No Elsewhere }
    model::CopyRole = v1::CopyRole { Owner Source Target Other }
    model::EventOutcome = v1::EventOutcome { Accepted Refused Happened }
    model::NodeRole = v1::NodeRole { Leader Follower Learner }
    model::Severity = v1::Severity { Blocks Warns }
    model::FindingCode = v1::FindingCode {
        VmState QemuBlocks NameTaken Memory HugePages QemuMissing MachineType QemuOlder Kvm CpuFeatures File Network
        Clock Protocol Silent Spec DirtyTracking Policy
    }
    model::ProblemCode = v1::ProblemCode {
        OwnerUncertain Astray Halted QemuSilent Leftover AgentAway AgentVersion HostMissing HostUnlisted HostElsewhere
        Clock Certificate HostDuplicate VmSpecChanged
    }
}
