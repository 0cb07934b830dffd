//! The shell around a source's state machine, which is the production one.

use std::time::Duration;

use rackferry_agent_core::{Event as Happened, MigrationId, SourceWord};
use rackferry_fleet::{Activity, Progress};
use rackferry_migrator_protocol::session::convergence::UNBOUNDED_MS;
use rackferry_migrator_protocol::session::source::{Effect, Event, Outcome, Phase, Source, Unsent};
use rackferry_migrator_protocol::session::stop::{DECISION_TIMEOUT, Sight, Stop, Verdict};

use super::Simulated;
use super::chores::{Chore, SessionEvent, Start};
use super::convert::Figures;
use super::qemu::{Qemu, Step};
use crate::clock::MS;
use crate::net::{ConnId, Frame, Purpose};
use crate::world::World;

/// Pause before a slot is asked for again.
const ASK_AGAIN: u64 = 500 * MS;
/// Guest bytes per second at which last pages go.
const LAST_PASS_RATE: u64 = 100_000_000;
/// A VM's limit, and the stops that are forecast for guests that are quiet and for those that are not, milliseconds.
const LIMIT_MS: u32 = 300;
const QUIET_MS: u32 = 20;
const RESTLESS_MS: u32 = 2500;

/// A VM that leaves.
#[derive(Debug)]
pub struct SourceSession {
    /// The state machine.
    pub machine: Source,
    /// The VM.
    pub vm: usize,
    /// Its session with the target.
    pub conn: Option<ConnId>,
    /// The target has accepted it.
    accepted: bool,
    /// What came before that.
    early: Vec<Event>,
    /// QEMU's migration stream was closed.
    pub closed: bool,
    /// It has said its last word to the machine.
    pub over: bool,
    began_at: u64,
    copy_ns: u64,
    asked_at: Option<u64>,
    /// It will not stop its VM before it is told.
    has_valve: bool,
    /// When its VM may be stopped, and what is done if it never may: the production one.
    stop: Stop,
    stopped: bool,
    round: u32,
    /// Its guest writes faster than is sent.
    restless: bool,
}

impl SourceSession {
    /// Its phase, for counting.
    pub fn phase_name(&self) -> &'static str {
        name_of(self.machine.phase())
    }

    /// Its VM may be stopped for as long as it takes.
    pub(super) fn force_switchover(&mut self) {
        self.stop.force_switchover();
    }

    /// Looks at its QEMU after some passes: what follows.
    fn look(&mut self, now: u64, copied: bool, passes: u32) -> Option<Event> {
        self.round += passes;
        let sight = Sight {
            at: Duration::from_nanos(now - self.began_at),
            round: self.round,
            first_pass_done: copied,
            stopped: self.stopped,
            stop_ms: if self.restless { RESTLESS_MS } else { QUIET_MS },
            last_pass_rate: LAST_PASS_RATE,
        };
        let Verdict { event, .. } = self.stop.look(&sight, self.machine.phase());
        event
    }
}

impl World {
    /// A session of a source agent begins.
    pub(super) fn start_source(&mut self, host: usize, migration: u64, start: Start) {
        let Start { vm, generation, target, disruption } = start;
        let session = SourceSession {
            machine: Source::new(self.plan.verify),
            vm,
            conn: None,
            accepted: false,
            early: Vec::new(),
            closed: false,
            over: false,
            began_at: self.clock.now,
            copy_ns: self.dice.between(20 * MS, self.plan.copy_ns),
            asked_at: None,
            has_valve: !self.plan.old_qemu || self.dice.chance(500),
            stop: Stop::new(disruption, LIMIT_MS),
            stopped: false,
            round: 1,
            restless: self.dice.chance(self.plan.restless),
        };
        let (me, there) = (self.place_of(host), self.place_of(target));
        if let Some(agent) = &mut self.hosts[host].agent {
            agent.sources.insert(migration, session);
        }
        if self.hosts[target].agent.is_none() {
            return self.later(host, 5 * MS, Chore::CallFailed(migration));
        }
        let call = Frame::Call(migration, generation);
        let conn = self.dial(me, there, Purpose::Pipe(migration), call);
        if let Some(session) = self.source_mut(host, migration) {
            session.conn = Some(conn);
        }
        self.step_of_session(host, vm, "calling");
    }

    pub(super) fn source_mut(&mut self, host: usize, id: u64) -> Option<&mut SourceSession> {
        self.hosts[host].agent.as_mut()?.sources.get_mut(&id)
    }

    pub(super) fn call_failed(&mut self, host: usize, id: u64) {
        let Some(session) = self.source_mut(host, id).filter(|s| !s.over) else { return };
        if !session.accepted {
            self.source_finishes(host, id, Outcome::RolledBack("its call was lost".to_owned()));
        }
    }

    /// A frame of the target.
    pub(super) fn source_hears(&mut self, host: usize, id: u64, conn: ConnId, frame: Frame) {
        let digest = self.plan.verify.then_some([7; 32]);
        if self.source_mut(host, id).is_none_or(|session| session.conn != Some(conn)) {
            return;
        }
        let event = match frame {
            Frame::Accepted => return self.source_accepted(host, id),
            Frame::Loaded => Event::Loaded { digest },
            Frame::Running => Event::Running,
            Frame::Abort => Event::PeerAbort("the target".to_owned()),
            _ => return,
        };
        self.source_event(host, id, event);
    }

    fn source_accepted(&mut self, host: usize, id: u64) {
        let Some(session) = self.source_mut(host, id) else { return };
        session.accepted = true;
        let early = std::mem::take(&mut session.early);
        self.source_event(host, id, Event::Accepted);
        for event in early {
            self.source_event(host, id, event);
        }
    }

    /// The connection to the target is gone.
    pub(super) fn source_cut(&mut self, host: usize, id: u64) {
        let Some(session) = self.source_mut(host, id) else { return };
        if session.accepted {
            self.source_event(host, id, Event::PeerLost("closed".to_owned()));
        } else {
            self.call_failed(host, id);
        }
    }

    /// A word of the coordinator for a source session.
    pub(super) fn source_command(&mut self, host: usize, id: u64, event: Event) {
        if let Some(session) = self.source_mut(host, id).filter(|s| !s.over) {
            if session.accepted {
                self.source_event(host, id, event);
            } else {
                session.early.push(event);
            }
        }
    }

    /// Advances a source session.
    pub(super) fn source_event(&mut self, host: usize, id: u64, event: Event) {
        let Some(session) = self.source_mut(host, id).filter(|s| !s.over) else { return };
        if !session.accepted && !matches!(event, Event::Accepted) {
            return session.early.push(event);
        }
        let verify = self.plan.verify;
        let Some(session) = self.source_mut(host, id) else { return };
        let stopped = matches!(event, Event::VmStopped) && !session.stopped;
        session.stopped |= stopped;
        let vm = session.vm;
        let load_timeout = session.stop.load_timeout(verify);
        let before = name_of(session.machine.phase());
        let mut effects = Vec::new();
        session.machine.handle(event, &mut effects);
        let after = name_of(session.machine.phase());
        if stopped {
            self.source_later(host, id, nanoseconds(load_timeout), Event::LoadOverdue);
        }
        for effect in effects {
            self.source_effect(host, id, effect);
        }
        if before != after {
            self.trace.say(self.clock.now, || {
                format!("  {} source of mig-{id}: {before} -> {after}", self.hosts[host].name)
            });
            self.step_of_session(host, vm, after);
        }
    }

    fn source_later(&mut self, host: usize, id: u64, pause: u64, event: Event) {
        self.later(host, pause, Chore::Session(SessionEvent::Source(id, event)));
    }

    fn source_effect(&mut self, host: usize, id: u64, effect: Effect) {
        let now = self.clock.now;
        let Some(session) = self.source_mut(host, id) else { return };
        let vm = session.vm;
        match effect {
            Effect::StartMigrate => self.start_migrate(host, id, vm),
            Effect::AskSlot { .. } => {
                if session.asked_at.is_none_or(|at| now >= at + ASK_AGAIN) {
                    session.asked_at = Some(now);
                    self.source_says(host, id, SourceWord::AskSlot);
                }
            }
            Effect::OpenValve => {
                let unbounded = session.stop.limit_ms() == UNBOUNDED_MS;
                self.coverage.unbounded += u64::from(unbounded);
                let pause = self.dice.between(1, 200) * MS;
                self.qemu_later(host, vm, pause, Step::Stop);
            }
            Effect::HashMemory => {
                let pause = self.dice.between(10, 900) * MS;
                self.source_later(host, id, pause, Event::Hashed([7; 32]));
            }
            Effect::FindUnsent => {
                self.source_later(host, id, MS, Event::Recorded(Unsent::default()));
            }
            Effect::AskCommit => {
                self.source_says(host, id, SourceWord::AskCommit);
                let timeout = nanoseconds(DECISION_TIMEOUT);
                self.source_later(host, id, timeout, Event::DecisionOverdue);
            }
            Effect::ForwardShut => {
                if let Some(copy) = &mut self.hosts[host].copies[vm]
                    && copy.qemu == Qemu::Finishing
                {
                    copy.qemu = Qemu::Shut;
                    let pause = self.dice.between(MS / 10, 60 * MS);
                    self.qemu_later(host, vm, pause, Step::Settle);
                }
            }
            Effect::AttestStopped => self.source_says(host, id, SourceWord::Stopped),
            Effect::SendGo => self.tell_target(host, id, Frame::Go),
            Effect::SendAbort(_) => self.tell_target(host, id, Frame::Abort),
            Effect::CloseStream => {
                session.closed = true;
                let pause = self.dice.between(1, 120) * MS;
                self.qemu_later(host, vm, pause, Step::Settle);
            }
            Effect::QuitQemu => {}
            Effect::Finish(outcome) => self.source_finishes(host, id, outcome),
        }
    }

    fn source_says(&mut self, host: usize, id: u64, word: SourceWord<Simulated>) {
        self.agent_event(host, Happened::SourceSaid(MigrationId(id), word));
    }

    fn start_migrate(&mut self, host: usize, id: u64, vm: usize) {
        match self.hosts[host].copies[vm].as_mut() {
            Some(copy) if copy.qemu == Qemu::Running => {
                copy.qemu = Qemu::Sending;
                let pause = self.dice.between(60, 600) * MS;
                self.later(host, pause, Chore::Sample(id));
            }
            Some(copy) if copy.qemu != Qemu::Dead => {
                let failed = Event::QemuFailed("it cannot migrate".to_owned());
                self.source_later(host, id, MS, failed);
            }
            _ => self.source_later(host, id, MS, Event::QemuDied),
        }
    }

    fn tell_target(&mut self, host: usize, id: u64, frame: Frame) {
        if let Some(conn) = self.source_mut(host, id).and_then(|session| session.conn) {
            self.send(conn, 0, frame);
        }
    }

    /// QEMU has handed over its last byte.
    pub(super) fn everything_sent(&mut self, host: usize, id: u64) {
        let Some(vm) = self.source_mut(host, id).map(|session| session.vm) else { return };
        let memory = self.hosts[host].copies[vm].as_ref().map_or(0, |copy| copy.memory);
        self.tell_target(host, id, Frame::Everything(memory));
    }

    /// A session looks how far its QEMU is, tells, and asks for its slot when it is time.
    pub(super) fn sample(&mut self, host: usize, id: u64) {
        let now = self.clock.now;
        let passes = self.dice.between(1, 30) as u32;
        let Some(session) = self.source_mut(host, id).filter(|s| !s.over) else { return };
        let switching = session.machine.is_switching();
        let done = (now - session.began_at) as f64 / session.copy_ns as f64;
        let (vm, has_valve) = (session.vm, session.has_valve);
        let event = session.look(now, done >= 1.0, passes);
        let (forecast_ms, limit_ms) = (session.stop.forecast_ms(), session.stop.limit_ms());
        let activity = if switching { Activity::Switching } else { Activity::Copying };
        let progress = Progress {
            activity,
            pass1_ratio: done.min(1.0),
            predicted_stop_ms: forecast_ms,
            stop_limit_ms: limit_ms,
            ..Progress::default()
        };
        self.source_says(host, id, SourceWord::Progress(progress));
        let copy = self.hosts[host].copies[vm].as_ref();
        if copy.is_none_or(|copy| copy.qemu != Qemu::Sending) {
            return;
        }
        let fits = matches!(event, Some(Event::Ready { .. }));
        let gives_up = matches!(event, Some(Event::Cancel(_)));
        if let Some(event) = event {
            self.source_event(host, id, event);
        }
        if gives_up {
            self.coverage.given_up += 1;
            return;
        }
        if fits && !has_valve && self.dice.chance(400) {
            self.qemu_later(host, vm, MS, Step::Stop);
        }
        let pause = self.dice.between(100, 900) * MS;
        self.later(host, pause, Chore::Sample(id));
    }

    /// The machine has said its last word.
    fn source_finishes(&mut self, host: usize, id: u64, outcome: Outcome) {
        let Some(session) = self.source_mut(host, id) else { return };
        session.over = true;
        let vm = session.vm;
        let conn = session.conn.take();
        if let Some(conn) = conn {
            self.close(conn, 0);
        }
        match &outcome {
            Outcome::Moved => self.coverage.moved += 1,
            Outcome::RolledBack(_) => self.coverage.rolled_back += 1,
            Outcome::VmLost(_) => self.coverage.vm_lost += 1,
            Outcome::Stopped(_) => {
                self.coverage.left_stopped += 1;
                self.seek(vm);
            }
        }
        let pause = self.dice.between(MS / 10, 80 * MS);
        self.later(host, pause, Chore::SourceOver(id, outcome));
    }

    /// Its last word has arrived: the rules do what is left to do.
    pub(super) fn source_over(&mut self, host: usize, id: u64, outcome: Outcome) {
        let agent = self.hosts[host].agent.as_mut();
        let Some(session) = agent.and_then(|agent| agent.sources.remove(&id)) else { return };
        let not_converged = session.stop.gave_up() && matches!(outcome, Outcome::RolledBack(_));
        let powered_off =
            self.hosts[host].copies[session.vm].as_ref().is_some_and(|c| c.powered_off);
        let figures = Figures { not_converged, powered_off };
        self.agent_event(host, Happened::SourceOver(MigrationId(id), outcome, Some(figures)));
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A phase for people and for counting.
fn name_of(phase: &Phase) -> &'static str {
    match phase {
        Phase::Connecting => "calling",
        Phase::Copying => "copying",
        Phase::AwaitingSlot => "awaiting slot",
        Phase::Switching => "switching",
        Phase::Verifying { .. } => "verifying",
        Phase::Differing => "differing",
        Phase::Committing { .. } => "committing",
        Phase::Stopping { .. } => "stopping",
        Phase::Handed { .. } => "handed over",
        Phase::RollingBack { .. } => "rolling back",
        Phase::Ended => "ended",
    }
}
