//! Whether a copy still makes progress, and what is done when it does not.
//!
//! A pass is judged by the stop that was forecast at its worst, which is at its beginning: there QEMU has just counted
//! what the guest wrote during the pass before. A copy makes progress as long as passes get better than the best one
//! so far by a share of it. There is no time-out: a slow link makes passes long, and a VM is judged by passes.
//!
//! What follows when it makes none is the operator's choice, [`Disruption`].

use std::time::Duration;

use super::predict;

pub use rackferry_model::Disruption;

/// A limit that every stop fits into.
pub const UNBOUNDED_MS: u32 = u32::MAX;

/// The limits a VM that does not converge is given, one after the other, milliseconds. A second is what clients of a
/// service take for a hiccup.
const STEPS_MS: [u32; 3] = [300, 500, 1000];

/// A pass must be better than the best one by this share to count as progress. Over [`PASSES`] passes that is little more
/// than one percent a pass: slower than that nothing converges in useful time.
const BETTER: f64 = 0.1;

/// So many full passes without progress are needed: a forecast swings by a factor of two with the link's rate, and a guest that is
/// busy for a moment is busy for a few passes only.
const PASSES: u32 = 8;

/// And so much time, for a small VM makes eight passes in 50 ms. It is more than the 3 s after which QEMU may use the whole limit,
/// and several of the periods, of a second each, after which QEMU slows a guest down a little more.
const LEAST: Duration = Duration::from_secs(5);

/// Passes shorter than that are judged together: it is four looks, and one look at a short pass may be at its end, where
/// everything looks good.
const SPAN: Duration = Duration::from_millis(240);

/// One look at a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Since the copy began.
    pub at: Duration,
    /// Number of the pass, from 1.
    pub round: u32,
    /// How long the VM would be stopped now, milliseconds; `u32::MAX`: not known.
    pub stop_ms: u32,
}

/// What to do after a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Advice {
    /// Go on.
    GoOn,
    /// The limit has been raised: let QEMU know, and slow the guest down.
    Raised,
    /// Take the move back, for this reason.
    GiveUp(String),
}

/// Passes that are judged together.
#[derive(Debug, Clone, Copy)]
struct Span {
    began: Duration,
    round: u32,
    worst_ms: u32,
}

/// Judges a copy by its looks. Bounded: it keeps the best pass and the present one.
#[derive(Debug)]
pub struct Convergence {
    disruption: Disruption,
    limit_ms: u32,
    span: Option<Span>,
    /// The best span so far, if there is one.
    best_ms: Option<u32>,
    /// Passes without progress, and since when there is none.
    passes: u32,
    since: Duration,
}

impl Convergence {
    /// For a copy that begins; `limit_ms` is how long the VM may be stopped, at least 1.
    pub fn new(disruption: Disruption, limit_ms: u32) -> Self {
        let (limit_ms, since) = (limit_ms.max(1), Duration::ZERO);
        Self { disruption, limit_ms, span: None, best_ms: None, passes: 0, since }
    }

    /// How long the VM may be stopped now, milliseconds; [`UNBOUNDED_MS`]: as long as it takes. It only rises.
    pub fn limit_ms(&self) -> u32 {
        self.limit_ms
    }

    /// Does a stop fit? `first_pass_done`: before that no stop is short, and a long one would save nothing.
    pub fn fits(&self, stop_ms: u32, first_pass_done: bool) -> bool {
        first_pass_done && predict::fits(stop_ms, self.limit_ms)
    }

    /// Takes the limit off the stop: the migration shall end now, however long the VM is stopped. True if that is new.
    pub fn force_switchover(&mut self) -> bool {
        std::mem::replace(&mut self.limit_ms, UNBOUNDED_MS) != UNBOUNDED_MS
    }

    /// The copy waits for something that is not its own fault (its first pass, a slot): counting begins anew.
    pub fn rest(&mut self, at: Duration) {
        self.span = None;
        self.begin_anew(at);
    }

    /// Takes a look at a copy whose first pass is over. Looks come in the order of their times.
    pub fn look(&mut self, look: &Look) -> Advice {
        if look.stop_ms == u32::MAX {
            return Advice::GoOn;
        }
        let Some(span) = &mut self.span else {
            self.span = Some(Span::from(look));
            return Advice::GoOn;
        };
        let passes = look.round.saturating_sub(span.round);
        if passes == 0 || look.at.saturating_sub(span.began) < SPAN {
            span.worst_ms = span.worst_ms.max(look.stop_ms);
            return Advice::GoOn;
        }
        let worst_ms = span.worst_ms;
        *span = Span::from(look);
        if self.best_ms.is_none_or(|best| f64::from(worst_ms) <= f64::from(best) * (1.0 - BETTER)) {
            self.best_ms = Some(worst_ms);
            self.begin_anew(look.at);
            return Advice::GoOn;
        }
        self.passes = self.passes.saturating_add(passes);
        if self.passes < PASSES || look.at.saturating_sub(self.since) < LEAST {
            return Advice::GoOn;
        }
        self.stalled(worst_ms, look.at)
    }

    fn stalled(&mut self, worst_ms: u32, at: Duration) -> Advice {
        let step = STEPS_MS.into_iter().find(|step| *step > self.limit_ms);
        let next = match (self.disruption, step) {
            (Disruption::Brief | Disruption::Allow, Some(step)) => step,
            (Disruption::Allow, None) if self.limit_ms == UNBOUNDED_MS => return Advice::GoOn,
            (Disruption::Allow, None) => UNBOUNDED_MS,
            // With a forced switchover it does not give up.
            _ if self.limit_ms == UNBOUNDED_MS => return Advice::GoOn,
            (Disruption::None, _) | (Disruption::Brief, None) => {
                return Advice::GiveUp(format!(
                    "does not converge: it would stop {worst_ms} ms, its limit is {} ms, and {} passes brought nothing; \
                     see --disruption",
                    self.limit_ms, self.passes
                ));
            }
        };
        self.limit_ms = next;
        self.begin_anew(at);
        Advice::Raised
    }

    fn begin_anew(&mut self, at: Duration) {
        self.passes = 0;
        self.since = at;
    }
}

impl From<&Look> for Span {
    fn from(look: &Look) -> Self {
        Self { began: look.at, round: look.round, worst_ms: look.stop_ms }
    }
}

#[cfg(test)]
#[path = "convergence_tests.rs"]
mod tests;
