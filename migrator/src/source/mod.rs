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
pub mod emit;
pub mod flow;
pub mod pump;
pub mod recorder;
mod sampler;
mod valve;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rackferry_migrator_protocol::frame::{FromSource, Hello, Holder, Role};
use rackferry_migrator_protocol::session::patience::{Disruption, Patience};
use rackferry_migrator_protocol::session::source::{Effect, Event, Outcome, Phase, Source};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tracing::{debug, info, warn};

use crate::compress::Compressor;
use crate::conn;
use crate::limits::{CLAIMED_BATCHES, DECISION_PATIENCE, SESSION_EVENTS};
use crate::memory::{GuestMemory, MemoryError};
use crate::pace::Pace;
use crate::qmp::{self, Accelerator, Qmp, QmpError, RunState, SourceCaps, SourceFacts};
use crate::rack::{Rack, Scope};
use crate::stats::{Counters, Totals};
use emit::{Emitter, Order};
use flow::Flow;
use pump::{Claiming, Pump, Reading};
use recorder::{Recorder, Recording};

pub use rackferry_model::Dedup;
pub use sampler::Progress;

/// SHUT(0): the target has loaded everything.
const SHUT_OK: [u8; 8] = [0, 1, 0, 4, 0, 0, 0, 0];
/// QEMU connects to our socket at once when it is told to migrate.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long Go or Abort may take to leave.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Pause between reads while the session waits for its turn.
const BRAKE: Duration = Duration::from_millis(20);
/// A switchover slot is asked for again after this long.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// What a source session is to do.
#[derive(Debug, Clone)]
pub struct SourceSpec {
    /// The migration's number in frames and index entries.
    pub session: u64,
    /// Its name in the control plane.
    pub migration_id: String,
    /// Generation the target will own with.
    pub generation: u64,
    /// Source rack -> target rack of one evacuation.
    pub crossing: u64,
    /// Number of the target host.
    pub target_host: u32,
    /// Its name, as its certificate says it.
    pub target_name: String,
    /// `ip:port` of the target's page server.
    pub target_addr: String,
    /// Which copies are found.
    pub dedup: Dedup,
    /// Compress content.
    pub compress: bool,
    /// The VM's limit, milliseconds.
    pub max_downtime_ms: u32,
    /// What may be done to the VM if it does not converge to that.
    pub disruption: Disruption,
    /// Compare the whole memory before the commit.
    pub verify: bool,
    /// Where to listen for QEMU's stream; removed afterwards.
    pub socket: PathBuf,
}

/// What the coordinator tells a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Here is the slot that was asked for.
    SlotGranted,
    /// The answer to a commit request.
    Decision {
        /// The commit is durable.
        granted: bool,
        /// Why not.
        reason: String,
    },
    /// Take the move back, if that is still possible.
    Cancel(String),
    /// Stop the VM as soon as its first pass is over, however long it is stopped then.
    Hurry,
}

/// What a session tells the coordinator.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// A switchover slot is wanted.
    AskSlot {
        /// The forecast of the stop.
        predicted_ms: u32,
    },
    /// May ownership pass?
    AskCommit,
    /// The source QEMU cannot run any more.
    SourceStopped,
    /// How far it is.
    Progress(Progress),
}

/// How it went.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceReport {
    /// The end.
    pub outcome: Outcome,
    /// Bytes and times.
    pub totals: Totals,
    /// QEMU's own figure, milliseconds.
    pub qemu_downtime_ms: Option<u64>,
    /// From QEMU's STOP to the target's word that the VM runs.
    pub blackout: Option<Duration>,
    /// Digest of the memory at the pause, in verify mode.
    pub digest: Option<[u8; 32]>,
    /// The session rolled back because its VM does not converge.
    pub not_converged: bool,
}

/// The parts a session works with.
#[derive(Debug, Clone)]
pub struct SourceParts {
    /// QEMU's monitor.
    pub qmp: Qmp,
    /// The guest's memory, if the agent has it mapped; needed for verify mode only.
    pub memory: Option<Arc<GuestMemory>>,
    /// The rack.
    pub rack: Arc<Rack>,
    /// What it may put on the core link.
    pub pace: Arc<Pace>,
}

/// Everything the session's task is woken by.
#[derive(Debug)]
enum Input {
    Event(Event),
    ReturnPath(Vec<u8>),
    Progress(Progress),
    Hurry,
    /// QEMU may use a larger part of the limit.
    LargerShare,
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
    /// QEMU can be told to slow the guest down.
    auto_converge: bool,
    patience: Patience,
    not_converged: bool,
    /// The latest forecast of the stop, milliseconds.
    forecast_ms: u32,
    /// The longest forecast since the first pass, milliseconds.
    worst_forecast_ms: u32,
    /// Guest bytes per second at which the last pass would go.
    last_pass_rate: u64,
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
    let recording = spec.verify.then(|| Arc::new(Recorder::new(parts.rack.hasher.clone())));
    let mut session = Session {
        machine: Source::new(spec.verify),
        patience: Patience::new(spec.disruption, spec.max_downtime_ms),
        not_converged: false,
        forecast_ms: 0,
        worst_forecast_ms: 0,
        last_pass_rate: 0,
        began: Instant::now(),
        valve_open: false,
        spec,
        parts,
        flow: Arc::default(),
        counters: Arc::default(),
        reading: Arc::default(),
        recording,
        facts: None,
        auto_converge: false,
        notices,
        inputs,
        orders,
        parsed: Some(parsed),
        return_path: None,
        tasks: JoinSet::new(),
        pump: None,
        asked_at: None,
        stopped_at: None,
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
            Command::Hurry => return Self::Hurry,
        })
    }
}

impl SourceReport {
    fn nothing_happened(outcome: Outcome) -> Self {
        let totals = Totals::default();
        Self {
            outcome,
            totals,
            qemu_downtime_ms: None,
            blackout: None,
            digest: None,
            not_converged: false,
        }
    }
}

impl Session {
    /// Tells the machine what it needs to know of QEMU.
    fn watch_qemu(&mut self, died: impl Future<Output = ()> + Send + 'static) {
        let inputs = self.inputs.clone();
        self.tasks.spawn(async move {
            died.await;
            let _ = inputs.send(Input::Event(Event::QemuDied)).await;
        });
        let (inputs, mut events) = (self.inputs.clone(), self.parts.qmp.events());
        self.tasks.spawn(async move {
            loop {
                match events.recv().await {
                    Ok(event) if event.event == qmp::Event::Stop => {
                        let _ = inputs.send(Input::Event(Event::VmStopped)).await;
                    }
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        });
    }

    fn claiming(&self) -> Option<Claiming> {
        let scope = match self.spec.dedup {
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
        let compressor = if self.spec.compress { Compressor::new().ok() } else { None };
        let (flow, counters) = (self.flow.clone(), self.counters.clone());
        let claiming = self.claiming();
        let pace = self.parts.pace.clone();
        let emitter = Emitter::new(writer, pace, flow, counters, claiming, compressor);
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
            Input::Progress(progress) => self.looked(progress)?,
            Input::Hurry => {
                self.hurry();
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
                self.reading.go_straight();
                self.later(self.load_patience(), Input::Event(Event::LoadOverdue));
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
        }
        if !matches!(self.machine.phase(), Phase::AwaitingSlot) {
            self.reading.brake(Duration::ZERO);
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
            Effect::AskSlot { predicted_ms } => {
                self.reading.brake(BRAKE);
                if self.asked_at.is_none_or(|at| at.elapsed() >= ASK_AGAIN) {
                    self.asked_at = Some(Instant::now());
                    let _ = self.notices.send(Notice::AskSlot { predicted_ms }).await;
                }
            }
            Effect::OpenValve => self.open_valve().await?,
            Effect::HashMemory => self.hash_memory(),
            Effect::AskCommit => {
                let _ = self.notices.send(Notice::AskCommit).await;
                self.later(DECISION_PATIENCE, Input::Event(Event::DecisionOverdue));
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

    async fn start_migrate(&mut self) -> Result<(), QmpError> {
        let qmp = self.parts.qmp.clone();
        let facts = self.facts.insert(qmp.check_can_migrate().await?);
        // Auto-converge looks for dirty pages every few seconds, also in the middle of a pass.
        self.auto_converge =
            self.spec.disruption != Disruption::None && facts.accelerator == Accelerator::Kvm;
        let caps = SourceCaps {
            valve: facts.valve,
            rest: facts.holding(self.patience.limit_ms().into()),
            multifd_channels: None,
            auto_converge: self.auto_converge,
        };
        let _ = std::fs::remove_file(&self.spec.socket);
        let path = || self.spec.socket.clone();
        let failed = |source| QmpError::Connect { path: path(), source };
        let listener = UnixListener::bind(&self.spec.socket).map_err(failed)?;
        qmp.prepare_source(caps).await?;
        qmp.migrate(&self.spec.socket).await?;
        let accepted = tokio::time::timeout(CONNECT_LIMIT, listener.accept()).await;
        let (socket, _) = accepted.unwrap_or_else(|e| Err(e.into())).map_err(failed)?;
        let (read, write) = socket.into_split();
        self.return_path = Some(write);
        let Some(out) = self.parsed.take() else { return Ok(()) };
        let (flow, counters, reading) =
            (self.flow.clone(), self.counters.clone(), self.reading.clone());
        let pump = Pump::new(read, flow, self.claiming(), counters, reading)
            .recording(self.recording.clone());
        let inputs = self.inputs.clone();
        self.pump = Some(self.tasks.spawn(async move {
            if let Err(error) = pump.run(out).await {
                let _ = inputs.send(Input::Event(Event::QemuFailed(error.to_string()))).await;
            }
        }));
        let sampler = sampler::Sampler {
            qmp,
            flow: self.flow.clone(),
            counters: self.counters.clone(),
            pace: self.parts.pace.clone(),
            inputs: self.inputs.clone(),
        };
        self.tasks.spawn(sampler.run());
        Ok(())
    }

    fn hash_memory(&mut self) {
        let (memory, rack) = (self.parts.memory.clone(), self.parts.rack.clone());
        let recording = self.recording.clone();
        let inputs = self.inputs.clone();
        self.tasks.spawn(async move {
            let Some(memory) = memory else {
                let why = "verify mode needs a VM whose memory this agent has mapped".to_owned();
                let _ = inputs.send(Input::Event(Event::Cancel(why))).await;
                return;
            };
            let hash = move || -> Result<_, MemoryError> {
                let unsent = recording.map(|recorder| recorder.unsent(&memory)).transpose()?;
                Ok((rack.digest_memories(&[memory])?, unsent))
            };
            let events = match tokio::task::spawn_blocking(hash).await {
                Ok(Ok((digest, unsent))) => {
                    vec![Event::Recorded(unsent.unwrap_or_default()), Event::Hashed(digest)]
                }
                Ok(Err(error)) => {
                    vec![Event::Cancel(format!("cannot hash guest memory: {error}"))]
                }
                Err(error) => vec![Event::Cancel(format!("cannot hash guest memory: {error}"))],
            };
            for event in events {
                let _ = inputs.send(Input::Event(event)).await;
            }
        });
    }

    /// Waits for QEMU's own word that it completed, for as long as it takes.
    fn await_postmigrate(&mut self) {
        let (qmp, inputs) = (self.parts.qmp.clone(), self.inputs.clone());
        self.tasks.spawn(async move {
            let event = loop {
                match qmp.wait_moved_out(Duration::from_secs(60)).await {
                    Ok(()) => break Event::Postmigrate,
                    Err(error @ QmpError::Ended { .. }) => {
                        break Event::QemuFailed(error.to_string());
                    }
                    // The process's end is told by its own watcher, a slow answer by the next round.
                    Err(_) if qmp.is_closed() => return,
                    Err(_) => {}
                }
            };
            let _ = inputs.send(Input::Event(event)).await;
        });
    }

    /// Closes QEMU's migration socket and waits until the VM is seen running again.
    fn close_stream(&mut self) {
        if let Some(pump) = self.pump.take() {
            pump.abort();
        }
        self.parsed = None;
        self.return_path = None;
        let (qmp, inputs) = (self.parts.qmp.clone(), self.inputs.clone());
        self.tasks.spawn(async move {
            loop {
                let _ = qmp.within(Duration::from_secs(2)).cancel().await;
                let over = qmp.wait_migration(Duration::from_secs(5), |s| s.is_final()).await;
                let state = qmp.run_state().await;
                let settled = matches!(over, Ok(_) | Err(QmpError::Ended { .. }));
                match state {
                    Ok(RunState::FinishMigrate | RunState::InMigrate | RunState::PostMigrate) => {}
                    Ok(_) if settled => break,
                    Err(_) if qmp.is_closed() => return,
                    _ => {}
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let _ = inputs.send(Input::Event(Event::Resumed)).await;
        });
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

    /// Writes to QEMU's return path. An error shows as the end of the stream as well.
    async fn write_return_path(&mut self, bytes: &[u8]) {
        if let Some(path) = &mut self.return_path
            && let Err(error) = path.write_all(bytes).await
        {
            debug!(id = %self.spec.migration_id, %error, "return path");
        }
    }

    async fn finish(mut self, outcome: Outcome) -> SourceReport {
        let _ = std::fs::remove_file(&self.spec.socket);
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
            not_converged: self.not_converged && matches!(outcome, Outcome::RolledBack(_)),
            outcome,
            totals: self.counters.totals(),
            qemu_downtime_ms: info.and_then(|i| i.downtime),
            blackout: self.blackout,
            digest: self.digest,
        };
        info!(id = %self.spec.migration_id, outcome = ?report.outcome, blackout = ?report.blackout, "session over");
        report
    }
}
