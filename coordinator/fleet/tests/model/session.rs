//! Sessions: the source's, and the page connection between both.

use rackferry_fleet::{Activity, Generation, MigrationId, Outcome, Progress, RunState, Said};

use super::{VMS, Wires, World};
use crate::common::{ended, progress};

/// A page connection.
pub struct Pipe {
    pub source: usize,
    pub target: usize,
    /// To the target.
    pub down: Wires,
    /// To the source.
    pub up: Wires,
}

impl Pipe {
    pub fn new(source: usize, target: usize) -> Self {
        Self { source, target, down: Wires::new(), up: Wires::new() }
    }
}

/// What sessions tell each other.
#[derive(Clone, Copy, Debug)]
pub enum Wire {
    /// The end of QEMU's stream.
    Everything,
    /// The target's QEMU is loaded and paused.
    Loaded,
    /// The source's QEMU is in postmigrate.
    Go,
    /// The target runs.
    Running,
}

/// A source session.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    pub migration: u64,
    pub generation: Generation,
    pub phase: SourcePhase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourcePhase {
    Copies,
    WaitsForSlot,
    /// The valve is open.
    Finishes,
    WaitsForLoad,
    WaitsForCommit,
    Granted,
    /// SHUT was forwarded, the QEMU is in postmigrate.
    WaitsForRun,
}

impl SourcePhase {
    pub fn is_its_turn(self) -> bool {
        matches!(self, Self::Copies | Self::Finishes | Self::Granted)
    }
}

impl World {
    fn name_of(&self, host: usize, b: usize) -> Option<(&'static str, Source)> {
        let name = VMS[b % VMS.len()];
        self.agents[host].sources.get(name).map(|source| (name, *source))
    }

    fn enter(&mut self, host: usize, name: &'static str, phase: SourcePhase) {
        if let Some(source) = self.agents[host].sources.get_mut(name) {
            source.phase = phase;
        }
    }

    /// One step of a source session that it can do by itself.
    pub fn advance(&mut self, host: usize, b: usize) {
        let Some((name, Source { migration, phase, .. })) = self.name_of(host, b) else { return };
        let id = MigrationId(migration);
        match phase {
            SourcePhase::Copies => {
                self.say(host, Said::SwitchoverRequest(id));
                let activity = Activity::Switching;
                self.say(host, Said::Progress(id, Progress { activity, ..progress(0.5) }));
                self.enter(host, name, SourcePhase::WaitsForSlot);
            }
            SourcePhase::Finishes => {
                self.send_down(migration, Wire::Everything);
                self.enter(host, name, SourcePhase::WaitsForLoad);
            }
            SourcePhase::Granted => {
                // SHUT(0): from here on it cannot run by itself.
                if let Some(qemu) = self.agents[host].qemus.get_mut(name) {
                    assert_eq!(qemu.run_state, RunState::Running);
                    qemu.run_state = RunState::MovedOut;
                }
                self.enter(host, name, SourcePhase::WaitsForRun);
                self.say(host, Said::SourceStopped(id));
                self.send_down(migration, Wire::Go);
            }
            SourcePhase::WaitsForSlot
            | SourcePhase::WaitsForLoad
            | SourcePhase::WaitsForCommit
            | SourcePhase::WaitsForRun => {}
        }
    }

    fn send_down(&mut self, migration: u64, wire: Wire) {
        if let Some(pipe) = self.pipes.get_mut(&migration) {
            pipe.down.push_back(wire);
        }
    }

    pub fn receive(&mut self, host: usize, migration: u64, wire: Wire) {
        match wire {
            Wire::Everything => {
                let Some((_, qemu)) = self.agents[host].copy(migration) else { return };
                if qemu.run_state == RunState::Incoming {
                    qemu.run_state = RunState::Loaded;
                    self.send_up(migration, Wire::Loaded);
                }
            }
            Wire::Loaded => {
                let Some(source) = self.source_of(host, migration) else { return };
                if source.phase == SourcePhase::WaitsForLoad {
                    source.phase = SourcePhase::WaitsForCommit;
                    let generation = source.generation;
                    self.say(host, Said::CommitRequest(MigrationId(migration), generation));
                }
            }
            Wire::Go => {
                self.run_target(host, migration);
                let runs = self.agents[host].copy(migration);
                if runs.is_some_and(|(_, qemu)| qemu.run_state == RunState::Running) {
                    self.send_up(migration, Wire::Running);
                }
            }
            Wire::Running => {
                let Some((name, _)) = self.agents[host].copy(migration) else { return };
                if self.agents[host].sources.remove(name).is_some() {
                    self.agents[host].qemus.remove(name);
                    self.pipes.remove(&migration);
                    let end = ended(Outcome::Moved);
                    self.say(host, Said::Ended(MigrationId(migration), end));
                }
            }
        }
    }

    fn send_up(&mut self, migration: u64, wire: Wire) {
        if let Some(pipe) = self.pipes.get_mut(&migration) {
            pipe.up.push_back(wire);
        }
    }

    pub fn decided(&mut self, host: usize, migration: u64, granted: bool) {
        let Some(source) = self.source_of(host, migration) else { return };
        if source.phase != SourcePhase::WaitsForCommit {
            return;
        }
        if granted {
            source.phase = SourcePhase::Granted;
        } else {
            self.give_up_migration(host, migration);
        }
    }

    pub fn give_up(&mut self, host: usize, b: usize) {
        if let Some((_, source)) = self.name_of(host, b) {
            self.give_up_migration(host, source.migration);
        }
    }

    /// Closes the migration socket: a QEMU to which SHUT was not forwarded runs on by itself.
    pub fn give_up_migration(&mut self, host: usize, migration: u64) {
        let Some(source) = self.source_of(host, migration) else { return };
        if source.phase == SourcePhase::WaitsForRun {
            return;
        }
        self.break_pipe(migration);
    }

    /// Both sides see the connection close.
    pub fn break_pipe(&mut self, migration: u64) {
        let Some(pipe) = self.pipes.remove(&migration) else { return };
        let id = MigrationId(migration);
        let alive = self.agents[pipe.source].alive;
        if let Some(source) = self.source_of(pipe.source, migration).copied().filter(|_| alive) {
            let outcome = match source.phase {
                SourcePhase::WaitsForRun => Outcome::Stopped,
                _ => Outcome::RolledBack,
            };
            self.agents[pipe.source].sources.retain(|_, other| other.migration != migration);
            // What runs here takes part no more, and says so.
            if let Some((_, qemu)) = self.agents[pipe.source].copy(migration)
                && qemu.run_state == RunState::Running
            {
                qemu.migration = None;
            }
            self.say(pipe.source, Said::Ended(id, ended(outcome)));
        }
        // A QEMU in the middle of its incoming stream exits; a loaded one waits for a word.
        if self.agents[pipe.target].alive
            && let Some((name, qemu)) = self.agents[pipe.target].copy(migration)
            && qemu.run_state == RunState::Incoming
        {
            self.agents[pipe.target].qemus.remove(name);
            self.say(pipe.target, Said::Ended(id, ended(Outcome::RolledBack)));
        }
    }

    /// A QEMU was killed: sessions that used it end.
    pub fn qemu_died(&mut self, host: usize, vm: &'static str) {
        let migration = self.agents[host].qemus.get(vm).and_then(|qemu| qemu.migration);
        if let Some(source) = self.agents[host].sources.remove(vm) {
            let id = MigrationId(source.migration);
            let stopped = source.phase == SourcePhase::WaitsForRun;
            if stopped {
                self.say(host, Said::SourceStopped(id));
            } else {
                self.break_pipe(source.migration);
            }
            self.say(host, Said::Ended(id, ended(Outcome::VmLost)));
        } else if let Some(migration) = migration
            && self.pipes.get(&migration).is_some_and(|pipe| pipe.target == host)
        {
            self.say(host, Said::Ended(MigrationId(migration), ended(Outcome::VmLost)));
            self.break_pipe(migration);
        }
    }

    /// What is still open is asked again on a new stream.
    pub fn ask_again(&mut self, host: usize) {
        let open: Vec<Source> = self.agents[host].sources.values().copied().collect();
        for Source { migration, generation, phase } in open {
            let id = MigrationId(migration);
            match phase {
                SourcePhase::WaitsForSlot => self.say(host, Said::SwitchoverRequest(id)),
                SourcePhase::WaitsForCommit => {
                    self.say(host, Said::CommitRequest(id, generation));
                }
                _ => {}
            }
        }
    }
}
