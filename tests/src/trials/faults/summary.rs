//! What all runs came to.

use std::collections::BTreeMap;

use super::plan::{Kind, Step};

/// How runs of one kind went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Runs in which something broke, by the step at which it did; none: at any time.
    pub runs: BTreeMap<Option<Step>, usize>,
    /// VMs that moved although something broke.
    pub moved: usize,
    /// VMs that stayed, and moved on the second try.
    pub stayed: usize,
    /// VMs whose only QEMU was killed.
    pub lost: usize,
    /// Runs after which something did not hold.
    pub failed: usize,
}

/// How everything went.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// By kind.
    pub kinds: BTreeMap<Kind, Tally>,
    /// Failed runs.
    pub failed: Vec<Failed>,
}

/// How to play a failed run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Its seed.
    pub seed: u64,
    /// The cell of the matrix it was in, if it was in one.
    pub cell: Option<(Kind, Step)>,
}

impl Summary {
    /// A table for people: runs by the step at which it broke, and what became of the VMs.
    pub fn table(&self) -> String {
        let steps = [None].into_iter().chain(Step::ALL.map(Some));
        let steps: Vec<Option<Step>> = steps.collect();
        let mut all = Tally::default();
        let rows = self.kinds.iter().map(|(kind, tally)| (kind.to_string(), tally));
        let mut text = format!("{:<18}", "fault");
        for step in &steps {
            let name = step.map_or("any time".to_owned(), |step| step.to_string());
            text += &format!("{name:>11}");
        }
        text += &format!("{:>8}{:>12}{:>6}{:>10}\n", "moved", "second try", "lost", "failures");
        let line = |name: &str, tally: &Tally| {
            let runs = steps.iter().map(|step| tally.runs.get(step).copied().unwrap_or_default());
            let runs: String = runs.map(|runs| format!("{runs:>11}")).collect();
            let Tally { moved, stayed, lost, failed, .. } = tally;
            format!("{name:<18}{runs}{moved:>8}{stayed:>12}{lost:>6}{failed:>10}\n")
        };
        for (kind, tally) in rows {
            text += &line(&kind, tally);
            tally.runs.iter().for_each(|(s, runs)| *all.runs.entry(*s).or_default() += runs);
            all.moved += tally.moved;
            all.stayed += tally.stayed;
            all.lost += tally.lost;
            all.failed += tally.failed;
        }
        text + &line("all", &all)
    }
}
