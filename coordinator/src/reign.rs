//! A leader's time in office: the fleet, built from the log and driven by inputs.
//!
//! # Why a deposed leader does no harm
//!
//! There is at most one leader a term, and an entry is committed only by the leader of its term with a
//! quorum. Three rules make the fleet's decisions those of the log:
//!
//! 1. **A fleet begins with a write.** The first thing in office is [`Command::TakeOffice`]. When it is
//!    applied, every entry before it is, and no leader of an earlier term can commit another. The fleet is
//!    built from the records as they are then. A read barrier would not do: a leader restarted in its
//!    own term does not know how far it had committed.
//! 2. **What a turn changes is committed before anything of it leaves.** A write that does not succeed,
//!    or of which nothing is heard before the quorum is lost, ends the time in office: the fleet is
//!    dropped, every link and every waiting client with it. Whether that write is in the log is for the next
//!    fleet to see. It names its term, and counts in no other: what came between was not known to who decided it.
//! 3. **What leaves without a write leaves behind a barrier.** Orders and answers of a turn that changed
//!    nothing (a commit's answer repeated, `ResumeTarget` after a list, a discard) wait until a quorum has said that
//!    it still follows this leader ([`Raft::ensure_linearizable`](openraft::Raft::ensure_linearizable)). So when the turn was
//!    taken no other leader had begun, and the order was true.
//!
//! An order may still be on its way when another leader begins. That is an order that is late, as one
//! coordinator's orders can be: an agent's new stream makes its old one void, and the fleet of the next leader
//! believes nothing of an agent but what comes on the new one.

use std::collections::HashMap;

use anyhow::Context;
use rackferry_fleet::{Change, Connection, Effect, Event, Fleet, Order};
use rackferry_proto::{refuse_not_leader, v1::ConnectResponse};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    convert,
    driver::{Answer, Driver, Input, Link, Orders, now},
    key::{self, DomainKey},
    office::leader_elsewhere,
    questions::Questions,
    raft::{Command, Metrics},
    term::{Term, Vacated},
};

/// Inputs taken together, so that they share one write.
const BATCH: usize = 256;
/// Changes after which no more inputs share it: about 4 MiB.
const CHANGES: usize = 8192;
/// Records of before Raft in one write.
const RECORDS: usize = 4096;

struct OpenLink {
    orders: Orders,
    _closes: DropGuard,
}

/// What a batch of inputs comes to, before any of it leaves.
#[derive(Default)]
struct Batch {
    changes: Vec<Change>,
    effects: Vec<Effect>,
    answers: Vec<Answer>,
}

/// A time in office.
pub struct Reign<'a> {
    driver: &'a mut Driver,
    term: u64,
    metrics: watch::Receiver<Metrics>,
    fleet: Fleet,
    key: DomainKey,
    links: HashMap<Connection, OpenLink>,
    /// Links whose agents do not take their orders.
    stuck: Vec<Connection>,
    questions: Questions,
}

impl<'a> Reign<'a> {
    /// Takes office, and the fleet from the log. Not cancel safe, but for giving up.
    ///
    /// # Errors
    /// If there is another leader meanwhile, or the key cannot be had.
    pub async fn begin(driver: &'a mut Driver, term: u64) -> Result<Self, Vacated> {
        let metrics = driver.setup.node.raft.metrics();
        let node = &mut driver.setup.node;
        let domain_key = match node.applied.domain_key() {
            Some(_) => None,
            None => Some(
                key::load_or_create(&driver.setup.key_path)
                    .context("the dedup domain's key")
                    .map_err(Vacated::Failed)?,
            ),
        };
        let mut office = Term::new(node.raft.clone(), metrics.clone(), term);
        office.write(Command::TakeOffice { node: node.id, domain_key }).await?;
        if let Some(records) = &node.unconverted {
            tracing::info!(records = records.len(), "taking over the records of before Raft");
            for records in records.chunks(RECORDS) {
                let changes = records.iter().cloned().map(Change::Put).collect();
                office.change(changes).await?;
            }
            let closed = node.log.close_records().await.context("closing the old log");
            closed.map_err(Vacated::Failed)?;
            node.unconverted = None;
        }
        office.settle_address(node.id, &node.addr).await?;
        let key = node.applied.domain_key().context("the log has no key of the dedup domain");
        let key = key.map_err(Vacated::Failed)?;
        let records = node.applied.records();
        tracing::info!(term, records = records.len(), "leading");
        let fleet = Fleet::new(driver.setup.limits, records, now());
        let (links, stuck, questions) = (HashMap::new(), Vec::new(), Questions::default());
        Ok(Self { driver, term, metrics, fleet, key, links, stuck, questions })
    }

    /// Lets agents and clients in.
    pub fn open(&self, open: bool) {
        self.driver.open(open);
    }

    /// Takes inputs for as long as it lasts.
    pub async fn run(&mut self, inputs: &mut mpsc::Receiver<Input>) -> Vacated {
        let mut office = self.office();
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                biased;
                lost = office.lost() => return lost,
                count = inputs.recv_many(&mut batch, BATCH) => if count == 0 {
                    return Vacated::Lost("shutdown");
                },
            }
            let mut waiting = batch.drain(..);
            while waiting.len() > 0 {
                if let Err(vacated) = self.turn(&mut waiting, &mut office).await {
                    return vacated;
                }
            }
        }
    }

    /// Tells every agent to go elsewhere; clients that wait find that nobody answers.
    pub fn end(mut self) {
        self.open(false);
        let leader = leader_elsewhere(&self.metrics.borrow());
        for (_, link) in self.links.drain() {
            // An agent that does not take it finds its stream closed.
            let _ = link.orders.try_send(Err(refuse_not_leader(leader.as_deref())));
        }
    }

    fn office(&self) -> Term {
        Term::new(self.driver.setup.node.raft.clone(), self.metrics.clone(), self.term)
    }

    /// One write, or one barrier; then what came of it leaves. Later records may come earlier than they
    /// must, never the other way.
    async fn turn(
        &mut self,
        inputs: &mut impl Iterator<Item = Input>,
        office: &mut Term,
    ) -> Result<(), Vacated> {
        let Batch { changes, effects, answers } = self.decide(inputs);
        let orders = effects.iter().any(|effect| matches!(effect, Effect::Send(..)));
        if !changes.is_empty() {
            office.change(changes).await?;
        } else if orders || !answers.is_empty() {
            office.confirm().await?;
        }
        self.let_out(effects, answers);
        Ok(())
    }

    /// Asks the fleet about inputs, until there are enough changes for one write.
    fn decide(&mut self, inputs: &mut impl Iterator<Item = Input>) -> Batch {
        let mut batch = Batch::default();
        let mut effects = Vec::new();
        for connection in std::mem::take(&mut self.stuck) {
            self.fleet.handle(Event::Disconnected(connection), now(), &mut effects);
        }
        while batch.changes.len() < CHANGES
            && let Some(input) = inputs.next()
        {
            batch.answers.extend(self.take(input, &mut effects));
            for effect in effects.drain(..) {
                match effect {
                    Effect::Persist(changes) => batch.changes.extend(changes),
                    effect => batch.effects.push(effect),
                }
            }
        }
        batch
    }

    fn take(&mut self, input: Input, effects: &mut Vec<Effect>) -> Option<Answer> {
        let event = match input {
            Input::Connected(hello, orders, reply) => {
                self.driver.last_connection.0 += 1;
                let connection = self.driver.last_connection;
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
                self.questions.forget(connection);
                Event::Disconnected(connection)
            }
            Input::Question(whom, question, reply) => {
                // Without a link the reply is dropped: there will be no answer.
                if self.links.contains_key(&whom) {
                    let message = self.questions.ask(whom, question, reply);
                    self.pass_on(whom, ConnectResponse { message: Some(message) });
                }
                return None;
            }
            Input::Answer(from, report) => {
                self.questions.answer(from, report);
                return None;
            }
            Input::Said(connection, said) => Event::Said(connection, *said),
            Input::Ask(turn) => return Some(turn(&mut self.fleet, now(), effects)),
            Input::Tick => Event::Tick,
        };
        self.fleet.handle(event, now(), effects);
        None
    }

    fn let_out(&mut self, effects: Vec<Effect>, answers: Vec<Answer>) {
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
            self.driver.changed.send_modify(|changes| *changes += 1);
        }
    }

    fn send(&mut self, connection: Connection, order: Order) {
        self.pass_on(connection, convert::order(order, &self.key));
    }

    fn pass_on(&mut self, connection: Connection, response: ConnectResponse) {
        let Some(link) = self.links.get(&connection) else { return };
        if link.orders.try_send(Ok(response)).is_err() {
            self.links.remove(&connection);
            self.stuck.push(connection);
        }
    }
}
