//! Fewer seeds than a build plays, for every day.

use proptest::prelude::*;
use rackferry_simulation::{play, replay};

fn assert_holds(seed: u64) {
    if let Some(violation) = play(seed, None).violation {
        let trace = replay(seed, None).trace;
        let last = &trace[trace.len().saturating_sub(80)..];
        panic!("seed {seed}: {violation:?}\n{}", last.join("\n"));
    }
}

#[test]
fn the_first_seeds_hold() {
    (0..200).for_each(assert_holds);
}

#[test]
fn a_seed_is_played_the_same_each_time() {
    for seed in [1, 7, 23] {
        let (once, again) = (replay(seed, None), replay(seed, None));
        assert_eq!(once.trace, again.trace);
        assert_eq!(play(seed, None).coverage.events, once.coverage.events);
    }
}

#[test]
fn worlds_reach_every_phase() {
    let mut sum = rackferry_simulation::coverage::Coverage::default();
    (0..200).for_each(|seed| sum.add(&play(seed, None).coverage));
    assert!(sum.commits > 100 && sum.moved > 100, "{sum}");
    assert!(sum.aborts > 0 && sum.refused > 0 && sum.rolled_back > 0, "{sum}");
    assert!(sum.elections > 200 && sum.deposed > 0, "{sum}");
    for phase in ["awaiting slot", "switching", "committing", "stopping", "handed over"] {
        assert!(sum.phases.get(phase).is_some_and(|count| *count > 20), "{phase}: {sum}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_seed_holds(seed: u64) {
        assert_holds(seed);
    }
}
