//! A QEMU, as far as it matters which copy runs.

use rackferry_agent_core::adopt::{Guest, Migration, Seen, classify};
use rackferry_agent_core::{Event, Standing, VmState, Writing};
use rackferry_migrator_protocol::session::{source, target};

use super::chores::{Chore, SessionEvent};
use crate::clock::MS;
use crate::world::{Happening, World};

/// What a QEMU does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qemu {
    /// The guest runs.
    Running,
    /// It runs, and its memory is being sent.
    Sending,
    /// Stopped for the last pass; runs by itself when its stream closes.
    Finishing,
    /// `SHUT(0)` was written to it; it has not seen it yet.
    Shut,
    /// Never runs by itself.
    Postmigrate,
    /// Waits for its stream.
    Incoming,
    /// Reads its stream; true: everything is in its socket.
    Receiving(bool),
    /// Has everything, is paused.
    Loaded,
    /// The process is gone.
    Dead,
}

impl Qemu {
    /// The guest runs, or will run without a further order.
    pub fn may_run(self) -> bool {
        matches!(self, Self::Running | Self::Sending | Self::Finishing | Self::Shut)
    }

    /// The guest runs.
    pub fn runs(self) -> bool {
        matches!(self, Self::Running | Self::Sending)
    }

    /// The guest runs, or one order is enough.
    pub fn can_run(self) -> bool {
        self.may_run() || matches!(self, Self::Postmigrate | Self::Loaded)
    }
}

impl Qemu {
    /// What it says; none if it is gone.
    pub fn seen(self) -> Option<Seen> {
        let (guest, migration) = match self {
            Self::Running => (Guest::Running, Migration::None),
            Self::Sending => (Guest::Running, Migration::Active),
            Self::Finishing | Self::Shut => (Guest::FinishMigrate, Migration::Active),
            Self::Postmigrate => (Guest::PostMigrate, Migration::Completed),
            Self::Incoming => (Guest::InMigrate, Migration::None),
            Self::Receiving(_) => (Guest::InMigrate, Migration::Active),
            Self::Loaded => (Guest::Stopped, Migration::Completed),
            Self::Dead => return None,
        };
        Some(Seen { guest, migration })
    }
}

/// A QEMU with what its host has written down about it.
#[derive(Clone, Debug)]
pub struct Copy {
    /// Of all copies ever made.
    pub serial: u64,
    /// What it does.
    pub qemu: Qemu,
    /// Written down.
    pub standing: Standing,
    /// What is on disk, if the latest could not be written.
    pub stale: Option<Standing>,
    /// It does not answer a new agent until then.
    pub deaf_until: u64,
    /// Its agent has let it run, or cannot know.
    pub let_run: bool,
    /// Its guest powered itself off.
    pub powered_off: bool,
    /// Version of its memory: it rises each time the VM begins to run, anywhere.
    pub memory: u64,
}

impl Copy {
    /// Changes what is written down; false if the disk does not take it.
    pub fn write(&mut self, writing: Writing, full: bool) -> bool {
        if full && !writing.is_fact() {
            return false;
        }
        if full {
            self.stale.get_or_insert(self.standing);
        } else {
            self.stale = None;
        }
        writing.apply(&mut self.standing);
        !full
    }

    /// What it does, as its agent sees it.
    pub fn state(&self) -> VmState {
        self.qemu.seen().map_or(VmState::Dead, |seen| classify(self.standing.role, seen))
    }
}

/// What a QEMU does by itself, whether its agent lives or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Stops the guest for the last pass.
    Stop,
    /// The last bytes have left.
    Sent,
    /// It sees what was written to its return path, or that this is closed.
    Settle,
    /// It has read everything.
    Load,
    /// It obeys `cont`.
    Cont,
}

impl World {
    /// A QEMU does something after a while, unless it is gone by then.
    pub fn qemu_later(&mut self, host: usize, vm: usize, pause: u64, step: Step) {
        if let Some(copy) = &self.hosts[host].copies[vm] {
            self.clock.after(pause, Happening::Qemu { host, vm, serial: copy.serial, step });
        }
    }

    /// A QEMU does a step.
    pub fn qemu_steps(&mut self, host: usize, vm: usize, serial: u64, step: Step) {
        let Some(copy) = self.hosts[host].copies[vm].as_mut().filter(|c| c.serial == serial) else {
            return;
        };
        let before = copy.qemu;
        match (step, copy.qemu) {
            (Step::Stop, Qemu::Sending) => copy.qemu = Qemu::Finishing,
            (Step::Load, Qemu::Receiving(_)) => copy.qemu = Qemu::Loaded,
            (Step::Settle, Qemu::Shut) => {
                // Alone with a closed socket it may not get to read what was written before.
                let heard = self.session_of(host, vm) || self.dice.chance(600);
                let Some(copy) = self.hosts[host].copies[vm].as_mut() else { return };
                copy.qemu = if heard { Qemu::Postmigrate } else { Qemu::Running };
            }
            (Step::Settle, Qemu::Sending | Qemu::Finishing) => copy.qemu = Qemu::Running,
            (Step::Settle, Qemu::Receiving(everything)) => {
                copy.qemu = if everything { Qemu::Loaded } else { Qemu::Dead };
            }
            (Step::Cont, Qemu::Loaded | Qemu::Postmigrate) => copy.qemu = Qemu::Running,
            _ => {}
        }
        let Some(copy) = &self.hosts[host].copies[vm] else { return };
        let after = copy.qemu;
        if !before.runs() && after.runs() {
            self.begins_to_run(host, vm);
        }
        if before != after {
            self.trace.say(self.clock.now, || format!("  {host}/v{vm}: {before:?} -> {after:?}"));
            self.agent_event(host, Event::Changed);
        }
        self.tell_sessions(host, vm, step, after);
    }

    /// A guest begins to run: what it did elsewhere before must be in its memory.
    pub fn begins_to_run(&mut self, host: usize, vm: usize) {
        let Some(copy) = self.hosts[host].copies[vm].as_mut() else { return };
        let newest = &mut self.watch.memories[vm];
        let behind = (copy.memory < *newest).then_some((copy.memory, *newest));
        *newest += 1;
        copy.memory = *newest;
        if let Some((has, newest)) = behind {
            let name = &self.hosts[host].name;
            let what = format!("v{vm} runs on {name} with memory {has}, but {newest} has run");
            self.violated("nothing resumes old memory", what);
        }
    }

    /// Does a session of the living agent work with this QEMU?
    fn session_of(&self, host: usize, vm: usize) -> bool {
        let agent = self.hosts[host].agent.as_ref();
        agent.is_some_and(|agent| agent.sources.values().any(|s| s.vm == vm && !s.over))
    }

    fn tell_sessions(&mut self, host: usize, vm: usize, step: Step, qemu: Qemu) {
        let Some(agent) = &self.hosts[host].agent else { return };
        let sources = agent.sources.iter().filter(|(_, session)| session.vm == vm && !session.over);
        let sources: Vec<(u64, bool)> = sources.map(|(&id, s)| (id, s.closed)).collect();
        let target = agent.targets.iter().find(|(_, t)| t.vm == vm).map(|(&id, _)| id);
        if step == Step::Stop && qemu == Qemu::Finishing {
            let pause = self.dice.between(1, 400) * MS;
            self.qemu_later(host, vm, pause, Step::Sent);
        }
        let mut events = Vec::new();
        for (id, closed) in sources {
            let event = match (step, qemu) {
                (Step::Stop, Qemu::Finishing) => source::Event::VmStopped,
                (Step::Settle, Qemu::Postmigrate) => source::Event::Postmigrate,
                (Step::Settle, Qemu::Running) if closed => source::Event::Resumed,
                (Step::Settle, Qemu::Running) => {
                    source::Event::QemuFailed("not completed".to_owned())
                }
                (Step::Sent, Qemu::Finishing) => {
                    self.everything_sent(host, id);
                    continue;
                }
                _ => continue,
            };
            events.push(SessionEvent::Source(id, event));
        }
        let at_target = match (step, qemu) {
            (Step::Load, Qemu::Loaded) => Some(target::Event::QemuLoaded),
            (Step::Cont, Qemu::Running) => Some(target::Event::Resumed),
            (Step::Cont, _) => Some(target::Event::QemuFailed("cont".to_owned())),
            _ => None,
        };
        if let (Some(id), Some(event)) = (target, at_target) {
            events.push(SessionEvent::Target(id, event));
        }
        for event in events {
            let pause = self.dice.between(MS / 10, 5 * MS);
            self.later(host, pause, Chore::Session(event));
        }
    }

    /// The process of a QEMU ends; its agent and its sessions learn of it.
    pub fn qemu_dies(&mut self, host: usize, vm: usize) {
        let Some(copy) = self.hosts[host].copies[vm].as_mut() else { return };
        if copy.qemu == Qemu::Dead {
            return;
        }
        copy.qemu = Qemu::Dead;
        self.trace.say(self.clock.now, || format!("  {host}/v{vm} dies"));
        self.agent_event(host, Event::Changed);
        let Some(agent) = &self.hosts[host].agent else { return };
        let sources = agent.sources.iter().filter(|(_, s)| s.vm == vm && !s.over);
        let sources = sources.map(|(&id, _)| SessionEvent::Source(id, source::Event::QemuDied));
        let died = || target::Event::QemuFailed("its process ended".to_owned());
        let targets = agent.targets.iter().filter(|(_, t)| t.vm == vm);
        let targets = targets.map(|(&id, _)| SessionEvent::Target(id, died()));
        let events: Vec<SessionEvent> = sources.chain(targets).collect();
        for event in events {
            let pause = self.dice.between(1, 30) * MS;
            self.later(host, pause, Chore::Session(event));
        }
    }
}
