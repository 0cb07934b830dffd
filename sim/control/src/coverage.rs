//! What a run has reached, so that it shows where nothing was tried.

use std::collections::BTreeMap;
use std::fmt;

use crate::faults::Kind;

/// Counts of one run, or of many.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    /// Worlds.
    pub worlds: u64,
    /// Events.
    pub events: u64,
    /// Virtual time, nanoseconds.
    pub virtual_ns: u64,
    /// Faults by kind and by the furthest session at that moment.
    pub faults: BTreeMap<(Kind, &'static str), u64>,
    /// How often a session came to a phase.
    pub phases: BTreeMap<&'static str, u64>,
    /// Orders by name.
    pub orders: BTreeMap<&'static str, u64>,
    /// Changes of leaders.
    pub elections: u64,
    /// Leaders that were deposed, or gave up.
    pub deposed: u64,
    /// Commits of a new owner.
    pub commits: u64,
    /// Commits that were undone.
    pub aborts: u64,
    /// Commits that were refused.
    pub refused: u64,
    /// Sessions whose VM moved.
    pub moved: u64,
    /// Sessions whose VM stayed.
    pub rolled_back: u64,
    /// Sessions that were given up because their VM did not converge.
    pub given_up: u64,
    /// Sessions whose VM was stopped without a limit.
    pub unbounded: u64,
    /// Sessions whose VM died.
    pub vm_lost: u64,
    /// Sessions that left a stopped VM to the log.
    pub left_stopped: u64,
    /// What the operator asked for.
    pub acts: u64,
}

impl Coverage {
    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        let sums = [
            (&mut self.worlds, other.worlds),
            (&mut self.events, other.events),
            (&mut self.virtual_ns, other.virtual_ns),
            (&mut self.elections, other.elections),
            (&mut self.deposed, other.deposed),
            (&mut self.commits, other.commits),
            (&mut self.aborts, other.aborts),
            (&mut self.refused, other.refused),
            (&mut self.moved, other.moved),
            (&mut self.rolled_back, other.rolled_back),
            (&mut self.given_up, other.given_up),
            (&mut self.unbounded, other.unbounded),
            (&mut self.vm_lost, other.vm_lost),
            (&mut self.left_stopped, other.left_stopped),
            (&mut self.acts, other.acts),
        ];
        for (sum, more) in sums {
            *sum += more;
        }
        for (key, count) in &other.faults {
            *self.faults.entry(*key).or_default() += count;
        }
        for (key, count) in &other.phases {
            *self.phases.entry(key).or_default() += count;
        }
        for (key, count) in &other.orders {
            *self.orders.entry(key).or_default() += count;
        }
    }

    fn faults_table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<22}", "fault \\ furthest session")?;
        let columns = PHASES.map(|phase| (phase, phase.len().max(7)));
        for (phase, width) in columns {
            write!(f, "  {phase:>width$}")?;
        }
        for kind in Kind::ALL {
            write!(f, "\n{:<24}", kind.name())?;
            for (phase, width) in columns {
                let count = self.faults.get(&(kind, phase)).copied().unwrap_or(0);
                write!(f, "  {count:>width$}")?;
            }
        }
        writeln!(f)
    }
}

/// Phases of a session, from the least to the furthest.
pub const PHASES: [&str; 10] = [
    "none",
    "calling",
    "copying",
    "awaiting slot",
    "rolling back",
    "switching",
    "verifying",
    "committing",
    "stopping",
    "handed over",
];

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.faults_table(f)?;
        let hours = self.virtual_ns / 3_600_000_000_000;
        writeln!(f, "worlds {}, events {}, virtual hours {hours}", self.worlds, self.events)?;
        writeln!(
            f,
            "elections {}, leaders deposed {}, acts of the operator {}",
            self.elections, self.deposed, self.acts
        )?;
        writeln!(f, "commits {}, undone {}, refused {}", self.commits, self.aborts, self.refused)?;
        writeln!(
            f,
            "sessions: moved {}, rolled back {} (not converged {}), VM lost {}, left stopped to the log {}, stopped without \
             limit {}",
            self.moved,
            self.rolled_back,
            self.given_up,
            self.vm_lost,
            self.left_stopped,
            self.unbounded
        )?;
        let list = |counts: &BTreeMap<&'static str, u64>| {
            let each = counts.iter().map(|(name, count)| format!("{name} {count}"));
            each.collect::<Vec<_>>().join(", ")
        };
        writeln!(f, "phases: {}", list(&self.phases))?;
        writeln!(f, "orders: {}", list(&self.orders))
    }
}
