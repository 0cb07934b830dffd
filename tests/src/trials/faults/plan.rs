//! What happens in one run: everything follows from one number.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Result;

/// What breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The agent of a host whose VMs are leaving.
    SourceAgent,
    /// The agent of a host where VMs are arriving.
    TargetAgent,
    /// The agent that has received most: others refer to its contents.
    HolderAgent,
    /// An agent of the source rack that moves nothing itself, if there is one: a shard of the index.
    IndexAgent,
    /// The coordinator; of several, the one that leads.
    Coordinator,
    /// The coordinator that leads, every five seconds until the evacuation is over.
    Leaders,
    /// The coordinator that leads and an agent are kept apart from all others, together.
    LeaderApart,
    /// Every coordinator at once.
    Coordinators,
    /// The link between the racks.
    CoreCut,
    /// The agent of a host whose VMs are leaving stands still, and goes on later.
    FrozenSource,
    /// The agent of a host where VMs are arriving stands still.
    FrozenTarget,
    /// An agent stands still that the VM which came to the step has nothing to do with: a shard of the index, or a
    /// holder of contents.
    FrozenNeighbour,
    /// The coordinator stands still; of several, the one that leads.
    FrozenCoordinator,
    /// What a host and some others send each other on the page network vanishes without a word.
    BlackHole,
    /// The QEMU of a VM that leaves.
    SourceQemu,
    /// The QEMU of a VM that arrives.
    TargetQemu,
    /// Nothing breaks: the operator changes his mind.
    Cancel,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 17] = [
        Self::SourceAgent,
        Self::TargetAgent,
        Self::HolderAgent,
        Self::IndexAgent,
        Self::Coordinator,
        Self::Leaders,
        Self::LeaderApart,
        Self::Coordinators,
        Self::CoreCut,
        Self::FrozenSource,
        Self::FrozenTarget,
        Self::FrozenNeighbour,
        Self::FrozenCoordinator,
        Self::BlackHole,
        Self::SourceQemu,
        Self::TargetQemu,
        Self::Cancel,
    ];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::SourceAgent => "source-agent",
            Self::TargetAgent => "target-agent",
            Self::HolderAgent => "holder-agent",
            Self::IndexAgent => "index-agent",
            Self::Coordinator => "coordinator",
            Self::Leaders => "leaders",
            Self::LeaderApart => "leader-apart",
            Self::Coordinators => "coordinators",
            Self::CoreCut => "core-cut",
            Self::FrozenSource => "frozen-source",
            Self::FrozenTarget => "frozen-target",
            Self::FrozenNeighbour => "frozen-neighbour",
            Self::FrozenCoordinator => "frozen-coordinator",
            Self::BlackHole => "black-hole",
            Self::SourceQemu => "source-qemu",
            Self::TargetQemu => "target-qemu",
            Self::Cancel => "cancel",
        })
    }
}

impl FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        let names = || Self::ALL.map(|kind| kind.to_string()).join(", ");
        let found = Self::ALL.into_iter().find(|kind| kind.to_string() == name);
        found.ok_or_else(|| anyhow::anyhow!("unknown fault {name}; there are {}", names()))
    }
}

/// A step of a move, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Waits for its turn.
    Queued,
    /// The target makes memory and a QEMU ready.
    Preparing,
    /// Memory is sent.
    Copying,
    /// The VM stops here and is let go there.
    Switching,
    /// It runs at the target; the source is released.
    Announcing,
    /// Over, well or not.
    Ended,
}

impl Step {
    /// Those at which something can break, in order.
    pub const ALL: [Self; 5] =
        [Self::Preparing, Self::Copying, Self::Switching, Self::Announcing, Self::Ended];
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Queued => "queued",
            Self::Preparing => "preparing",
            Self::Copying => "copying",
            Self::Switching => "switching",
            Self::Announcing => "announcing",
            Self::Ended => "ended",
        })
    }
}

impl FromStr for Step {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        let names = || Self::ALL.map(|step| step.to_string()).join(", ");
        let found = Self::ALL.into_iter().find(|step| step.to_string() == name);
        found.ok_or_else(|| anyhow::anyhow!("nothing breaks at {name}; take one of {}", names()))
    }
}

/// When it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// So long after the evacuation was ordered.
    After(Duration),
    /// When `before` other VMs and one more have come to a step, and a little later.
    Step {
        /// The step.
        step: Step,
        /// How many VMs come to it before.
        before: usize,
        /// How much later.
        later: Duration,
    },
}

impl Moment {
    /// The step, if it is bound to one.
    pub fn step(self) -> Option<Step> {
        match self {
            Self::After(_) => None,
            Self::Step { step, .. } => Some(step),
        }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::After(time) => write!(f, "after {} ms", time.as_millis()),
            Self::Step { step, before, later } => {
                write!(f, "{} ms after VM {} was {step}", later.as_millis(), before + 1)
            }
        }
    }
}

/// A generator of numbers that are the same for the same seed on every machine (SplitMix64).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.roll() % end as u64) as usize
    }

    /// One of some.
    pub fn pick<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        (!of.is_empty()).then(|| of[self.below(of.len())].clone())
    }

    /// A time between two, in milliseconds.
    pub fn millis(&mut self, from: usize, to: usize) -> Duration {
        Duration::from_millis((from + self.below(to - from)) as u64)
    }
}

/// What one run does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where everything comes from.
    pub seed: u64,
    /// What breaks.
    pub kind: Kind,
    /// When.
    pub moment: Moment,
    /// How long it stays broken, where that can be said.
    pub outage: Duration,
    /// Whether whole memories are compared before each commit.
    pub verify: bool,
    /// For choices that depend on what is there.
    pub dice: Dice,
}

impl Plan {
    /// The plan of a seed, among some kinds, for an evacuation of `vms` VMs; breaking at a step if one is given.
    pub fn new(seed: u64, kinds: &[Kind], at: Option<Step>, vms: usize) -> Self {
        let mut dice = Dice::new(seed);
        let kind = dice.pick(kinds).unwrap_or(Kind::SourceAgent);
        let moment = moment(kind, at, vms, &mut dice);
        let outage = match kind {
            Kind::Coordinator | Kind::Coordinators => dice.millis(1000, 3000),
            Kind::Leaders => Duration::from_secs(5),
            Kind::LeaderApart => dice.millis(2000, 10_000),
            Kind::CoreCut | Kind::BlackHole => dice.millis(500, 10_000),
            Kind::FrozenSource
            | Kind::FrozenTarget
            | Kind::FrozenNeighbour
            | Kind::FrozenCoordinator => dice.millis(500, 8000),
            _ => dice.millis(500, 3000),
        };
        let verify = dice.below(3) == 0;
        Self { seed, kind, moment, outage, verify, dice }
    }
}

fn moment(kind: Kind, at: Option<Step>, vms: usize, dice: &mut Dice) -> Moment {
    // The holder of content is known when one VM has arrived.
    if at.is_none() && kind != Kind::HolderAgent && dice.below(3) == 0 {
        return Moment::After(dice.millis(0, 4000));
    }
    let steps = match kind {
        Kind::HolderAgent => &[Step::Announcing, Step::Ended][..],
        Kind::SourceQemu => &[Step::Preparing, Step::Copying, Step::Switching, Step::Announcing],
        // Later it is the VM's only one.
        Kind::TargetQemu => &[Step::Preparing, Step::Copying, Step::Switching],
        _ => &[Step::Preparing, Step::Copying, Step::Switching, Step::Switching, Step::Announcing],
    };
    let step = at.or_else(|| dice.pick(steps)).unwrap_or(Step::Copying);
    let later = if dice.below(3) == 0 { Duration::ZERO } else { dice.millis(0, 400) };
    Moment::Step { step, before: dice.below(vms.div_ceil(2)), later }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_says_everything() {
        for seed in 0..100 {
            let plans = [(); 2].map(|()| format!("{:?}", Plan::new(seed, &Kind::ALL, None, 6)));
            assert_eq!(plans[0], plans[1]);
        }
    }

    #[test]
    fn every_kind_and_every_step_comes_up() {
        let plans: Vec<Plan> = (0..300).map(|seed| Plan::new(seed, &Kind::ALL, None, 6)).collect();
        for kind in Kind::ALL {
            assert!(plans.iter().any(|plan| plan.kind == kind), "{kind}");
            assert_eq!(kind.to_string().parse::<Kind>().unwrap(), kind);
        }
        for wanted in [Step::Preparing, Step::Copying, Step::Switching, Step::Announcing] {
            let has =
                |plan: &Plan| matches!(plan.moment, Moment::Step { step, .. } if step == wanted);
            assert!(plans.iter().any(has), "{wanted:?}");
        }
    }

    #[test]
    fn it_breaks_where_it_shall() {
        for step in Step::ALL {
            assert_eq!(step.to_string().parse::<Step>().unwrap(), step);
            for seed in 0..100 {
                let plan = Plan::new(seed, &Kind::ALL, Some(step), 6);
                assert!(matches!(plan.moment, Moment::Step { step: at, .. } if at == step));
            }
        }
    }
}
