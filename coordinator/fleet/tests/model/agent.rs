//! An agent: its QEMUs, which outlive it, and how it obeys.

use std::collections::{BTreeMap, VecDeque};

use rackferry_fleet::{Connection, MigrationId, Order, Outcome, RunState, Said, VmReport};

use super::{
    Down, Habits, VMS, World,
    session::{Pipe, Source, SourcePhase},
};
use crate::common::{ended, vm};

/// A QEMU, with what the agent wrote down about it.
#[derive(Clone, Debug)]
pub struct Qemu {
    pub run_state: RunState,
    pub migration: Option<u64>,
    /// The start of the agent whose session feeds it.
    pub session_boot: u32,
}

pub struct Agent {
    pub host: &'static str,
    pub rack: &'static str,
    pub boot: u32,
    pub alive: bool,
    pub connection: Option<Connection>,
    pub up: VecDeque<Said>,
    pub down: Down,
    pub qemus: BTreeMap<&'static str, Qemu>,
    pub sources: BTreeMap<&'static str, Source>,
}

impl Agent {
    pub fn new(host: &'static str, rack: &'static str) -> Self {
        Self {
            host,
            rack,
            boot: 1,
            alive: true,
            connection: None,
            up: VecDeque::new(),
            down: VecDeque::new(),
            qemus: BTreeMap::new(),
            sources: BTreeMap::new(),
        }
    }

    pub fn boot_vm(&mut self, name: &'static str) {
        let qemu = Qemu { run_state: RunState::Running, migration: None, session_boot: 0 };
        self.qemus.insert(name, qemu);
    }

    pub fn state(&self, name: &str) -> Option<RunState> {
        self.qemus.get(name).map(|qemu| qemu.run_state)
    }

    pub fn runs(&self, name: &str) -> bool {
        self.state(name) == Some(RunState::Running)
    }

    /// Its session of this VM has something to do that waits for nobody.
    pub fn can_advance(&self, name: &str) -> bool {
        self.sources.get(name).is_some_and(|source| source.phase.is_its_turn())
    }

    pub fn list(&self, habits: Habits) -> Vec<VmReport> {
        let listed = self
            .qemus
            .iter()
            .filter(|(_, qemu)| habits.lists_dead || qemu.run_state != RunState::Dead);
        listed
            .map(|(name, qemu)| {
                let session = self.sources.get(name).map(|source| source.migration);
                let migration = match qemu.run_state {
                    RunState::Running if session.is_some() => session,
                    RunState::Running if !habits.remembers => None,
                    _ => qemu.migration,
                };
                VmReport { migration: migration.map(MigrationId), ..vm(name, qemu.run_state) }
            })
            .collect()
    }

    /// The process is gone; its QEMUs notice that their streams are closed.
    pub fn die(&mut self) {
        self.sources.clear();
        for qemu in self.qemus.values_mut() {
            if qemu.run_state == RunState::Incoming {
                qemu.run_state = RunState::Dead;
            }
        }
    }

    pub fn start(&mut self) {
        if !self.alive {
            self.alive = true;
            self.boot += 1;
        }
    }

    /// Kills what is alive; returns what it was.
    pub fn kill_qemu(&mut self, name: &'static str) -> Option<RunState> {
        let qemu = self.qemus.get_mut(name)?;
        let was = qemu.run_state;
        qemu.run_state = RunState::Dead;
        (was != RunState::Dead).then_some(was)
    }

    /// The copy of this migration, with the VM's name.
    pub fn copy(&mut self, migration: u64) -> Option<(&'static str, &mut Qemu)> {
        let found = self.qemus.iter_mut().find(|(_, qemu)| qemu.migration == Some(migration));
        found.map(|(name, qemu)| (*name, qemu))
    }
}

impl World {
    pub fn obey(&mut self, host: usize, order: Order) {
        match order {
            Order::Welcome(_) | Order::RackView { .. } => {}
            Order::PrepareTarget { migration, vm, .. } => {
                self.prepare(host, migration, vm.as_str())
            }
            Order::StartSource { migration, vm, generation, target, .. } => {
                let target = target.host.as_str();
                let target = super::HOSTS.iter().position(|(name, _)| *name == target);
                let target = target.expect("only our hosts are named");
                self.start_source(host, migration.0, generation, vm.as_str(), target);
            }
            Order::CommitDecision { migration, refusal, .. } => {
                self.decided(host, migration.0, refusal.is_none());
            }
            Order::Cancel(migration, _) => self.give_up_migration(host, migration.0),
            Order::ResumeTarget(migration, _) => self.run_target(host, migration.0),
            Order::DiscardTarget(migration, _) => {
                if let Some((name, qemu)) = self.agents[host].copy(migration.0) {
                    if matches!(qemu.run_state, RunState::Incoming | RunState::Loaded) {
                        self.agents[host].qemus.remove(name);
                        self.break_pipe(migration.0);
                    } else if qemu.run_state == RunState::Running {
                        panic!("told to discard what runs\n{}", self.trace.join("\n"));
                    }
                }
                self.say(host, Said::TargetDiscarded(migration));
            }
            Order::SwitchoverGrant(migration) => {
                if let Some(source) = self.source_of(host, migration.0)
                    && source.phase == SourcePhase::WaitsForSlot
                {
                    source.phase = SourcePhase::Finishes;
                }
            }
            Order::ReleaseSource { migration, resume, .. } => {
                if let Some((name, qemu)) = self.agents[host].copy(migration.0)
                    && qemu.run_state == RunState::MovedOut
                {
                    if resume {
                        qemu.run_state = RunState::Running;
                    } else {
                        self.agents[host].qemus.remove(name);
                    }
                    self.agents[host].sources.remove(name);
                }
            }
        }
    }

    fn prepare(&mut self, host: usize, migration: MigrationId, vm: &str) {
        let name = VMS.into_iter().find(|name| *name == vm).expect("only our VMs are named");
        let agent = &mut self.agents[host];
        let boot = agent.boot;
        let said = match agent.qemus.get(name) {
            Some(Qemu { run_state: RunState::Incoming, migration: Some(id), session_boot })
                if *id == migration.0 && *session_boot == boot =>
            {
                Said::TargetReady(migration)
            }
            Some(qemu) if qemu.run_state != RunState::Dead => {
                Said::Ended(migration, ended(Outcome::RolledBack))
            }
            _ => {
                let qemu = Qemu {
                    run_state: RunState::Incoming,
                    migration: Some(migration.0),
                    session_boot: boot,
                };
                agent.qemus.insert(name, qemu);
                Said::TargetReady(migration)
            }
        };
        self.say(host, said);
    }

    fn start_source(
        &mut self,
        host: usize,
        migration: u64,
        generation: rackferry_fleet::Generation,
        vm: &str,
        target: usize,
    ) {
        let name = VMS.into_iter().find(|name| *name == vm).expect("only our VMs are named");
        let busy = self.agents[host].sources.contains_key(name);
        if self.source_of(host, migration).is_some() {
            return;
        }
        let there = &mut self.agents[target];
        let boot = there.boot;
        let waits = there.alive
            && there.copy(migration).is_some_and(|(_, qemu)| {
                qemu.run_state == RunState::Incoming && qemu.session_boot == boot
            });
        if busy || !waits || !self.agents[host].runs(name) {
            let end = ended(Outcome::RolledBack);
            return self.say(host, Said::Ended(MigrationId(migration), end));
        }
        let phase = SourcePhase::Copies;
        self.agents[host].sources.insert(name, Source { migration, generation, phase });
        if let Some(qemu) = self.agents[host].qemus.get_mut(name) {
            qemu.migration = Some(migration);
        }
        self.pipes.insert(migration, Pipe::new(host, target));
    }

    /// `cont`: only what is loaded, and only on somebody's word.
    pub fn run_target(&mut self, host: usize, migration: u64) {
        let Some((_, qemu)) = self.agents[host].copy(migration) else { return };
        match qemu.run_state {
            RunState::Loaded => qemu.run_state = RunState::Running,
            RunState::Running => {}
            _ => return,
        }
        self.say(host, Said::TargetRunning(MigrationId(migration)));
    }

    pub fn source_of(&mut self, host: usize, migration: u64) -> Option<&mut Source> {
        self.agents[host].sources.values_mut().find(|source| source.migration == migration)
    }
}
