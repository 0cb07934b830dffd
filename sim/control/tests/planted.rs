//! The test of the test: every bug that is put in is found, and it is said after how many seeds.

use rackferry_agent_core::PlantedBug as Agent;
use rackferry_fleet::PlantedBug;
use rackferry_simulation::{Bug, play};

/// Seeds within which each must be found. Every change of the world shuffles them: the rarest bugs need some thousands.
const SEEDS: u64 = 40_000;

/// The first seed that finds it, and by which invariant.
fn find(bug: Bug) -> (u64, &'static str) {
    let found = (0..SEEDS).find_map(|seed| {
        let violation = play(seed, Some(bug)).violation?;
        // Else it is not the bug that was found.
        assert_eq!(play(seed, None).violation, None, "seed {seed} without a bug");
        Some((seed + 1, violation.invariant))
    });
    found.unwrap_or_else(|| panic!("{bug:?} is not found in {SEEDS} seeds"))
}

#[test]
fn every_bug_planted_around_coordinators_is_found() {
    let bugs = [
        Bug::InFleet(PlantedBug::SaysBeforeDurable),
        Bug::InFleet(PlantedBug::NoBarrier),
        Bug::InFleet(PlantedBug::ResumesBeforeStopped),
        Bug::InFleet(PlantedBug::CommitWrittenLate),
        Bug::InFleet(PlantedBug::AbortKeepsGeneration),
        Bug::InFleet(PlantedBug::SilenceIsEvidence),
        Bug::InFleet(PlantedBug::AskedAgainRefused),
        Bug::InFleet(PlantedBug::SlotsForAll),
        Bug::InFleet(PlantedBug::LeavesCopies),
        Bug::InFleet(PlantedBug::WholeBudgetForAll),
        Bug::InFleet(PlantedBug::CordonOverlooked),
        Bug::InFleet(PlantedBug::PauseOverlooked),
        Bug::InFleet(PlantedBug::RetriesAtOnce),
        Bug::InFleet(PlantedBug::ForcesDespiteLimit),
        Bug::InFleet(PlantedBug::AntiAffinityOverlooked),
        Bug::InFleet(PlantedBug::ForgetsWaiting),
        Bug::InFleet(PlantedBug::DiedIsGone),
        Bug::InFleet(PlantedBug::ClonesAdmitted),
        Bug::InFleet(PlantedBug::DeadIsGone),
        Bug::InFleet(PlantedBug::OnlyCopyStranded),
    ];
    all_found(bugs);
}

#[test]
fn every_bug_planted_in_agents_is_found() {
    let bugs = [
        Bug::InAgent(Agent::LossUnnoticed),
        Bug::InAgent(Agent::RunsUnwritten),
        Bug::InAgent(Agent::ExpectsTheCalled),
        Bug::InAgent(Agent::DiscardedInPrepare),
    ];
    all_found(bugs);
}

fn all_found(bugs: impl IntoIterator<Item = Bug>) {
    for bug in bugs {
        let (seeds, invariant) = find(bug);
        println!("{bug:?}: found after {seeds} seeds by \"{invariant}\"");
    }
}
