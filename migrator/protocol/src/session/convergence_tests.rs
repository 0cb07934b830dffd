use proptest::prelude::*;

use super::*;

/// The sampler's interval.
const EVERY: u64 = 60;

/// A copy with passes of a length, each beginning with a forecast and running down to nothing.
struct Copy {
    convergence: Convergence,
    pass_ms: u64,
    now_ms: u64,
}

impl Copy {
    fn new(disruption: Disruption, limit_ms: u32, pass_ms: u64) -> Self {
        Self { convergence: Convergence::new(disruption, limit_ms), pass_ms, now_ms: 0 }
    }

    /// Looks for a while, or until there is news; `forecast` is of the beginning of each pass.
    fn run(&mut self, ms: u64, forecast: impl Fn(u64) -> f64) -> Advice {
        let end = self.now_ms + ms;
        while self.now_ms < end {
            let (pass, within) = (self.now_ms / self.pass_ms, self.now_ms % self.pass_ms);
            let left = 1.0 - within as f64 / self.pass_ms as f64;
            let look = Look {
                at: Duration::from_millis(self.now_ms),
                round: pass as u32 + 2,
                stop_ms: (forecast(pass) * left) as u32 + 8,
            };
            self.now_ms += EVERY;
            let advice = self.convergence.look(&look);
            if advice != Advice::GoOn {
                return advice;
            }
        }
        Advice::GoOn
    }
}

#[test]
fn with_none_a_copy_that_does_not_converge_is_given_up_with_its_numbers() {
    let mut copy = Copy::new(Disruption::None, 300, 960);
    let advice = copy.run(60_000, |_| 832.0);
    let why = "does not converge: it would stop 840 ms, its limit is 300 ms, and 8 passes brought nothing; see --disruption";
    assert_eq!(advice, Advice::GiveUp(why.to_owned()));
    assert!((8_500..9_000).contains(&copy.now_ms), "{}", copy.now_ms);
}

#[test]
fn with_brief_the_limit_rises_to_a_second_and_no_further() {
    let mut copy = Copy::new(Disruption::Brief, 300, 700);
    for limit in [500, 1000] {
        assert_eq!(copy.run(60_000, |_| 4000.0), Advice::Raised);
        assert_eq!(copy.convergence.limit_ms(), limit);
    }
    assert!(
        matches!(copy.run(60_000, |_| 4000.0), Advice::GiveUp(why) if why.contains("its limit is 1000 ms"))
    );
}

#[test]
fn with_allow_there_is_no_limit_in_the_end() {
    let mut copy = Copy::new(Disruption::Allow, 100, 700);
    for limit in [300, 500, 1000, UNBOUNDED_MS] {
        assert!(!copy.convergence.fits(4000, true));
        assert_eq!(copy.run(60_000, |_| 4000.0), Advice::Raised);
        assert_eq!(copy.convergence.limit_ms(), limit);
    }
    assert!(copy.convergence.fits(4000, true) && !copy.convergence.fits(4000, false));
    assert_eq!(copy.run(600_000, |_| 4000.0), Advice::GoOn);
}

#[test]
fn a_limit_beyond_the_steps_is_kept() {
    let mut copy = Copy::new(Disruption::Brief, 2000, 700);
    assert!(matches!(copy.run(60_000, |_| 9000.0), Advice::GiveUp(_)));
    assert_eq!(copy.convergence.limit_ms(), 2000);
}

#[test]
fn slow_progress_is_progress() {
    let mut copy = Copy::new(Disruption::None, 300, 1000);
    assert_eq!(copy.run(200_000, |pass| 9000.0 * 0.98_f64.powi(pass as i32)), Advice::GoOn);
}

#[test]
fn short_passes_need_time_and_long_ones_their_number() {
    let mut small = Copy::new(Disruption::None, 300, 7);
    assert_eq!(small.run(5_000, |_| 900.0), Advice::GoOn);
    assert!(matches!(small.run(2_000, |_| 900.0), Advice::GiveUp(_)));
    let mut large = Copy::new(Disruption::None, 300, 60_000);
    assert_eq!(large.run(8 * 60_000, |_| 900.0), Advice::GoOn);
    assert!(matches!(large.run(3 * 60_000, |_| 900.0), Advice::GiveUp(_)));
}

#[test]
fn waiting_for_a_slot_does_not_count() {
    let mut copy = Copy::new(Disruption::None, 300, 500);
    for _ in 0..30 {
        assert_eq!(copy.run(4_000, |_| 900.0), Advice::GoOn);
        copy.convergence.rest(Duration::from_millis(copy.now_ms));
    }
}

#[test]
fn a_cut_link_and_an_unknown_one_cost_none() {
    let mut convergence = Convergence::new(Disruption::None, 300);
    for n in 0..10_000 {
        let at = Duration::from_millis(n * EVERY);
        assert_eq!(convergence.look(&Look { at, round: 7, stop_ms: 5000 }), Advice::GoOn);
    }
    for n in 10_000..20_000 {
        let at = Duration::from_millis(n * EVERY);
        let look = Look { at, round: n as u32, stop_ms: u32::MAX };
        assert_eq!(convergence.look(&look), Advice::GoOn);
    }
}

#[test]
fn a_forced_switchover_does_not_give_up() {
    let mut copy = Copy::new(Disruption::None, 300, 500);
    assert!(copy.convergence.force_switchover() && !copy.convergence.force_switchover());
    assert_eq!(copy.run(600_000, |_| 9000.0), Advice::GoOn);
    assert!(copy.convergence.fits(u32::MAX - 1, true));
    assert!(!copy.convergence.fits(u32::MAX, true), "without a link nothing is known");
}

fn any_disruption() -> impl Strategy<Value = Disruption> {
    prop_oneof![Just(Disruption::None), Just(Disruption::Brief), Just(Disruption::Allow)]
}

proptest! {
    /// Whatever the looks say: no VM is given up, and no limit raised, without eight passes and five seconds since the
    /// last such step; limits only rise; only `allow` has none in the end.
    #[test]
    fn no_looks_make_it_hasty(
        disruption in any_disruption(),
        limit in 0..3000_u32,
        steps in prop::collection::vec((0..500_u64, 0..4_u32, 0..10_000_u32), 1..400),
    ) {
        let mut convergence = Convergence::new(disruption, limit);
        let (mut at, mut round) = (0, 1);
        let (mut began, mut first) = (0, 1);
        for (pause, passes, stop_ms) in steps {
            at += pause;
            round += passes;
            let before = convergence.limit_ms();
            let advice = convergence.look(&Look { at: Duration::from_millis(at), round, stop_ms });
            let after = convergence.limit_ms();
            prop_assert!(after >= before);
            prop_assert_eq!(advice == Advice::Raised, after > before);
            if advice != Advice::GoOn {
                prop_assert!(at - began >= 5000 && round - first >= 8);
                (began, first) = (at, round);
            }
            match advice {
                Advice::Raised => prop_assert!(disruption != Disruption::None),
                Advice::GiveUp(_) => {
                    prop_assert!(disruption != Disruption::Allow && after <= 3000);
                    break;
                }
                Advice::GoOn => {}
            }
        }
        if disruption != Disruption::Allow {
            prop_assert!(convergence.limit_ms() <= 3000);
        }
    }

    /// What never gets better ends, whatever the length of its passes.
    #[test]
    fn every_stall_is_found(pass_ms in 1..3000_u64, stop in 700..100_000_u32) {
        let mut copy = Copy::new(Disruption::None, 300, pass_ms);
        let found = matches!(copy.run(20 * pass_ms + 20_000, |_| f64::from(stop)), Advice::GiveUp(_));
        prop_assert!(found);
    }
}
