//! The control plane in a world of its own.
//!
//! Coordinators, agents and QEMUs live in one deterministic world: virtual time, everything by chance from one seed.
//! The coordinators run the production [`rackferry_fleet::Fleet`] over a small replicated log, the agents run the
//! production [`rackferry_agent_core::Core`] and the session machines of `rackferry_migrator_protocol`; what is modelled is
//! what lies around them: streams, disks, processes, QEMU. Things break at every step, and after every event all [invariants] are looked at.
//!
//! * [`world`]: what there is and what happens next; [`plan`]: what a seed makes of it.
//! * [`raft`], [`leader`], [`truth`]: the coordinators; [`host`]: agents and their QEMUs; [`net`]: what connects them.
//! * [`faults`], [`operator`], [`heal`]: trouble, wishes, and the end.
//! * [`sweep`]: many seeds on all cores; [`replay`]: one seed with everything that happened.

pub mod clock;
pub mod coverage;
pub mod dice;
pub mod faults;
pub mod heal;
pub mod host;
pub mod invariants;
pub mod leader;
pub mod net;
pub mod operator;
pub mod plan;
pub mod raft;
pub mod sweep;
pub mod trace;
pub mod truth;
pub mod world;

use coverage::Coverage;
use invariants::Violation;
use world::World;

/// A bug that is put in to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// One in the fleet, or in the turns of its leader.
    #[cfg(feature = "planted-bugs")]
    InFleet(rackferry_fleet::PlantedBug),
    /// One in the rules of every agent.
    #[cfg(feature = "planted-bugs")]
    InAgent(rackferry_agent_core::PlantedBug),
}

/// What became of a world.
#[derive(Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// What did not hold.
    pub violation: Option<Violation>,
    /// What it reached.
    pub coverage: Coverage,
    /// What happened, if it was kept.
    pub trace: Vec<String>,
}

/// Runs the world of a seed.
pub fn play(seed: u64, bug: Option<Bug>) -> Report {
    live(seed, bug, false)
}

/// Runs the world of a seed, keeping everything that happens.
pub fn replay(seed: u64, bug: Option<Bug>) -> Report {
    live(seed, bug, true)
}

fn live(seed: u64, bug: Option<Bug>, traced: bool) -> Report {
    #[cfg(feature = "planted-bugs")]
    rackferry_agent_core::plant(match bug {
        Some(Bug::InAgent(bug)) => Some(bug),
        _ => None,
    });
    let mut world = World::new(seed, bug, traced);
    world.live();
    let World { violation, coverage, trace, .. } = world;
    Report { seed, violation, coverage, trace: trace.into_lines() }
}
