//! The one owner of the fleet: takes inputs in turn, makes their records durable, then lets their
//! effects out.

use std::{
    collections::HashMap,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use rackferry_fleet::{
    Change, Connection, Effect, Event, Fleet, Hello, Limits, Moment, Order, Record, Said,
};
use rackferry_proto::v1::ConnectResponse;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;

use crate::{convert, key::DomainKey, storage::Storage};

/// Inputs that may wait: a few for each agent of a few hundred hosts. Agents wait beyond that.
const INPUTS: usize = 4096;
/// Inputs taken together, so that they share one write to the disk.
const BATCH: usize = 256;
/// Orders an agent may be behind; beyond that its stream is closed, and it starts anew by a Hello.
pub const ORDERS: usize = 1024;
/// How often time passes.
const TICK: Duration = Duration::from_secs(1);

/// The coordinator is going down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the coordinator is going down")]
pub struct Gone;

type Turn = Box<dyn FnOnce(&mut Fleet, Moment, &mut Vec<Effect>) -> Answer + Send>;
/// Sends what a client asked for, once the effects are out.
type Answer = Box<dyn FnOnce() + Send>;
/// Where an agent's orders go.
pub type Orders = mpsc::Sender<Result<ConnectResponse, Status>>;

enum Input {
    Connected(Box<Hello>, Orders, oneshot::Sender<Link>),
    Disconnected(Connection),
    Said(Connection, Box<Said>),
    Ask(Turn),
    Tick,
}

/// An agent's connection, from the reader's side.
pub struct Link {
    /// Its number.
    pub connection: Connection,
    /// Cancelled when the driver has closed it.
    pub closed: CancellationToken,
}

/// Puts inputs to the driver.
#[derive(Clone)]
pub struct Handle {
    inputs: mpsc::Sender<Input>,
    /// Rises whenever something visible has changed.
    changed: watch::Receiver<u64>,
}

impl Handle {
    /// Introduces an agent. Not cancel safe: its link would be left open until its stream ends.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn connect(&self, hello: Hello, orders: Orders) -> Result<Link, Gone> {
        let (reply, link) = oneshot::channel();
        self.put(Input::Connected(Box::new(hello), orders, reply)).await?;
        link.await.map_err(|_| Gone)
    }

    /// A link's stream is gone. Cancel safe.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn disconnect(&self, connection: Connection) -> Result<(), Gone> {
        self.put(Input::Disconnected(connection)).await
    }

    /// Passes on what an agent said. Cancel safe: said or not said.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn said(&self, connection: Connection, said: Said) -> Result<(), Gone> {
        self.put(Input::Said(connection, Box::new(said))).await
    }

    /// Runs a turn on the fleet and returns its value after its effects are durable and out. Cancel
    /// safe: the turn runs or it does not.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn ask<T, F>(&self, turn: F) -> Result<T, Gone>
    where
        T: Send + 'static,
        F: FnOnce(&mut Fleet, Moment, &mut Vec<Effect>) -> T + Send + 'static,
    {
        let (reply, value) = oneshot::channel();
        let turn: Turn = Box::new(move |fleet, now, out| {
            let value = turn(fleet, now, out);
            Box::new(move || {
                // A client that went away needs no answer.
                let _ = reply.send(value);
            })
        });
        self.put(Input::Ask(turn)).await?;
        value.await.map_err(|_| Gone)
    }

    /// Changes whenever something visible has changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }

    async fn put(&self, input: Input) -> Result<(), Gone> {
        self.inputs.send(input).await.map_err(|_| Gone)
    }
}

struct OpenLink {
    orders: Orders,
    _closes: DropGuard,
}

/// The owner of the fleet, on its own thread.
pub struct Driver {
    fleet: Fleet,
    storage: Storage,
    key: DomainKey,
    links: HashMap<Connection, OpenLink>,
    last_connection: Connection,
    changed: watch::Sender<u64>,
    /// Links whose agents do not take their orders.
    stuck: Vec<Connection>,
}

/// The driver's thread.
pub struct Running {
    ended: oneshot::Receiver<anyhow::Result<()>>,
}

impl Running {
    /// Waits for its end. Not cancel safe.
    ///
    /// # Errors
    /// Why the log failed.
    pub async fn join(self) -> anyhow::Result<()> {
        self.ended.await.context("the driver panicked")?
    }
}

impl Driver {
    /// Starts the driver; it stops with `shutdown`, and cancels it when it fails.
    ///
    /// # Errors
    /// If there can be no thread.
    pub fn start(
        limits: Limits,
        storage: Storage,
        records: Vec<Record>,
        key: DomainKey,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<(Handle, Running)> {
        let (inputs, received) = mpsc::channel(INPUTS);
        let (changed, changes) = watch::channel(0);
        let driver = Self {
            fleet: Fleet::new(limits, records, now()),
            storage,
            key,
            links: HashMap::new(),
            last_connection: Connection(0),
            changed,
            stuck: Vec::new(),
        };
        let (end, ended) = oneshot::channel();
        let stop = shutdown.clone();
        thread::Builder::new().name("driver".to_owned()).spawn(move || {
            let _stops = stop.clone().drop_guard();
            let _ = end.send(driver.run(received, &stop));
        })?;
        tokio::spawn(tick(inputs.clone(), shutdown.clone()));
        Ok((Handle { inputs, changed: changes }, Running { ended }))
    }

    fn run(
        mut self,
        mut inputs: mpsc::Receiver<Input>,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let mut batch = Vec::with_capacity(BATCH);
        // The ticker keeps it awake, so that it sees the stop.
        while !stop.is_cancelled() && inputs.blocking_recv_many(&mut batch, BATCH) > 0 {
            self.turn(batch.drain(..)).inspect_err(|error| {
                tracing::error!(error = format!("{error:#}"), "the log failed");
            })?;
        }
        Ok(())
    }

    /// One batch. Everything in it is durable before any of its effects leaves: later records may come
    /// earlier than they must, never the other way.
    fn turn(&mut self, inputs: impl Iterator<Item = Input>) -> anyhow::Result<()> {
        let mut effects = Vec::new();
        let mut answers: Vec<Answer> = Vec::new();
        for connection in std::mem::take(&mut self.stuck) {
            self.fleet.handle(Event::Disconnected(connection), now(), &mut effects);
        }
        for input in inputs {
            answers.extend(self.take(input, &mut effects));
        }
        let mut changes: Vec<Change> = Vec::new();
        for effect in &mut effects {
            if let Effect::Persist(more) = effect {
                changes.append(more);
            }
        }
        if !changes.is_empty() {
            self.storage.commit(&changes).context("writing the log")?;
        }
        let mut publish = false;
        for effect in effects {
            match effect {
                Effect::Persist(_) => {}
                Effect::Send(connection, order) => self.send(connection, order),
                Effect::Publish => publish = true,
                Effect::Log(notice) if notice.urgent => tracing::error!("{}", notice.text),
                Effect::Log(notice) => tracing::info!("{}", notice.text),
            }
        }
        for answer in answers {
            answer();
        }
        if publish {
            self.changed.send_modify(|changes| *changes += 1);
        }
        Ok(())
    }

    fn take(&mut self, input: Input, effects: &mut Vec<Effect>) -> Option<Answer> {
        let event = match input {
            Input::Connected(hello, orders, reply) => {
                self.last_connection.0 += 1;
                let connection = self.last_connection;
                let closed = CancellationToken::new();
                let link = OpenLink { orders, _closes: closed.clone().drop_guard() };
                // Only a host's latest stream counts. If its agent still holds an older one (a Hello that was late,
                // of an agent that is gone), it must learn that, and dial again.
                let known = self.fleet.hosts().into_iter().find(|known| known.name == hello.host);
                if let Some(void) = known.and_then(|known| known.connection) {
                    self.links.remove(&void);
                }
                self.links.insert(connection, link);
                tracing::info!(host = %hello.host, rack = %hello.rack, vms = hello.vms.len(), "agent");
                // A reader that went away finds its stream closed.
                let _ = reply.send(Link { connection, closed });
                Event::Connected(connection, *hello)
            }
            Input::Disconnected(connection) => {
                self.links.remove(&connection);
                Event::Disconnected(connection)
            }
            Input::Said(connection, said) => Event::Said(connection, *said),
            Input::Ask(turn) => return Some(turn(&mut self.fleet, now(), effects)),
            Input::Tick => Event::Tick,
        };
        self.fleet.handle(event, now(), effects);
        None
    }

    fn send(&mut self, connection: Connection, order: Order) {
        let Some(link) = self.links.get(&connection) else { return };
        let response = convert::order(order, &self.key);
        if link.orders.try_send(Ok(response)).is_err() {
            self.links.remove(&connection);
            self.stuck.push(connection);
        }
    }
}

/// Lets time pass until the driver is gone; once more at the shutdown, to wake it.
async fn tick(inputs: mpsc::Sender<Input>, shutdown: CancellationToken) {
    let mut interval = tokio::time::interval(TICK);
    while !shutdown.is_cancelled() {
        tokio::select! {
            _ = interval.tick() => {}
            () = shutdown.cancelled() => {}
        }
        if inputs.send(Input::Tick).await.is_err() {
            return;
        }
    }
}

fn now() -> Moment {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Moment(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
