//! Random interleavings of crashes, restarts, cuts, late and repeated messages: one owner at every
//! instant, and once faults heal every VM has exactly one running copy and nothing is left over.

mod common;
mod model;

use model::{Habits, Step, World};
use proptest::prelude::*;

/// Mostly things go on; every now and then something breaks.
fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        40 => Just(Step::GoOn),
        1 => Just(Step::DeliverUpTwice),
        2 => Just(Step::DeliverStale),
        1 => Just(Step::GiveUp),
        2 => Just(Step::Report),
        1 => Just(Step::ReportDeaf),
        1 => Just(Step::Tick),
        1 => Just(Step::CutStream),
        3 => Just(Step::Reconnect),
        1 => Just(Step::KillAgent),
        3 => Just(Step::StartAgent),
        1 => Just(Step::CutPipe),
        1 => Just(Step::KillQemu),
        1 => Just(Step::RestartCoordinator),
        2 => Just(Step::Evacuate),
        1 => Just(Step::Cancel),
    ]
}

fn steps(most: usize) -> impl Strategy<Value = Vec<(Step, usize, usize)>> {
    prop::collection::vec((step(), 0..24_usize, 0..24_usize), 0..most)
}

fn play(habits: Habits, steps: &[(Step, usize, usize)]) -> World {
    let mut world = World::new(habits);
    world.step(Step::Evacuate, 0, 0);
    for &(step, a, b) in steps {
        world.step(step, a, b);
    }
    world
}

/// As many as PROPTEST_CASES says, else what takes a few seconds.
fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_some() {
        return default;
    }
    ProptestConfig { cases: 3000, ..default }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn one_owner_whatever_happens(
        remembers: bool,
        lists_dead: bool,
        steps in steps(300),
    ) {
        play(Habits { remembers, lists_dead }, &steps).heal();
    }
}

/// The test of the test: without faults everything moves, so the steps above do reach the switchover.
#[test]
fn without_faults_everything_moves() {
    for remembers in [false, true] {
        let mut world = play(Habits { remembers, lists_dead: false }, &[]);
        world.heal();
        let moved = world.agents[1].qemus.len() + world.agents[2].qemus.len();
        assert_eq!(moved, model::VMS.len());
    }
}
