//! The shell around a target's state machine, which is the production one.

use rackferry_agent_core::{Event as Happened, HostName, MigrationId, TargetEnd, Writing};
use rackferry_migrator_protocol::session::target::{Effect, Event, Target};

use super::chores::{Chore, SessionEvent};
use super::qemu::{Qemu, Step};
use crate::clock::MS;
use crate::net::{ConnId, Frame};
use crate::world::World;

/// How a target session ended, so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    LeftLoaded,
    Running,
    Stuck,
    Discard,
}

/// A VM that arrives.
#[derive(Debug)]
pub struct TargetSession {
    /// The state machine.
    pub machine: Target,
    /// The VM.
    pub vm: usize,
    /// Its session with the source.
    pub conn: ConnId,
    ending: Ending,
}

impl World {
    /// A source calls.
    pub(super) fn target_called(&mut self, host: usize, conn: ConnId, id: u64, generation: u64) {
        let migration = MigrationId(id);
        let caller = self.caller_of(conn);
        let called = Happened::Called { migration, session: id, generation, caller };
        self.agent_event_of(host, called, Some(conn));
    }

    /// The host that dialled a connection, as its certificate says.
    fn caller_of(&self, conn: ConnId) -> Option<HostName> {
        let dialled = self.net.conns.get(&conn)?.ends[0];
        let host = (0..self.hosts.len()).find(|&host| self.place_of(host) == dialled)?;
        Some(self.hosts[host].name.clone())
    }

    /// It is the one that is expected: a session begins.
    pub(super) fn receive(&mut self, host: usize, conn: ConnId, id: u64, vm: usize) {
        let copy = self.hosts[host].copies[vm].as_ref();
        let unreachable =
            self.hosts[host].agent.as_ref().is_some_and(|agent| agent.unreachable.contains(&vm));
        if copy.is_none() || unreachable {
            self.close(conn, 1);
            return self.later(host, MS, Chore::TargetOver(id, TargetEnd::NotBegun));
        }
        let machine = Target::new(self.plan.verify);
        let session = TargetSession { machine, vm, conn, ending: Ending::LeftLoaded };
        if let Some(agent) = &mut self.hosts[host].agent {
            agent.targets.insert(id, session);
        }
        self.send(conn, 1, Frame::Accepted);
        match self.hosts[host].copies[vm].as_mut() {
            Some(copy) if copy.qemu == Qemu::Incoming => copy.qemu = Qemu::Receiving(false),
            _ => self.target_event(host, id, Event::QemuFailed("its socket".to_owned())),
        }
    }

    /// A frame of the source.
    pub(super) fn target_hears(&mut self, host: usize, id: u64, conn: ConnId, frame: Frame) {
        if let Frame::Call(id, generation) = frame {
            return self.target_called(host, conn, id, generation);
        }
        let session = self.hosts[host].agent.as_ref().and_then(|agent| agent.targets.get(&id));
        let Some(session) = session.filter(|session| session.conn == conn) else { return };
        let vm = session.vm;
        match frame {
            Frame::Everything(memory) => {
                if let Some(copy) = self.hosts[host].copies[vm].as_mut()
                    && copy.qemu == Qemu::Receiving(false)
                {
                    copy.qemu = Qemu::Receiving(true);
                    copy.memory = memory;
                    self.target_event(host, id, Event::Placed);
                }
            }
            Frame::Go => self.target_event(host, id, Event::Go),
            Frame::Abort => self.target_event(host, id, Event::PeerAbort("the source".to_owned())),
            _ => {}
        }
    }

    /// The connection to the source is gone.
    pub(super) fn target_cut(&mut self, host: usize, id: u64) {
        self.target_event(host, id, Event::PeerLost("closed".to_owned()));
    }

    /// A word of the coordinator for a target session; false if there is none.
    pub(super) fn target_command(&mut self, host: usize, id: u64, event: Event) -> bool {
        let agent = self.hosts[host].agent.as_ref();
        let there = agent.is_some_and(|agent| agent.targets.contains_key(&id));
        if there {
            self.target_event(host, id, event);
        }
        there
    }

    /// Advances a target session.
    pub(super) fn target_event(&mut self, host: usize, id: u64, event: Event) {
        let agent = self.hosts[host].agent.as_mut();
        let Some(session) = agent.and_then(|agent| agent.targets.get_mut(&id)) else { return };
        let mut effects = Vec::new();
        let vm = session.vm;
        let before = session.machine.phase();
        session.machine.handle(event, &mut effects);
        let after = session.machine.phase();
        if before != after {
            self.trace.say(self.clock.now, || {
                format!("  {} target of mig-{id}: {before:?} -> {after:?}", self.hosts[host].name)
            });
        }
        for effect in effects {
            self.target_effect(host, id, effect);
        }
        if before != after {
            self.step_of_session(host, vm, "at the target");
        }
    }

    fn target_effect(&mut self, host: usize, id: u64, effect: Effect) {
        let agent = self.hosts[host].agent.as_mut();
        let Some(session) = agent.and_then(|agent| agent.targets.get_mut(&id)) else { return };
        let (vm, conn) = (session.vm, session.conn);
        match effect {
            Effect::HashMemory => {
                let pause = self.dice.between(10, 900) * MS;
                let hashed = SessionEvent::Target(id, Event::Hashed([7; 32]));
                self.later(host, pause, Chore::Session(hashed));
            }
            Effect::PassOn => {
                let pause = self.dice.between(1, 500) * MS;
                self.qemu_later(host, vm, pause, Step::Load);
            }
            Effect::WriteAboutToRun => {
                let Some(copy) = &self.hosts[host].copies[vm] else { return };
                let serial = copy.serial;
                let pause = self.dice.between(MS / 10, 60 * MS);
                self.later(host, pause, Chore::WriteAboutToRun(id, vm, serial));
            }
            Effect::SendLoaded(_) => self.send(conn, 1, Frame::Loaded),
            Effect::Resume => {
                if let Some(copy) = self.hosts[host].copies[vm].as_mut() {
                    copy.let_run = true;
                }
                let pause = self.dice.between(1, 60) * MS;
                self.qemu_later(host, vm, pause, Step::Cont);
            }
            Effect::SendRunning => {
                session.ending = Ending::Running;
                self.send(conn, 1, Frame::Running);
            }
            Effect::SendAbort(_) => {
                if session.ending == Ending::LeftLoaded {
                    session.ending = Ending::Stuck;
                }
                self.send(conn, 1, Frame::Abort);
            }
            Effect::Discard(_) => session.ending = Ending::Discard,
            Effect::Finish => self.target_over(host, id),
        }
    }

    /// It is written down that a copy may run, or its disk is full.
    pub(super) fn write_about_to_run(&mut self, host: usize, id: u64, vm: usize, serial: u64) {
        let full = self.hosts[host].full;
        let copy = self.hosts[host].copies[vm].as_mut().filter(|copy| copy.serial == serial);
        let written = copy.is_some_and(|copy| copy.write(Writing::AboutToRun, full));
        let event = match written {
            true => Event::AboutToRun,
            false => Event::NotWritten("no disk".to_owned()),
        };
        self.target_event(host, id, event);
    }

    fn target_over(&mut self, host: usize, id: u64) {
        let agent = self.hosts[host].agent.as_mut();
        let Some(session) = agent.and_then(|agent| agent.targets.remove(&id)) else { return };
        self.close(session.conn, 1);
        if matches!(session.ending, Ending::LeftLoaded | Ending::Stuck) {
            self.seek(session.vm);
        }
        let end = match session.ending {
            Ending::Running => TargetEnd::Running,
            Ending::Discard => TargetEnd::Discard("the target gave up".to_owned()),
            Ending::LeftLoaded => TargetEnd::LeftLoaded,
            Ending::Stuck => TargetEnd::Stuck("it did not want to run".to_owned()),
        };
        let pause = self.dice.between(MS / 10, 20 * MS);
        self.later(host, pause, Chore::TargetOver(id, end));
    }
}
