//! The source session: the tokio shell around [`protocol::session::source`].
//!
//! | task | owns | ends when |
//! |---|---|---|
//! | [`run`] | the state machine, QEMU's return path | the machine says `Finish` |
//! | pump | QEMU's stream | QEMU closes it, or the session ends |
//! | emitter | the writing half of the connection | both its queues close, or the link breaks |
//! | acks | the reading half | the link breaks |
//! | sampler | nothing | the VM is stopped |
//!
//! [`protocol::session::source`]: rackferry_migrator_protocol::session::source

mod acks;
#[cfg(test)]
mod brake_tests;
pub mod emit;
pub mod flow;
mod parts;
pub mod pump;
mod qemu;
pub mod recorder;
mod sampler;
mod spec;
#[cfg(test)]
mod stop_tests;
mod valve;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rackferry_migrator_protocol::frame::{FromSource, Hello, Holder, Role};
use rackferry_migrator_protocol::session::open::Hurry;
use rackferry_migrator_protocol::session::source::{Effect, Event, Outcome, Phase, Source};
use rackferry_migrator_protocol::session::stop::{DECISION_TIMEOUT, Stop};
use rackferry_model::Compress;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tracing::{debug, info, warn};

use crate::compress::Compressor;
use crate::conn;
use crate::limits::{CLAIMED_BATCHES, SESSION_EVENTS};
use crate::qmp::{QmpError, SourceFacts};
use crate::rack::Scope;
use crate::stats::Counters;
use crate::uplink::Priority;
use emit::{Emitter, Order};
use flow::Flow;
use parts::StopParts;
use pump::{Claiming, Reading};
use recorder::{Recorder, Recording};

pub use rackferry_migrator_protocol::session::source::Command;
pub use rackferry_model::Dedup;
pub use sampler::Progress;
pub use spec::{Notice, SourceParts, SourceReport, SourceSpec};

/// SHUT(0): the target has loaded everything.
const SHUT_OK: [u8; 8] = [0, 1, 0, 4, 0, 0, 0, 0];
/// How long Go or Abort may take to leave.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Pause between reads while the session waits for its turn.
const BRAKE: Duration = Duration::from_millis(20);
/// A switchover slot is asked for again after this long.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Everything the session's task is woken by.
#[derive(Debug)]
enum Input {
    Event(Event),
    ReturnPath(Vec<u8>),
    Progress(Progress),
    ForceSwitchover,
    /// QEMU may use a larger part of the limit.
    LargerShare,
    /// No reference has been open for long, or long enough was waited for that.
    Settled,
}

struct Session {
    spec: SourceSpec,
    parts: SourceParts,
    machine: Source,
    flow: Arc<Flow>,
    counters: Arc<Counters>,
    reading: Arc<Reading>,
    /// In verify mode.
    recording: Recording,
    /// What QEMU said of itself and of the VM, once the migration begins.
    facts: Option<SourceFacts>,
    /// QEMU is no longer held.
    valve_open: bool,
    stop: Stop,
    began: Instant,
    notices: mpsc::Sender<Notice>,
    inputs: mpsc::Sender<Input>,
    orders: mpsc::Sender<Order>,
    /// Given to the pump when QEMU's migration starts.
    parsed: Option<mpsc::Sender<pump::Parsed>>,
    return_path: Option<OwnedWriteHalf>,
    tasks: JoinSet<()>,
    pump: Option<tokio::task::AbortHandle>,
    asked_at: Option<Instant>,
    stopped_at: Option<Instant>,
    stop_parts: StopParts,
    /// While its last bytes are on their way other sessions hold back.
    priority: Arc<Priority>,
    blackout: Option<Duration>,
    digest: Option<[u8; 32]>,
}

/// Moves a VM away. Ends when the VM runs at the target, or goes on here, or its owner is for the log to
/// decide. `died` completes when the source QEMU's process is known to be gone.
///
/// Not cancel safe: dropping the future closes QEMU's stream, after which QEMU decides by itself what it is (see
/// the crash points in docs/switchover.md).
pub async fn run(
    spec: SourceSpec,
    parts: SourceParts,
    died: impl Future<Output = ()> + Send + 'static,
    mut commands: mpsc::Receiver<Command>,
    notices: mpsc::Sender<Notice>,
) -> SourceReport {
    let (reader, writer) = match dial(&spec, &parts).await {
        Ok(framed) => framed,
        Err(error) => {
            let why = format!("cannot reach the target at {}: {error}", spec.target_addr);
            return SourceReport::nothing_happened(Outcome::RolledBack(why));
        }
    };
    let (inputs, mut queue) = mpsc::channel(SESSION_EVENTS);
    let (orders, orders_queue) = mpsc::channel(SESSION_EVENTS);
    let (parsed, parsed_queue) = mpsc::channel(CLAIMED_BATCHES);
    let recording = spec.options.verify.then(|| Arc::new(Recorder::new(parts.rack.hasher.clone())));
    let priority = Arc::new(Priority::new(parts.rack.clone()));
    let mut session = Session {
        machine: Source::new(spec.options.verify),
        stop: Stop::new(spec.options.disruption, spec.options.max_downtime_ms),
        began: Instant::now(),
        valve_open: false,
        spec,
        parts,
        flow: Arc::default(),
        counters: Arc::default(),
        reading: Arc::default(),
        recording,
        facts: None,
        notices,
        inputs,
        orders,
        parsed: Some(parsed),
        return_path: None,
        tasks: JoinSet::new(),
        pump: None,
        asked_at: None,
        stopped_at: None,
        stop_parts: StopParts::default(),
        priority,
        blackout: None,
        digest: None,
    };
    session.watch_qemu(died);
    let (flow, orders, inputs) =
        (session.flow.clone(), session.orders.clone(), session.inputs.clone());
    session.tasks.spawn(acks::run(reader, flow, orders, inputs));
    let emitter = session.start_emitter(writer, parsed_queue, orders_queue);
    let mut outcome = session.handle(Input::Event(Event::Accepted)).await;
    while outcome.is_none() {
        let input = tokio::select! {
            input = queue.recv() => input.expect("the session holds a sender itself"),
            Some(command) = commands.recv() => command.into(),
        };
        outcome = session.handle(input).await;
    }
    let report = session.finish(outcome.expect("the loop ends with an outcome")).await;
    // The last words (Go, Abort) go out before the connection is dropped, if it still carries anything.
    let _ = tokio::time::timeout(LAST_WORDS, emitter).await;
    report
}

async fn dial(spec: &SourceSpec, parts: &SourceParts) -> Result<conn::Framed, conn::ConnError> {
    let role = Role::Session {
        session: spec.session,
        generation: spec.generation,
        migration_id: spec.migration_id.clone(),
    };
    let hello = Hello { host_id: parts.rack.own_host, role };
    conn::dial(&spec.target_addr, &spec.target_name, &hello, parts.rack.tls.as_ref()).await
}

impl From<Command> for Input {
    fn from(command: Command) -> Self {
        Self::Event(match command {
            Command::SlotGranted => Event::SlotGranted,
            Command::Decision { granted, reason } => Event::Decision { granted, reason },
            Command::Cancel(why) => Event::Cancel(why),
            Command::ForceSwitchover => return Self::ForceSwitchover,
        })
    }
}

impl Session {
    fn claiming(&self) -> Option<Claiming> {
        let scope = match self.spec.options.dedup {
            Dedup::Off => return None,
            Dedup::Host => Scope::Host,
            Dedup::Rack => Scope::Rack,
        };
        let claimant = Holder { host: self.spec.target_host, session: self.spec.session };
        Some(Claiming {
            rack: self.parts.rack.clone(),
            scope,
            crossing: self.spec.crossing,
            claimant,
        })
    }

    fn start_emitter(
        &self,
        writer: conn::FrameWriter<conn::PageWrite>,
        parsed: mpsc::Receiver<pump::Parsed>,
        orders: mpsc::Receiver<Order>,
    ) -> JoinHandle<()> {
        let compressor = if self.spec.options.compress == Compress::Zstd {
            Compressor::new().ok()
        } else {
            None
        };
        let (flow, counters) = (self.flow.clone(), self.counters.clone());
        let claiming = self.claiming();
        let pace = self.parts.pace.clone();
        let emitter = Emitter::new(writer, pace, flow, counters, claiming, compressor)
            .reading(self.reading.clone(), self.priority.clone());
        let (inputs, flow) = (self.inputs.clone(), self.flow.clone());
        tokio::spawn(async move {
            if let Err(error) = emitter.run(parsed, orders).await {
                flow.break_off();
                let _ = inputs.send(Input::Event(Event::PeerLost(error.to_string()))).await;
            }
        })
    }

    /// Handles one input; Some when the session is over.
    async fn handle(&mut self, input: Input) -> Option<Outcome> {
        let event = match input {
            Input::Event(event) => event,
            Input::ReturnPath(bytes) => {
                self.write_return_path(&bytes).await;
                return None;
            }
            Input::Progress(progress) => {
                // With the valve open a VM that does not converge runs on for long: each reference would cross twice.
                if !self.valve_open || self.stopped_at.is_some() {
                    self.supply_due().await;
                }
                self.looked(progress)?
            }
            Input::ForceSwitchover => {
                self.force_switchover();
                return None;
            }
            Input::Settled => {
                self.settled().await;
                return None;
            }
            Input::LargerShare => {
                self.let_qemu_know();
                return None;
            }
        };
        match &event {
            Event::VmStopped if self.stopped_at.is_none() => {
                self.stopped_at = Some(Instant::now());
                self.stop_parts.begin();
                self.reading.go_straight();
                self.priority.begin();
                self.flow.hurry(Hurry::Stopped);
                self.supply_due().await;
                let timeout = self.stop.load_timeout(self.spec.options.verify);
                self.later(timeout, Input::Event(Event::LoadOverdue));
            }
            Event::Running => self.blackout = self.stopped_at.map(|at| at.elapsed()),
            Event::Hashed(digest) => self.digest = Some(*digest),
            _ => {}
        }
        let mut effects = Vec::new();
        let before = self.machine.phase().clone();
        self.machine.handle(event, &mut effects);
        if *self.machine.phase() != before {
            debug!(id = %self.spec.migration_id, from = ?before, to = ?self.machine.phase(), "source");
            self.stop_parts.left(&before, self.flow.memory_ended());
        }
        if !matches!(self.machine.phase(), Phase::AwaitingSlot) {
            self.reading.brake(Duration::ZERO);
        }
        if !matches!(self.machine.phase(), Phase::Copying | Phase::AwaitingSlot | Phase::Switching)
        {
            self.priority.end();
        }
        let mut end = None;
        for effect in effects {
            if let Effect::Finish(outcome) = effect {
                end = Some(outcome);
            } else if let Err(error) = self.carry_out(effect).await {
                warn!(id = %self.spec.migration_id, %error, "source QEMU");
                let failed = Event::QemuFailed(error.to_string());
                let _ = self.inputs.try_send(Input::Event(failed));
            }
        }
        end
    }

    async fn carry_out(&mut self, effect: Effect) -> Result<(), QmpError> {
        match effect {
            Effect::StartMigrate => self.start_migrate().await?,
            Effect::AskSlot { .. } => {
                self.reading.brake(BRAKE);
                if self.asked_at.is_none_or(|at| at.elapsed() >= ASK_AGAIN) {
                    self.asked_at = Some(Instant::now());
                    let _ = self.notices.send(Notice::AskSlot).await;
                }
            }
            Effect::OpenValve => self.prepare_stop().await?,
            Effect::HashMemory => self.hash_memory(),
            Effect::FindUnsent => self.find_unsent(),
            Effect::AskCommit => {
                let _ = self.notices.send(Notice::AskCommit).await;
                self.later(DECISION_TIMEOUT, Input::Event(Event::DecisionOverdue));
            }
            Effect::ForwardShut => {
                self.write_return_path(&SHUT_OK).await;
                self.await_postmigrate();
            }
            Effect::AttestStopped => {
                let _ = self.notices.send(Notice::SourceStopped).await;
            }
            Effect::SendGo => self.order(FromSource::Go).await,
            Effect::SendAbort(why) => self.order(FromSource::Abort(why)).await,
            Effect::CloseStream => self.close_stream(),
            Effect::QuitQemu | Effect::Finish(_) => {}
        }
        Ok(())
    }

    /// Something for this session after a while.
    fn later(&mut self, pause: Duration, input: Input) {
        let inputs = self.inputs.clone();
        self.tasks.spawn(async move {
            tokio::time::sleep(pause).await;
            let _ = inputs.send(input).await;
        });
    }

    async fn order(&self, frame: FromSource) {
        let _ = self.orders.send(Order::Frame(frame)).await;
    }

    async fn finish(mut self, outcome: Outcome) -> SourceReport {
        self.spec.socket.remove();
        self.priority.end();
        if !matches!(outcome, Outcome::Moved) {
            self.parts.rack.revoke(self.spec.session);
        }
        let info = match outcome {
            Outcome::Moved => {
                self.parts.qmp.within(Duration::from_secs(1)).migration_status().await.ok()
            }
            _ => None,
        };
        if let (Outcome::RolledBack(_), Some(facts)) = (&outcome, &self.facts) {
            // Nothing depends on it: the next session sets them anew.
            let _ = self.parts.qmp.within(Duration::from_secs(1)).restore(facts.saved).await;
        }
        self.tasks.abort_all();
        let report = SourceReport {
            not_converged: self.stop.gave_up() && matches!(outcome, Outcome::RolledBack(_)),
            outcome,
            totals: self.counters.totals(),
            qemu_downtime_ms: info.and_then(|i| i.downtime),
            blackout: self.blackout,
            digest: self.digest,
        };
        let (outcome, blackout, stop) = (&report.outcome, report.blackout, &self.stop_parts);
        info!(id = %self.spec.migration_id, ?outcome, ?blackout, %stop, "session over");
        report
    }
}
