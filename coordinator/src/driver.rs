//! Inputs from everywhere, and the one task that takes them: in turn while this coordinator leads, and
//! turning them away while it does not.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use rackferry_fleet::{
    Act, Connection, Done, Effect, Fleet, Hello, Limits, Moment, Published, Refusal, Refused, Said,
};
use rackferry_proto::v1::{CheckReport, ConnectResponse};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{
    gate::{Away, LeaderGate, leads},
    leadership::Leadership,
    questions::Question,
    raft::{Metrics, Node},
    reads::{Reads, Shown},
    refusals::Refusals,
    term::Vacated,
};

/// Inputs that may wait: a few for each agent of a few hundred hosts. Agents wait beyond that.
const INPUTS: usize = 4096;
/// Orders an agent may be behind; beyond that its stream is closed, and it starts anew by a Hello.
pub const ORDERS: usize = 1024;
/// How often the fleet is told that time has passed.
const TICK: Duration = Duration::from_secs(1);
/// How long an agent may take to look at a VM: longer than it waits itself, for storage and for a QEMU that it asks for
/// the first time.
const ANSWER: Duration = Duration::from_secs(30);
/// Pause before this coordinator leads again after it has lost the leadership.
const PAUSE: Duration = Duration::from_millis(100);

type Turn = Box<dyn FnOnce(&mut Fleet, Moment, &mut Vec<Effect>) -> Answer + Send>;
/// Sends what a client asked for, once the effects are out.
pub type Answer = Box<dyn FnOnce() + Send>;
/// The channel of an agent's orders.
pub type Orders = mpsc::Sender<Result<ConnectResponse, Status>>;

/// What the driver takes in turn.
pub enum Input {
    /// An agent introduced itself.
    Connected(Box<Hello>, Orders, oneshot::Sender<Link>),
    /// An agent's stream is gone.
    Disconnected(Connection),
    /// An agent said something.
    Said(Connection, Box<Said>),
    /// A client's request asks an agent something.
    Question(Connection, Question, oneshot::Sender<CheckReport>),
    /// An agent answers a question.
    Answer(Connection, CheckReport),
    /// A client's request needs a turn of the fleet.
    Ask(Turn),
    /// Time has passed.
    Tick,
}

/// An agent's connection, from the reader's side.
pub struct Link {
    /// The connection's number.
    pub connection: Connection,
    /// Cancelled when the driver has closed it.
    pub closed: CancellationToken,
}

/// Puts inputs to the driver.
#[derive(Clone)]
pub struct Handle {
    inputs: mpsc::Sender<Input>,
    reads: Reads,
    gate: LeaderGate,
    refusals: Refusals,
}

impl Handle {
    /// Returns when this coordinator leads. Cancel safe.
    ///
    /// # Errors
    /// If this coordinator does not lead; see [`LeaderGate::admit`].
    pub async fn admit(&self) -> Result<(), Away> {
        self.gate.admit().await
    }

    /// Why the driver closed an agent's link.
    pub fn away(&self) -> Away {
        self.gate.away()
    }

    /// Introduces an agent. Not cancel safe: its link would be left open until its stream ends.
    ///
    /// # Errors
    /// [`Away`].
    pub async fn connect(&self, hello: Hello, orders: Orders) -> Result<Link, Away> {
        let (reply, link) = oneshot::channel();
        self.put(Input::Connected(Box::new(hello), orders, reply)).await?;
        link.await.map_err(|_| self.away())
    }

    /// Tells the driver that a link's stream is gone. Cancel safe.
    ///
    /// # Errors
    /// [`Away`].
    pub async fn disconnect(&self, connection: Connection) -> Result<(), Away> {
        self.put(Input::Disconnected(connection)).await
    }

    /// Passes on what an agent said. Cancel safe: said or not said.
    ///
    /// # Errors
    /// [`Away`].
    pub async fn said(&self, connection: Connection, said: Said) -> Result<(), Away> {
        self.put(Input::Said(connection, Box::new(said))).await
    }

    /// Asks an agent something; nothing if it does not answer in time. Cancel safe.
    pub async fn check(&self, whom: Connection, question: Question) -> Option<CheckReport> {
        let (reply, answer) = oneshot::channel();
        self.put(Input::Question(whom, question, reply)).await.ok()?;
        tokio::time::timeout(ANSWER, answer).await.ok()?.ok()
    }

    /// Passes on an agent's answer. Cancel safe: said or not said.
    ///
    /// # Errors
    /// [`Away`].
    pub async fn answered(&self, from: Connection, report: CheckReport) -> Result<(), Away> {
        self.put(Input::Answer(from, report)).await
    }

    /// Looks at the fleet in a turn of it; what is seen is confirmed by a quorum. Cancel safe.
    ///
    /// # Errors
    /// [`Away`].
    pub async fn ask<T, F>(&self, look: F) -> Result<T, Away>
    where
        T: Send + 'static,
        F: FnOnce(&Fleet, Moment) -> T + Send + 'static,
    {
        self.turn(move |fleet, now, _| look(fleet, now)).await
    }

    /// Changes the fleet for a caller, and returns once the change and the event that names the caller are committed,
    /// in one write. There is no other way for a request to change the fleet. Cancel safe: the turn runs or it does not.
    ///
    /// # Errors
    /// [`Away`]; the turn may have been committed all the same.
    pub async fn act<T, F>(&self, act: Act, turn: F) -> Result<Result<T, Refusal>, Away>
    where
        T: Send + 'static,
        F: FnOnce(&mut Fleet, Moment, &mut Vec<Effect>) -> Result<Done<T>, Refusal>
            + Send
            + 'static,
    {
        self.turn(move |fleet, now, out| fleet.act(act, now, out, turn)).await
    }

    /// Has refusals written down; `others` are only counted. Cancel safe: written or not written.
    ///
    /// # Errors
    /// [`Away`].
    pub async fn write_refusals(&self, refused: Vec<Refused>, others: u64) -> Result<(), Away> {
        self.turn(move |fleet, now, out| fleet.refused(refused, others, now, out)).await
    }

    /// Where refusals are put.
    pub const fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Runs a turn on the fleet and returns its value after its effects are committed and out. Cancel
    /// safe: the turn runs or it does not.
    async fn turn<T, F>(&self, turn: F) -> Result<T, Away>
    where
        T: Send + 'static,
        F: FnOnce(&mut Fleet, Moment, &mut Vec<Effect>) -> T + Send + 'static,
    {
        self.admit().await?;
        let (reply, value) = oneshot::channel();
        let turn: Turn = Box::new(move |fleet, now, out| {
            let value = turn(fleet, now, out);
            Box::new(move || {
                // A client that went away needs no answer.
                let _ = reply.send(value);
            })
        });
        self.put(Input::Ask(turn)).await?;
        value.await.map_err(|_| self.away())
    }

    /// Everything that is shown, as a quorum confirms that it is; the caller's task makes its answer of it. Cancel safe.
    ///
    /// # Errors
    /// [`Away`].
    pub async fn published(&self) -> Result<Arc<Published>, Away> {
        self.admit().await?;
        self.reads.published().await.ok_or_else(|| self.away())
    }

    /// Changes whenever something visible has changed.
    pub fn changes(&self) -> watch::Receiver<Shown> {
        self.reads.changes()
    }

    /// What waits for the driver, and for the task that confirms reads.
    pub fn waiting(&self) -> Waiting {
        let inputs = self.inputs.max_capacity() - self.inputs.capacity();
        Waiting { inputs, reads: self.reads.waiting() }
    }

    async fn put(&self, input: Input) -> Result<(), Away> {
        self.inputs.send(input).await.map_err(|_| self.away())
    }
}

/// How many wait in each queue.
#[derive(Clone, Copy, Debug, Default)]
pub struct Waiting {
    /// Inputs of agents, clients and the clock.
    pub inputs: usize,
    /// Reads.
    pub reads: usize,
}

/// What the driver needs to start.
pub struct Setup {
    /// How many migrations and switchovers may be under way at once.
    pub limits: Limits,
    /// This coordinator's part in the log.
    pub node: Node,
    /// Where the key of the dedup domain is, or will be made if the log has none.
    pub key_path: PathBuf,
}

/// The task that owns the fleet while there is one.
pub struct Driver {
    pub setup: Setup,
    pub last_connection: Connection,
    pub shown: watch::Sender<Shown>,
    gate: watch::Sender<bool>,
    shutdown: CancellationToken,
}

impl Driver {
    /// Starts the driver; it stops with `shutdown`, and cancels it when it fails.
    pub fn start(
        setup: Setup,
        shutdown: &CancellationToken,
    ) -> (Handle, tokio::task::JoinHandle<anyhow::Result<()>>) {
        let (inputs, received) = mpsc::channel(INPUTS);
        let (shown, seen) = watch::channel(None);
        let reads = Reads::start(setup.node.raft.clone(), seen);
        let (gate, open) = watch::channel(false);
        let look = LeaderGate::new(setup.node.raft.metrics(), open, shutdown.clone());
        let last_connection = Connection(0);
        let driver = Self { setup, last_connection, shown, gate, shutdown: shutdown.clone() };
        tokio::spawn(tick(inputs.clone(), shutdown.clone()));
        let stop = shutdown.clone();
        let running = tokio::spawn(async move {
            let _stops = stop.drop_guard();
            driver.run(received).await.inspect_err(|error| {
                tracing::error!(error = format!("{error:#}"), "the log failed");
            })
        });
        let (refusals, waiting) = Refusals::new();
        let handle = Handle { inputs, reads, gate: look, refusals };
        tokio::spawn(waiting.serve(handle.clone(), shutdown.clone()));
        (handle, running)
    }

    async fn run(mut self, mut inputs: mpsc::Receiver<Input>) -> anyhow::Result<()> {
        let mut metrics = self.setup.node.raft.metrics();
        let shutdown = self.shutdown.clone();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                term = elected(&mut metrics) => {
                    self.serve(term?, &mut inputs).await?;
                    tokio::time::sleep(PAUSE).await;
                }
                // The sender finds that no leader answers, and why.
                input = inputs.recv() => drop(input),
            }
        }
    }

    /// One time of leading.
    async fn serve(&mut self, term: u64, inputs: &mut mpsc::Receiver<Input>) -> anyhow::Result<()> {
        let shutdown = self.shutdown.clone();
        let vacated = {
            let leadership = tokio::select! {
                leadership = Leadership::begin(self, term) => leadership,
                () = shutdown.cancelled() => return Ok(()),
            };
            match leadership {
                Ok(mut leadership) => {
                    leadership.open();
                    let vacated = tokio::select! {
                        vacated = leadership.run(inputs) => vacated,
                        () = shutdown.cancelled() => return Ok(()),
                    };
                    leadership.end();
                    vacated
                }
                Err(vacated) => vacated,
            }
        };
        match vacated {
            Vacated::Failed(error) => Err(error),
            Vacated::Lost(why) => {
                tracing::warn!(term, why, "no longer leading");
                Ok(())
            }
        }
    }

    /// Opens or closes the gate for agents and clients.
    pub fn open(&self, open: bool) {
        self.gate.send_replace(open);
    }
}

/// The term this coordinator was elected for.
async fn elected(metrics: &mut watch::Receiver<Metrics>) -> anyhow::Result<u64> {
    let seen = metrics.wait_for(|seen| seen.running_state.is_err() || leads(seen));
    let seen = seen.await.context("the log has ended")?;
    seen.running_state.clone().context("the log has stopped")?;
    Ok(seen.current_term)
}

/// Lets time pass until the driver is gone.
async fn tick(inputs: mpsc::Sender<Input>, shutdown: CancellationToken) {
    let mut interval = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            () = shutdown.cancelled() => return,
        }
        if inputs.send(Input::Tick).await.is_err() {
            return;
        }
    }
}

/// The time of day.
pub fn now() -> Moment {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Moment(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
