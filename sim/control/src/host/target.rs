//! The shell around a target's state machine, which is the production one.

use rackferry_fleet::{MigrationId, Outcome, Said};
use rackferry_migrator_protocol::session::target::{Effect, Event, Target};

use super::chores::{Chore, SessionEvent};
use super::orders::ended;
use super::qemu::{Qemu, Side, Step};
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
        let state = &mut self.hosts[host];
        let vm = state.copy_in(id, Side::Target);
        let Some(agent) = state.agent.as_mut().filter(|agent| agent.welcomed) else {
            return self.close(conn, 1);
        };
        let expected = agent.expected.get(&id) == Some(&generation);
        let (true, Some(vm)) = (expected, vm) else { return self.close(conn, 1) };
        agent.expected.remove(&id);
        let machine = Target::new(self.plan.verify);
        let session = TargetSession { machine, vm, conn, ending: Ending::LeftLoaded };
        agent.targets.insert(id, session);
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
            Frame::Everything => {
                if let Some(copy) = self.hosts[host].copies[vm].as_mut()
                    && copy.qemu == Qemu::Receiving(false)
                {
                    copy.qemu = Qemu::Receiving(true);
                    let pause = self.dice.between(1, 500) * MS;
                    self.qemu_later(host, vm, pause, Step::Load);
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
            self.step_of_session(host, "at the target");
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
            Effect::SendLoaded(_) => self.send(conn, 1, Frame::Loaded),
            Effect::Resume => {
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

    fn target_over(&mut self, host: usize, id: u64) {
        let agent = self.hosts[host].agent.as_mut();
        let Some(session) = agent.and_then(|agent| agent.targets.remove(&id)) else { return };
        self.close(session.conn, 1);
        match session.ending {
            Ending::Running => {
                self.now_owned(host, session.vm);
                self.tell(host, Said::TargetRunning(MigrationId(id)));
            }
            Ending::Discard => {
                self.discard(host, id);
                let end = ended(Outcome::RolledBack, "the target gave up");
                // It is said when the copy is gone.
                self.later(host, 70 * MS, Chore::Tell(Box::new(Said::Ended(MigrationId(id), end))));
            }
            Ending::LeftLoaded => {}
            Ending::Stuck => {
                let end = ended(Outcome::Stopped, "it did not want to run");
                self.tell(host, Said::Ended(MigrationId(id), end));
            }
        }
    }
}
