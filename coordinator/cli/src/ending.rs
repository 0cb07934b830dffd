//! Whether work has ended, and the code it ends with.

use rackferry_model::{EvacuationState, Phase};
use rackferry_proto::{
    door::word,
    v1::{Evacuation, Migration},
};

use crate::exit::Code;

/// Whether an evacuation has ended.
pub fn is_over(evacuation: &Evacuation) -> bool {
    word(evacuation.state).is_none_or(EvacuationState::is_over)
}

/// Whether all that is left of an evacuation is stuck: waiting longer may never end.
pub fn is_stuck(evacuation: &Evacuation) -> bool {
    let over = |one: &&Migration| word(one.phase).is_some_and(Phase::is_over);
    let mut left = evacuation.migrations.iter().filter(|one| !over(one)).peekable();
    !is_over(evacuation) && left.peek().is_some() && left.all(is_stuck_one)
}

/// Whether a migration waits for a silent agent, with its VM stopped or its owner uncertain.
pub fn is_stuck_one(migration: &Migration) -> bool {
    word(migration.phase).is_some_and(Phase::is_stuck)
}

/// How an evacuation ended, or how it stands.
pub fn of_evacuation(evacuation: &Evacuation) -> Code {
    if is_over(evacuation) {
        return Code::from_number(evacuation.result_code);
    }
    // Coordinators of earlier versions say 0 of what goes on.
    if is_stuck(evacuation) { Code::OperatorNeeded } else { Code::StillRunning }
}

/// How a single migration ended, or how it stands.
pub fn of_migration(migration: &Migration) -> Code {
    let phase: Option<Phase> = word(migration.phase);
    phase.map_or(Code::StillRunning, |phase| phase.result(word(migration.end)))
}

#[cfg(test)]
mod tests {
    use rackferry_proto::v1;

    use super::*;

    fn evacuation(
        state: v1::EvacuationState,
        result_code: u32,
        phases: &[v1::Phase],
    ) -> Evacuation {
        let one = |&phase: &v1::Phase| Migration { phase: phase.into(), ..Default::default() };
        let migrations = phases.iter().map(one).collect();
        Evacuation { state: state.into(), result_code, migrations, ..Default::default() }
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
            let ended = evacuation(v1::EvacuationState::Incomplete, number, &[]);
            assert_eq!(of_evacuation(&ended), code);
        }
    }

    #[test]
    fn an_evacuation_that_is_not_over_is_6_or_8_whatever_the_coordinator_says() {
        use v1::Phase::{Copying, Done, OwnerUnknown, PausedRecoverable, Queued, Unspecified};
        for (phases, code) in [
            (&[][..], Code::StillRunning),
            (&[Done, Copying], Code::StillRunning),
            (&[OwnerUnknown, Queued], Code::StillRunning),
            (&[OwnerUnknown, Unspecified], Code::StillRunning),
            (&[Done], Code::StillRunning),
            (&[OwnerUnknown, Done], Code::OperatorNeeded),
            (&[OwnerUnknown, PausedRecoverable], Code::OperatorNeeded),
        ] {
            for state in [v1::EvacuationState::Running, v1::EvacuationState::Cancelling] {
                assert_eq!(of_evacuation(&evacuation(state, 0, phases)), code, "{phases:?}");
            }
        }
    }

    #[test]
    fn a_migration_ends_with_its_code() {
        let ended = |phase: v1::Phase, end: v1::MigrationEnd| {
            of_migration(&Migration { phase: phase.into(), end: end.into(), ..Default::default() })
        };
        let back = v1::Phase::RolledBack;
        assert_eq!(ended(v1::Phase::Done, v1::MigrationEnd::Moved), Code::Done);
        assert_eq!(ended(back, v1::MigrationEnd::Cancelled), Code::Cancelled);
        assert_eq!(ended(back, v1::MigrationEnd::RolledBack), Code::Incomplete);
        assert_eq!(ended(back, v1::MigrationEnd::Unspecified), Code::Incomplete);
        assert_eq!(ended(v1::Phase::Copying, v1::MigrationEnd::Unspecified), Code::StillRunning);
        let stuck = ended(v1::Phase::OwnerUnknown, v1::MigrationEnd::Unspecified);
        assert_eq!(stuck, Code::OperatorNeeded);
    }
}
