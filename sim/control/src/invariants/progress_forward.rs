//! What is shown of a move never runs backwards, as long as the same leader shows it.

use std::collections::BTreeMap;

use rackferry_fleet::{MigrationId, Phase};

use crate::world::World;

/// What a leader has shown of each move.
#[derive(Debug, Default)]
pub struct ProgressForward {
    shown: BTreeMap<MigrationId, (u32, f64)>,
}

pub(super) fn check(world: &mut World, node: usize) -> Option<String> {
    let leader = world.nodes[node].leader_mut()?;
    let fleet = leader.turns.as_ref()?.fleet();
    let shown = &mut leader.shown.shown;
    for view in fleet.migrations() {
        let id = view.record.id;
        let Some(rank) = rank(view.phase) else { continue };
        let ratio = view.progress.pass1_ratio;
        let before = shown.insert(id, (rank, ratio));
        let active = view.record.is_active();
        if let Some((was, had)) = before
            && (rank < was || active && ratio < had)
        {
            return Some(format!("{id} shows {:?} {ratio}, before rank {was} {had}", view.phase));
        }
    }
    None
}

/// Phases in their order; what may come at any time has no rank.
fn rank(phase: Phase) -> Option<u32> {
    match phase {
        Phase::Queued => Some(0),
        Phase::Preparing => Some(1),
        Phase::Copying => Some(2),
        Phase::Verifying => Some(3),
        Phase::Switching => Some(4),
        Phase::Announcing => Some(5),
        Phase::Done => Some(6),
        Phase::Cancelling
        | Phase::RolledBack
        | Phase::Failed
        | Phase::PausedRecoverable
        | Phase::OwnerUnknown => None,
    }
}
