//! What a QEMU does, and what is done about one that an earlier agent has left: first it is classified, then touched.
//!
//! | left | seen | done |
//! |---|---|---|
//! | it belongs here | a migration that is not over | cancel it: its session died with the agent, so it can only end |
//! | it belongs here | never let run | let it run: the agent died just before it did |
//! | it arrives | it runs | write down that it belongs here: only the owner lets a VM go |
//! | anything | anything else | adopt it |
//!
//! After each step it is looked at again, until it can be adopted.

use crate::{Role, Standing, VmState, Writing};

/// What QEMU says of its guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guest {
    /// It runs.
    Running,
    /// It has suspended itself.
    Suspended,
    /// Stopped for the last pass of a migration.
    FinishMigrate,
    /// Stopped for good after a migration.
    PostMigrate,
    /// It waits for its migration stream, or reads it.
    InMigrate,
    /// It has never been let run.
    Prelaunch,
    /// Stopped in some other way.
    Stopped,
}

/// What QEMU says of its migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Migration {
    /// There was none, or it failed, or was cancelled.
    None,
    /// Under way.
    Active,
    /// It succeeded.
    Completed,
}

/// What QEMU says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Of its guest.
    pub guest: Guest,
    /// Of its migration.
    pub migration: Migration,
}

/// What a VM does, by its role and by what its QEMU says.
pub fn classify(role: Role, seen: Seen) -> VmState {
    match (seen.guest, role) {
        (Guest::PostMigrate, _) => VmState::MovedOut,
        // Nothing but postmigrate follows, in a moment.
        (Guest::FinishMigrate, Role::Run) if seen.migration == Migration::Completed => {
            VmState::MovedOut
        }
        (Guest::InMigrate, _) => VmState::Incoming,
        (Guest::Running | Guest::FinishMigrate, _) => VmState::Running,
        // Wakes by itself, unless it has never been let go.
        (Guest::Suspended, Role::Run) => VmState::Running,
        (_, Role::Run) => VmState::Paused,
        (_, Role::Incoming) if seen.migration == Migration::Completed => VmState::Loaded,
        (_, Role::Incoming) => VmState::Incoming,
    }
}

/// What is done about a VM that an earlier agent has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adoption {
    /// Cancel its migration and wait until it is over.
    Cancel,
    /// Let it run.
    LetRun,
    /// Write this down.
    Write(Writing),
    /// It lasts: manage it. It does this.
    Adopt(VmState),
}

/// What is done next about a VM that an earlier agent has left.
///
/// `attached`: its QEMU was started by its operator, who lets it run as well.
pub fn adoption(standing: &Standing, attached: bool, seen: Seen) -> Adoption {
    let state = classify(standing.role, seen);
    match (standing.role, seen.guest) {
        (Role::Run, _) if seen.migration == Migration::Active => Adoption::Cancel,
        (Role::Run, Guest::Prelaunch) if !attached => Adoption::LetRun,
        (Role::Incoming, _) if state == VmState::Running => {
            let generation = standing.mark.map_or(standing.generation, |mark| mark.generation);
            Adoption::Write(Writing::Owned(generation))
        }
        _ => Adoption::Adopt(state),
    }
}
