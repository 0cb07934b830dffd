//! A host: QEMUs and a state directory, which last, and an agent process, which comes and goes.

mod act;
mod adopt;
mod chores;
mod control;
mod convert;
pub mod qemu;
mod rules;
mod source;
mod target;

use std::collections::{BTreeMap, BTreeSet};

use rackferry_agent_core::{Core, Facts, Side, Standing, VmState};
use rackferry_fleet::{BootId, HostName, Installation, RackName, VmReport};

use crate::net::ConnId;
use crate::operator::vm_name;
use crate::world::{Happening, World};
use qemu::{Copy, Qemu};

pub use chores::Chore;
pub use control::clone_installation;
pub use convert::Simulated;
pub use source::SourceSession;
pub use target::TargetSession;

/// Memory of every VM.
pub const VM_BYTES: u64 = 100 << 20;

/// A host.
#[derive(Debug)]
pub struct Host {
    /// Its name.
    pub name: HostName,
    /// Its rack.
    pub rack: RackName,
    /// Copies of VMs by number: QEMU and what is written down about it.
    pub copies: Vec<Option<Copy>>,
    /// The state directory cannot be written.
    pub full: bool,
    /// Starts of its agent.
    pub life: u64,
    /// Disks it has had: each is an installation of its own.
    pub disks: u64,
    /// Its agent, if that lives.
    pub agent: Option<Agent>,
    /// An agent is about to be started.
    pub starting: bool,
}

/// What is lost with the agent's process.
#[derive(Debug)]
pub struct Agent {
    /// This start.
    pub boot: BootId,
    /// Its stream to a coordinator.
    pub stream: Option<ConnId>,
    /// The coordinator takes what it says.
    pub taken: bool,
    /// The coordinator to try next.
    pub dial_next: usize,
    /// Its rules.
    pub core: Core<Simulated>,
    /// The moment its rules are told that time has passed, if that is planned.
    tick_at: Option<u64>,
    /// What waits to be said is about to be sent.
    draining: bool,
    /// Sessions of VMs that leave, by migration.
    pub sources: BTreeMap<u64, SourceSession>,
    /// Sessions of VMs that arrive.
    pub targets: BTreeMap<u64, TargetSession>,
    /// VMs that something is being done to: nothing else is.
    busy: BTreeSet<usize>,
    /// VMs whose QEMU is being started: not listed yet.
    booting: BTreeSet<usize>,
    /// VMs whose QEMU has not answered this agent yet.
    pub unreachable: BTreeSet<usize>,
}

impl Host {
    /// A host without agent.
    pub fn new(name: &str, rack: &str, vms: usize) -> Self {
        Self {
            name: name.into(),
            rack: rack.into(),
            copies: vec![None; vms],
            full: false,
            life: 0,
            disks: 1,
            agent: None,
            starting: false,
        }
    }

    /// The installation of its agent.
    pub fn installation(&self) -> Installation {
        Installation::new(format!("{}-disk-{}", self.name, self.disks))
    }

    /// The copy of a VM that takes part in a migration on this side.
    pub fn copy_in(&self, migration: u64, side: Side) -> Option<usize> {
        self.copies.iter().position(|copy| {
            let mark = copy.as_ref().and_then(|copy| copy.standing.mark);
            mark.is_some_and(|mark| mark.migration.0 == migration && mark.side == side)
        })
    }

    /// What its agent knows of a VM; none while that is being started.
    fn facts(&self, vm: usize) -> Option<Facts> {
        let (agent, copy) = (self.agent.as_ref()?, self.copies[vm].as_ref()?);
        if agent.booting.contains(&vm) {
            return None;
        }
        let unreachable = agent.unreachable.contains(&vm);
        let state = if unreachable { VmState::Unknown } else { copy.state() };
        Some(Facts { name: vm_name(vm), standing: copy.standing, state })
    }

    /// Memory for guests that is left, of so much.
    pub fn free(&self, room: u64) -> u64 {
        let alive = |copy: &&Copy| copy.qemu != Qemu::Dead;
        let used = self.copies.iter().flatten().filter(alive).count() as u64;
        room.saturating_sub(used) * VM_BYTES
    }

    /// What its agent lists.
    pub fn list(&self) -> Vec<VmReport> {
        let listed = (0..self.copies.len())
            .filter_map(|vm| Some((self.facts(vm)?, self.copies[vm].as_ref()?)));
        listed
            .map(|(facts, &Copy { let_run, powered_off, .. })| VmReport {
                name: facts.name.as_str().into(),
                memory_bytes: VM_BYTES,
                run_state: facts.state,
                migration: facts.standing.mark.map(|mark| mark.migration),
                qemu_version: String::new(),
                machine_type: String::new(),
                spec_toml: "x".to_owned(),
                may_have_run: facts.standing.may_have_run(let_run),
                destroyed: facts.standing.destroyed,
                powered_off,
                cpu_properties: Vec::new(),
            })
            .collect()
    }
}

impl World {
    /// The agent of a host, if it is this start of it.
    pub fn agent(&mut self, host: usize, life: u64) -> Option<&mut Agent> {
        let host = &mut self.hosts[host];
        if host.life == life { host.agent.as_mut() } else { None }
    }

    /// Its place in the network.
    pub fn place_of(&self, host: usize) -> usize {
        self.nodes.len() + host
    }

    /// Lets an agent do something after a while, unless it dies before.
    pub fn later(&mut self, host: usize, pause: u64, chore: Chore) {
        let life = self.hosts[host].life;
        self.clock.after(pause, Happening::Chore(host, life, Box::new(chore)));
    }

    /// Puts the VMs of the start where they are.
    pub fn boot_vms(&mut self) {
        for vm in 0..self.plan.vms {
            let host = self.dice.index(self.plan.hosts_per_rack);
            self.copy_count += 1;
            let copy = Copy {
                serial: self.copy_count,
                qemu: Qemu::Running,
                standing: Standing::owned(0),
                stale: None,
                deaf_until: 0,
                let_run: true,
                powered_off: false,
                memory: 0,
            };
            self.hosts[host].copies[vm] = Some(copy);
        }
    }
}

impl World {
    /// A frame of the other agent of a migration.
    pub fn pipe_hears(
        &mut self,
        host: usize,
        end: usize,
        migration: u64,
        id: ConnId,
        frame: crate::net::Frame,
    ) {
        if end == 0 {
            self.source_hears(host, migration, id, frame);
        } else if self.hosts[host].agent.is_none() {
            self.close(id, 1);
        } else {
            self.target_hears(host, migration, id, frame);
        }
    }

    /// The connection of a migration is over for the agent at a place.
    pub fn pipe_ended(&mut self, id: ConnId, migration: u64, place: usize) {
        let host = place - self.nodes.len();
        let Some(agent) = &self.hosts[host].agent else { return };
        let source = agent.sources.get(&migration).is_some_and(|s| s.conn == Some(id));
        let target = agent.targets.get(&migration).is_some_and(|t| t.conn == id);
        if source {
            self.source_cut(host, migration);
        } else if target {
            self.target_cut(host, migration);
        }
    }
}
