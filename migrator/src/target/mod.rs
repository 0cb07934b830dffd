//! The target session: the tokio shell around [`protocol::session::target`].
//!
//! | task | owns | ends when |
//! |---|---|---|
//! | [`run`] | the state machine, the placer, everything outstanding | the machine says `Finish` |
//! | reader | the reading half of the connection | the link breaks |
//! | return path | QEMU's return path | QEMU closes it |
//! | fetches | one request to a neighbour each, at most `fetch::FETCHES` | answered, or timed out |
//!
//! [`protocol::session::target`]: rackferry_migrator_protocol::session::target

pub(crate) mod fetch;
mod place;
mod qemu;
pub mod receive;
pub mod wanted;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use rackferry_migrator_protocol::frame::{Ack, FromTarget, Kind};
use rackferry_migrator_protocol::session::target::{Effect, Event, Target};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use crate::conn::{ConnError, FrameReader, FrameWriter, Framed, PageRead, PageWrite};
use crate::limits::{PENDING_RETRY, RECEIVED_FRAMES, SESSION_EVENTS};
use crate::qmp::Qmp;
use crate::rack::Rack;
use crate::socket::StreamSocket;
use crate::stats::{Counters, Totals, timed};
use fetch::Fetches;
use receive::Receiver;

pub use place::{PlaceError, Placed};

/// A source that does not read its answers for so long is gone.
const SEND_LIMIT: Duration = Duration::from_secs(10);

/// What a target session is to do.
#[derive(Debug, Clone)]
pub struct TargetSpec {
    /// The migration's number in frames and index entries.
    pub session: u64,
    /// Its name in the control plane.
    pub migration_id: String,
    /// Compare the whole memory before the commit.
    pub verify: bool,
    /// Where QEMU listens for the stream.
    pub socket: StreamSocket,
    /// Guest memories that pages are placed in.
    pub placed: Vec<Placed>,
}

/// The parts a session works with.
#[derive(Debug, Clone)]
pub struct TargetParts {
    /// QEMU's monitor.
    pub qmp: Qmp,
    /// The rack.
    pub rack: Arc<Rack>,
    /// Becomes true just before QEMU is told to let the guest run.
    pub let_run: Arc<AtomicBool>,
}

/// What the coordinator tells a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Ownership has passed and the source is stopped for good: run.
    Resume,
    /// The move is off.
    Discard(String),
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetOutcome {
    /// The VM runs here.
    Running,
    /// The incoming QEMU must be killed and its memory freed.
    Discard(String),
    /// Everything is loaded and paused; the coordinator says what becomes of it.
    LeftLoaded,
    /// QEMU refused to run the VM; the coordinator must know.
    Stuck(String),
}

/// How it went, with figures.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetReport {
    /// The end.
    pub outcome: TargetOutcome,
    /// Bytes and times.
    pub totals: Totals,
    /// Digest of the memory before the resume, in verify mode.
    pub digest: Option<[u8; 32]>,
}

/// Everything the session's task is woken by, besides frames.
#[derive(Debug)]
enum Input {
    Event(Event),
    ReturnPath(Vec<u8>),
}

struct Session {
    spec: TargetSpec,
    parts: TargetParts,
    machine: Target,
    writer: FrameWriter<PageWrite>,
    inputs: mpsc::Sender<Input>,
    receiver: Receiver,
    counters: Arc<Counters>,
    tasks: JoinSet<()>,
    fetches: Fetches,
    /// Writes down that the guest may run; taken when that begins.
    about_to_run: Option<BoxFuture<'static, Result<(), String>>>,
    outcome: Option<TargetOutcome>,
    over: bool,
}

/// Receives a VM. Ends when it runs here, must be discarded, or is left for the coordinator to decide. `died`
/// completes when the target QEMU's process is known to be gone. `about_to_run` is polled once everything is loaded: it
/// writes down, durably, that the guest may run here from now on.
///
/// Not cancel safe: a dropped session leaves a QEMU that waits for its stream.
pub async fn run(
    spec: TargetSpec,
    parts: TargetParts,
    (reader, writer): Framed,
    died: impl Future<Output = ()> + Send + 'static,
    about_to_run: impl Future<Output = Result<(), String>> + Send + 'static,
    mut commands: mpsc::Receiver<Command>,
) -> TargetReport {
    parts.rack.session_opened(spec.session);
    let (inputs, mut queue) = mpsc::channel(SESSION_EVENTS);
    let (frames, mut frame_queue) = mpsc::channel(RECEIVED_FRAMES);
    let (recycled, recycle_queue) = mpsc::channel(RECEIVED_FRAMES);
    let counters = Arc::<Counters>::default();
    let mut tasks = JoinSet::new();
    tasks.spawn(read_frames(reader, counters.clone(), frames, recycle_queue));
    let died_inputs = inputs.clone();
    tasks.spawn(async move {
        died.await;
        let failed = Event::QemuFailed("the target QEMU's process ended".into());
        let _ = died_inputs.send(Input::Event(failed)).await;
    });
    let receiver =
        Receiver::new(spec.session, spec.placed.clone(), parts.rack.clone(), counters.clone());
    let fetches = Fetches::new(parts.rack.clone(), counters.clone());
    let session_id = spec.session;
    let mut session = Session {
        machine: Target::new(spec.verify),
        spec,
        parts,
        writer,
        inputs,
        receiver,
        counters,
        tasks,
        fetches,
        about_to_run: Some(Box::pin(about_to_run)),
        outcome: None,
        over: false,
    };
    if let Err(error) = session.connect_qemu().await {
        session.event(Event::QemuFailed(format!("its migration socket: {error}"))).await;
    }
    let mut frames_open = true;
    while !session.over {
        tokio::select! {
            input = queue.recv() => {
                session.input(input.expect("the session holds a sender itself")).await;
            }
            Some(command) = commands.recv() => session.event(match command {
                Command::Resume => Event::Go,
                Command::Discard(why) => Event::Discard(why),
            }).await,
            frame = frame_queue.recv(), if frames_open && !session.machine.holds_back() => match frame {
                Some(Ok((kind, payload))) => {
                    session.frame(kind, &payload).await;
                    let _ = recycled.try_send(payload);
                }
                Some(Err(why)) => session.event(Event::PeerLost(why)).await,
                None => frames_open = false,
            },
            Some(fetched) = session.fetches.next() => {
                let result = session.receiver.fetched(&fetched).await;
                session.check(result).await;
            }
            () = tokio::time::sleep(PENDING_RETRY), if !session.receiver.wanted.is_idle() => {}
        }
        session.look_for_wanted().await;
        session.acknowledge().await;
    }
    session.parts.rack.session_closed(session_id);
    session.report()
}

/// Reads frames until the connection ends; the reason is the last item.
async fn read_frames(
    mut reader: FrameReader<PageRead>,
    counters: Arc<Counters>,
    frames: mpsc::Sender<Result<(Kind, Vec<u8>), String>>,
    mut recycled: mpsc::Receiver<Vec<u8>>,
) {
    loop {
        let mut payload = recycled.try_recv().unwrap_or_default();
        let item = match timed(&counters.read_ns, reader.next(&mut payload)).await {
            Ok(kind) => Ok((kind, payload)),
            Err(ConnError::Closed) => Err("closed by the source".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        let last = item.is_err();
        if frames.send(item).await.is_err() || last {
            return;
        }
    }
}

impl Session {
    async fn connect_qemu(&mut self) -> std::io::Result<()> {
        let (read, write) = qemu::connect(&self.spec.socket).await?;
        self.receiver.qemu = Some(write);
        let (qmp, inputs) = (self.parts.qmp.clone(), self.inputs.clone());
        self.tasks.spawn(qemu::return_path(read, qmp, inputs));
        Ok(())
    }

    async fn input(&mut self, input: Input) {
        match input {
            Input::Event(event) => self.event(event).await,
            Input::ReturnPath(bytes) => self.send(&FromTarget::ReturnPath(bytes)).await,
        }
    }

    async fn frame(&mut self, kind: Kind, payload: &[u8]) {
        match self.receiver.frame(kind, payload).await {
            Ok(None) => {}
            Ok(Some(event)) => self.event(event).await,
            Err(error) => self.check(Err(error)).await,
        }
    }

    /// What cannot be received ends the move; the source goes on.
    async fn check(&mut self, result: Result<(), receive::ReceiveError>) {
        if let Err(error) = result {
            self.event(Event::QemuFailed(error.to_string())).await;
        }
    }

    async fn event(&mut self, event: Event) {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let before = self.machine.phase();
            let mut effects = Vec::new();
            self.machine.handle(event, &mut effects);
            if self.machine.phase() != before {
                debug!(id = %self.spec.migration_id, from = ?before, to = ?self.machine.phase(), "target");
            }
            for effect in effects {
                next = self.carry_out(effect).await.or(next);
            }
        }
    }

    /// Does what the machine says; what came of it at once.
    async fn carry_out(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::HashMemory => self.hash_memory(),
            Effect::PassOn => {
                let passed_on = self.receiver.flush().await;
                return passed_on.err().map(|error| Event::QemuFailed(error.to_string()));
            }
            Effect::WriteAboutToRun => self.write_about_to_run(),
            Effect::SendLoaded(digest) => self.send(&FromTarget::Loaded(digest)).await,
            Effect::Resume => self.resume(),
            Effect::SendRunning => {
                self.send(&FromTarget::Running).await;
                self.outcome = Some(TargetOutcome::Running);
            }
            Effect::SendAbort(why) => {
                if self.outcome.is_none() {
                    self.outcome = Some(TargetOutcome::Stuck(why.clone()));
                }
                self.send(&FromTarget::Abort(why)).await;
            }
            Effect::Discard(why) => self.outcome = Some(TargetOutcome::Discard(why)),
            Effect::Finish => self.over = true,
        }
        None
    }

    fn hash_memory(&mut self) {
        let memories: Vec<_> = self.spec.placed.iter().map(|p| p.memory.clone()).collect();
        let (rack, inputs) = (self.parts.rack.clone(), self.inputs.clone());
        self.tasks.spawn(async move {
            let event = match tokio::task::spawn_blocking(move || rack.digest_memories(&memories))
                .await
            {
                Ok(Ok(digest)) => Event::Hashed(digest),
                Ok(Err(error)) => Event::QemuFailed(format!("cannot hash guest memory: {error}")),
                Err(error) => Event::QemuFailed(format!("cannot hash guest memory: {error}")),
            };
            let _ = inputs.send(Input::Event(event)).await;
        });
    }

    fn write_about_to_run(&mut self) {
        let Some(write) = self.about_to_run.take() else { return };
        let inputs = self.inputs.clone();
        self.tasks.spawn(async move {
            let event = match write.await {
                Ok(()) => Event::AboutToRun,
                Err(why) => Event::NotWritten(why),
            };
            let _ = inputs.send(Input::Event(event)).await;
        });
    }

    fn resume(&mut self) {
        let (qmp, inputs) = (self.parts.qmp.clone(), self.inputs.clone());
        let id = self.spec.migration_id.clone();
        self.parts.let_run.store(true, Ordering::SeqCst);
        tokio::spawn(async move {
            let event = match qmp.cont().await {
                Ok(()) => Event::Resumed,
                Err(error) => Event::QemuFailed(format!("cont: {error}")),
            };
            let _ = inputs.send(Input::Event(event)).await;
            if let Err(error) = qmp.announce_self().await {
                warn!(%id, %error, "announce-self");
            }
        });
    }

    /// Looks for contents that references wait for: here, at neighbours, and in the end at the source.
    async fn look_for_wanted(&mut self) {
        let (requests, lost) = match self.receiver.look(self.fetches.room()).await {
            Ok(found) => found,
            Err(error) => return self.check(Err(error)).await,
        };
        if !lost.is_empty() {
            debug!(id = %self.spec.migration_id, references = lost.len(), "asking the source for lost content");
            self.send(&FromTarget::Missing(lost)).await;
        }
        for (host, wanted) in requests {
            self.fetches.begin(host, wanted);
        }
    }

    async fn acknowledge(&mut self) {
        if let Some((received, resolved)) = self.receiver.take_ack() {
            self.send(&FromTarget::Ack(Ack { received, resolved })).await;
        }
    }

    /// A broken connection shows at the reader, so an error here is not told twice.
    async fn send(&mut self, frame: &FromTarget) {
        let mut payload = Vec::new();
        let kind = frame.encode(&mut payload);
        let parts: [&[u8]; 1] = [&payload];
        let sent = tokio::time::timeout(SEND_LIMIT, self.writer.send(kind, &parts)).await;
        if !matches!(sent, Ok(Ok(_))) {
            debug!(id = %self.spec.migration_id, ?kind, "not sent to the source");
        }
        if sent.is_err() {
            // Half a frame may be out: nothing can follow it, even if the link comes back.
            let lost = Event::PeerLost("the source does not read".into());
            let _ = self.inputs.try_send(Input::Event(lost));
        }
    }

    fn report(mut self) -> TargetReport {
        self.tasks.abort_all();
        let outcome = self.outcome.unwrap_or(TargetOutcome::LeftLoaded);
        info!(id = %self.spec.migration_id, ?outcome, "target session over");
        TargetReport { outcome, totals: self.counters.totals(), digest: self.machine.digest() }
    }
}
