//! How the moves that cross a link share what it may carry: pure arithmetic.

use std::{cmp::Reverse, collections::BinaryHeap};

/// Something with a budget, and what each of its members takes of it for one byte of its own.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pipe {
    /// Bytes per second.
    pub(crate) budget: u64,
    /// Numbers of members, with the part of their bytes that goes through it.
    pub(crate) members: Vec<(usize, f64)>,
}

impl Pipe {
    /// One that holds back a single member.
    pub(crate) fn cap(member: usize, budget: u64) -> Self {
        Self { budget, members: vec![(member, 1.0)] }
    }
}

/// Fair rates for `count` members, in bytes per second: all rise together, and a member that meets a
/// full pipe stays where it is (max-min fairness). None for members that are in no pipe.
pub(crate) fn divide(count: usize, pipes: &[Pipe]) -> Vec<Option<u64>> {
    let mut pipes_of = vec![Vec::new(); count];
    let mut states: Vec<Filling> = pipes.iter().map(Filling::new).collect();
    for (number, pipe) in pipes.iter().enumerate() {
        for &(member, part) in &pipe.members {
            pipes_of[member].push((number, part));
        }
    }
    // By the level at which each is full. One whose members stop is full later: it is there once more.
    let mut heap: BinaryHeap<Reverse<(Level, usize)>> = states
        .iter()
        .enumerate()
        .filter_map(|(n, state)| Some(Reverse((state.full()?, n))))
        .collect();
    let mut rates = vec![None; count];
    while let Some(Reverse((level, number))) = heap.pop() {
        if states[number].full() != Some(level) {
            continue;
        }
        let stopping: Vec<usize> =
            pipes[number].members.iter().map(|(member, _)| *member).collect();
        for member in stopping {
            if rates[member].is_some() {
                continue;
            }
            rates[member] = Some(level.0 as u64);
            for &(other, part) in &pipes_of[member] {
                let known = states[other].full();
                states[other].stop(level, part);
                let full = states[other].full();
                if let Some(full) = full.filter(|_| full != known) {
                    heap.push(Reverse((full, other)));
                }
            }
        }
    }
    rates
}

/// How far all members have risen.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Level(f64);

impl Eq for Level {}

impl Ord for Level {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Level {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// A pipe while its members rise.
#[derive(Debug)]
struct Filling {
    /// What was left of its budget at a level.
    left: f64,
    at: f64,
    /// How many of its members rise, and what they take together when each rises by one.
    rising: usize,
    thirst: f64,
}

impl Filling {
    fn new(pipe: &Pipe) -> Self {
        let thirst = pipe.members.iter().map(|(_, part)| part).sum();
        Self { left: pipe.budget as f64, at: 0.0, rising: pipe.members.len(), thirst }
    }

    /// The level at which it is full; none if no member of it rises.
    fn full(&self) -> Option<Level> {
        (self.rising > 0).then(|| Level(self.at + self.left / self.thirst.max(f64::MIN_POSITIVE)))
    }

    /// A member stops at a level.
    fn stop(&mut self, Level(level): Level, part: f64) {
        self.left = (self.left - (level - self.at) * self.thirst).max(0.0);
        self.at = level;
        self.rising -= 1;
        self.thirst -= part;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pipe(budget: u64, members: &[usize]) -> Pipe {
        Pipe { budget, members: members.iter().map(|&member| (member, 1.0)).collect() }
    }

    #[test]
    fn one_link_is_shared_equally() {
        assert_eq!(divide(4, &[pipe(100, &[0, 1, 2, 3])]), [Some(25); 4]);
    }

    #[test]
    fn who_crosses_nothing_is_free() {
        assert_eq!(divide(2, &[pipe(100, &[1])]), [None, Some(100)]);
        assert_eq!(divide(2, &[]), [None, None]);
    }

    #[test]
    fn what_one_cannot_use_is_for_the_others() {
        let pipes = [pipe(100, &[0, 1, 2]), Pipe::cap(0, 10)];
        assert_eq!(divide(3, &pipes), [Some(10), Some(45), Some(45)]);
    }

    #[test]
    fn the_tightest_link_decides() {
        let pipes = [pipe(100, &[0, 1]), pipe(30, &[1, 2])];
        assert_eq!(divide(3, &pipes), [Some(85), Some(15), Some(15)]);
    }

    #[test]
    fn half_of_the_bytes_take_half_of_the_budget() {
        let pipe = Pipe { budget: 50, members: vec![(0, 0.5), (1, 0.5)] };
        assert_eq!(divide(2, &[pipe]), [Some(50), Some(50)]);
    }

    fn pipes() -> impl Strategy<Value = Vec<Pipe>> {
        let parts = prop_oneof![Just(1.0), Just(0.5), Just(1.0 / 3.0)];
        let members = prop::collection::btree_map(0..8_usize, parts, 0..8);
        let pipe = (0..2_000_000_000_u64, members)
            .prop_map(|(budget, members)| Pipe { budget, members: members.into_iter().collect() });
        prop::collection::vec(pipe, 0..6)
    }

    fn used(pipe: &Pipe, rates: &[Option<u64>]) -> f64 {
        let use_of = |(member, part): &(usize, f64)| rates[*member].unwrap_or(0) as f64 * part;
        pipe.members.iter().map(use_of).sum()
    }

    proptest! {
        #[test]
        fn no_budget_is_exceeded(pipes in pipes()) {
            let rates = divide(8, &pipes);
            for pipe in &pipes {
                prop_assert!(used(pipe, &rates) <= pipe.budget as f64 + 1e-3, "{pipe:?} {rates:?}");
            }
        }

        #[test]
        fn nobody_could_have_more_without_taking_it_from_somebody_poorer(pipes in pipes()) {
            let rates = divide(8, &pipes);
            for (member, rate) in rates.iter().enumerate() {
                let Some(rate) = rate else { continue };
                let held_back = pipes.iter().any(|pipe| {
                    let in_it = pipe.members.iter().any(|(other, _)| *other == member);
                    let richest = pipe.members.iter().filter_map(|(other, _)| rates[*other]).max();
                    let rounding = pipe.members.len() as f64;
                    in_it
                        && used(pipe, &rates) >= pipe.budget as f64 - rounding
                        && richest.is_some_and(|richest| richest <= rate + 1)
                });
                prop_assert!(held_back, "{member} {pipes:?} {rates:?}");
            }
        }
    }
}
