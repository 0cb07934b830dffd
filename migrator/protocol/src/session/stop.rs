//! When a VM may be stopped, with how much left to send, and how long its move is then waited for.
//!
//! One look at QEMU and the link follows another. Each is a forecast of the stop, which [`Convergence`] judges; the
//! verdict is an event for the [`Source`](super::source::Source) machine, and what QEMU is to be told.

use std::time::Duration;

use super::convergence::{Advice, Convergence, Disruption, Look, UNBOUNDED_MS};
use super::source::{Event, Phase};

/// The source waits this long for the coordinator's decision, with the VM stopped, before it takes the move back.
pub const DECISION_TIMEOUT: Duration = Duration::from_millis(1500);

/// A stopped VM that the target has not loaded by then goes on at the source: ten times what the worst of its last passes
/// may take, and short enough for its clients' connections to survive a cut link.
pub const LOAD_TIMEOUT: Duration = Duration::from_secs(3);

/// [`LOAD_TIMEOUT`] in verify mode, where the target hashes the whole memory before it says that it has loaded.
pub const LOAD_TIMEOUT_VERIFY: Duration = Duration::from_secs(60);

/// A VM whose stop has no limit is waited for this many times its forecast, which may be off by as much when the link is shared.
pub const LOAD_FORECASTS: u32 = 4;

/// But never longer than this: after two minutes no client's connection to the VM is left to be saved.
pub const LOAD_TIMEOUT_MAX: Duration = Duration::from_secs(120);

/// A rest that is never worth another pass, bytes.
pub const REST_LEAST: u64 = 64 << 10;

/// A VM that has not come to [`Share::First`] by then may be stopped with [`Share::Later`].
pub const SHARE_TIMEOUT: Duration = Duration::from_secs(3);

/// The part of the VM's limit that its last pages may take. Never all of it: commit, load and start need theirs. A limit
/// that was raised is given to the pages alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// A quarter: device state and messages usually take more.
    First,
    /// Half.
    Later,
}

/// One look at QEMU and the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    /// Since the session began.
    pub at: Duration,
    /// Number of the pass, from 1.
    pub round: u32,
    /// The first full pass is over.
    pub first_pass_done: bool,
    /// The VM is stopped already.
    pub stopped: bool,
    /// How long the VM would be stopped now, milliseconds; `u32::MAX`: not known.
    pub stop_ms: u32,
    /// Guest bytes per second at which the last pass goes; 0 if that is not known.
    pub last_pass_rate: u64,
}

/// What follows from a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// For the machine.
    pub event: Option<Event>,
    /// The limit was raised: QEMU is to be told, and to slow the guest down if it can.
    pub raised: bool,
}

/// Decides about one VM. Bounded: it keeps the latest look and the longest forecast.
#[derive(Debug)]
pub struct Stop {
    convergence: Convergence,
    wanted_ms: u32,
    forecast_ms: u32,
    longest_ms: u32,
    last_pass_rate: u64,
    gave_up: bool,
}

impl Stop {
    /// For a copy that begins; `limit_ms` is how long the VM may be stopped.
    pub fn new(disruption: Disruption, limit_ms: u32) -> Self {
        Self {
            convergence: Convergence::new(disruption, limit_ms),
            wanted_ms: limit_ms,
            forecast_ms: 0,
            longest_ms: 0,
            last_pass_rate: 0,
            gave_up: false,
        }
    }

    /// Takes a look; `phase` is the machine's.
    pub fn look(&mut self, sight: &Sight, phase: &Phase) -> Verdict {
        let &Sight { at, round, stop_ms, .. } = sight;
        self.forecast_ms = stop_ms;
        self.last_pass_rate = sight.last_pass_rate;
        if sight.first_pass_done && stop_ms != u32::MAX {
            self.longest_ms = self.longest_ms.max(stop_ms);
        }
        let copies = matches!(phase, Phase::Copying | Phase::Switching) && !sight.stopped;
        let advice = if copies && sight.first_pass_done {
            self.convergence.look(&Look { at, round, stop_ms })
        } else {
            self.convergence.rest(at);
            Advice::GoOn
        };
        let raised = advice == Advice::Raised;
        if let Advice::GiveUp(why) = advice {
            self.gave_up = true;
            return Verdict { event: Some(Event::Cancel(why)), raised };
        }
        let ready = self.convergence.fits(stop_ms, sight.first_pass_done)
            && (copies || *phase == Phase::AwaitingSlot);
        Verdict { event: ready.then_some(Event::Ready { predicted_ms: stop_ms }), raised }
    }

    /// The VM is to be stopped soon, however long. True if that changes the limit.
    pub fn force_switchover(&mut self) -> bool {
        self.convergence.force_switchover()
    }

    /// How long the VM may be stopped now, milliseconds; [`UNBOUNDED_MS`]: as long as it takes.
    pub fn limit_ms(&self) -> u32 {
        self.convergence.limit_ms()
    }

    /// The latest forecast, milliseconds.
    pub fn forecast_ms(&self) -> u32 {
        self.forecast_ms
    }

    /// The move is given up because its VM does not converge.
    pub fn gave_up(&self) -> bool {
        self.gave_up
    }

    /// What the last pages may take, milliseconds.
    pub fn rest_ms(&self, share: Share) -> u64 {
        let limit = u64::from(self.limit_ms());
        match share {
            _ if self.limit_ms() > self.wanted_ms => limit,
            Share::First => (limit / 4).max(1),
            Share::Later => (limit / 2).max(1),
        }
    }

    /// What may be left to send when the VM is stopped, bytes of its memory, by the rate of the latest look.
    pub fn rest_bytes(&self, share: Share, memory_bytes: u64) -> u64 {
        if self.limit_ms() == UNBOUNDED_MS {
            return memory_bytes;
        }
        let bytes = self.rest_ms(share).saturating_mul(self.last_pass_rate / 1000);
        bytes.clamp(REST_LEAST, memory_bytes.max(REST_LEAST))
    }

    /// How long a VM that is stopped now may take to be loaded.
    pub fn load_timeout(&self, verify: bool) -> Duration {
        let least = if verify { LOAD_TIMEOUT_VERIFY } else { LOAD_TIMEOUT };
        if self.limit_ms() != UNBOUNDED_MS {
            return least;
        }
        // Not the latest forecast: near the end of a pass it knows nothing of what was written since the pass began.
        let forecast = Duration::from_millis(self.longest_ms.into());
        least.max((forecast * LOAD_FORECASTS).min(LOAD_TIMEOUT_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: u64 = 1 << 30;

    fn sight(at_ms: u64, stop_ms: u32) -> Sight {
        let at = Duration::from_millis(at_ms);
        let (round, last_pass_rate) = (at_ms as u32 / 500 + 2, 10_000_000);
        Sight { at, round, first_pass_done: true, stopped: false, stop_ms, last_pass_rate }
    }

    #[test]
    fn a_stop_that_fits_is_ready_while_it_is_copied_or_waits_for_its_slot() {
        let mut stop = Stop::new(Disruption::Brief, 300);
        let ready = Some(Event::Ready { predicted_ms: 100 });
        for (phase, event) in [
            (Phase::Copying, &ready),
            (Phase::AwaitingSlot, &ready),
            (Phase::Switching, &ready),
            (Phase::Committing { dead: false }, &None),
        ] {
            assert_eq!(&stop.look(&sight(0, 100), &phase).event, event, "{phase:?}");
        }
        let first = Sight { first_pass_done: false, ..sight(0, 100) };
        assert_eq!(stop.look(&first, &Phase::Copying).event, None);
        let stopped = Sight { stopped: true, ..sight(0, 100) };
        assert_eq!(stop.look(&stopped, &Phase::Switching).event, None);
    }

    #[test]
    fn the_rest_is_what_the_link_carries_in_a_part_of_the_limit() {
        let mut stop = Stop::new(Disruption::Brief, 300);
        assert_eq!(stop.rest_bytes(Share::First, MEMORY), REST_LEAST, "nothing is known yet");
        stop.look(&sight(0, 100), &Phase::Copying);
        assert_eq!(stop.rest_bytes(Share::First, MEMORY), 750_000);
        assert_eq!(stop.rest_bytes(Share::Later, MEMORY), 1_500_000);
        assert!(stop.force_switchover() && !stop.force_switchover());
        assert_eq!(stop.rest_bytes(Share::First, MEMORY), MEMORY, "no limit: whatever there is");
        stop.look(&Sight { last_pass_rate: 0, ..sight(0, 100) }, &Phase::Copying);
        assert_eq!(stop.rest_bytes(Share::First, MEMORY), MEMORY, "whatever the rate");
    }

    #[test]
    fn a_load_without_a_limit_is_waited_for_by_the_longest_forecast() {
        let mut stop = Stop::new(Disruption::Allow, 300);
        for (at, stop_ms) in [(0, 2000), (100, 40), (200, u32::MAX)] {
            stop.look(&sight(at, stop_ms), &Phase::Copying);
        }
        assert_eq!(stop.load_timeout(false), LOAD_TIMEOUT);
        assert_eq!(stop.load_timeout(true), LOAD_TIMEOUT_VERIFY);
        stop.force_switchover();
        assert_eq!(stop.load_timeout(false), Duration::from_secs(8));
        stop.look(&sight(300, 90_000), &Phase::Copying);
        assert_eq!(stop.load_timeout(false), LOAD_TIMEOUT_MAX);
    }

    #[test]
    fn what_does_not_converge_is_given_up_once_or_given_a_longer_stop() {
        let run = |disruption| {
            let mut stop = Stop::new(disruption, 300);
            let looks = (0..200).map(|n| sight(n * 100, 2500));
            let verdicts: Vec<_> = looks.map(|s| stop.look(&s, &Phase::Copying)).collect();
            let raised = verdicts.iter().filter(|verdict| verdict.raised).count();
            let cancelled = verdicts.iter().any(|v| matches!(v.event, Some(Event::Cancel(_))));
            (raised > 0, cancelled, stop.gave_up(), stop.limit_ms() > 300)
        };
        assert_eq!(run(Disruption::None), (false, true, true, false));
        assert_eq!(run(Disruption::Allow), (true, false, false, true));
    }
}
