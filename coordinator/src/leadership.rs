//! The time in which a coordinator leads: drives the turns of a fleet that is built from the log. What a turn is, and
//! what its outputs wait for, is [`rackferry_fleet::Leader`]'s; here is the log, the links and the clock.
//!
//! # Why a deposed leader does no harm
//!
//! There is at most one leader a term, and an entry is committed only by the leader of its term with a
//! quorum. Three rules make the fleet's decisions those of the log:
//!
//! 1. **A fleet begins with a write.** The first thing is [`Command::TakeOffice`]. When it is
//!    applied, every entry before it is, and no leader of an earlier term can commit another. The fleet is
//!    built from the records as they are then. A read barrier would not do: a leader restarted in its
//!    own term does not know how far it had committed.
//! 2. **What a turn changes is committed before anything of it leaves.** A write that does not succeed,
//!    or of which nothing is heard before the quorum is lost, ends the leadership: the fleet is
//!    dropped, every link and every waiting client with it. Whether that write is in the log is for the next
//!    fleet to see. It names its term, and counts in no other: its leader did not know what came between.
//! 3. **What leaves without a write leaves behind a barrier.** Orders and answers of a turn that changed
//!    nothing (a commit's answer repeated, `ResumeTarget` after a list, a discard) wait until a quorum has said that
//!    it still follows this leader ([`Raft::ensure_linearizable`](openraft::Raft::ensure_linearizable)). So when the turn was
//!    taken no other leader had begun, and the order was true.
//!
//! An order may still be on its way when another leader begins. That is an order that is late, as one
//! coordinator's orders can be: an agent's new stream makes its old one void, and the fleet of the next leader
//! believes nothing of an agent but what comes on the new one.

use std::{collections::HashMap, time::Instant};

use anyhow::Context;
use rackferry_fleet::{
    Change, Connection, Decision, Fleet, Gate, Hello, Key, Leader, Order, Outputs, Record,
};
use rackferry_proto::{
    refuse_not_leader,
    v1::{self, ConnectResponse, connect_response::Message},
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    convert,
    driver::{Answer, Driver, Input, Link, Orders, now},
    gate::leader_elsewhere,
    key::{self, DomainKey},
    metrics,
    questions::Questions,
    raft::{Command, Metrics},
    service::expelled,
    term::{Term, Vacated},
};

/// Inputs taken together, so that they share one write.
const BATCH: usize = 256;
/// Records of before Raft in one write.
const RECORDS: usize = 4096;

fn is_about_expelled(change: &Change) -> bool {
    matches!(change, Change::Put(Record::Expelled(_)) | Change::Remove(Key::Expelled(..)))
}

struct OpenLink {
    orders: Orders,
    _closes: DropGuard,
}

/// A time in which this coordinator leads.
pub struct Leadership<'a> {
    driver: &'a mut Driver,
    term: u64,
    metrics: watch::Receiver<Metrics>,
    leader: Leader<Answer>,
    key: DomainKey,
    incarnation: u64,
    links: HashMap<Connection, OpenLink>,
    /// Links whose agents do not take their orders.
    stuck: Vec<Connection>,
    questions: Questions,
}

impl<'a> Leadership<'a> {
    /// Takes the lead, and the fleet from the log. Not cancel safe, but for giving up.
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
        let mut log = Term::new(node, term);
        log.write(Command::TakeOffice { node: node.id, domain_key }).await?;
        if let Some(records) = &node.unconverted {
            tracing::info!(records = records.len(), "taking over the records of before Raft");
            for records in records.chunks(RECORDS) {
                let changes = records.iter().cloned().map(Change::Put).collect();
                log.change(changes).await?;
            }
            let closed = node.log.close_records().await.context("closing the old log");
            closed.map_err(Vacated::Failed)?;
            node.unconverted = None;
        }
        log.settle_address(node.id, &node.addr).await?;
        let key = node.applied.domain_key().context("the log has no key of the dedup domain");
        let key = key.map_err(Vacated::Failed)?;
        let incarnation = node.applied.incarnation();
        let records = node.applied.records();
        tracing::info!(term, records = records.len(), "leading");
        let mut fleet = Fleet::new(driver.setup.limits, records, now());
        fleet.set_term(term);
        let leader = Leader::new(fleet, driver.last_connection);
        let (links, stuck, questions) = (HashMap::new(), Vec::new(), Questions::default());
        Ok(Self { driver, term, metrics, leader, key, incarnation, links, stuck, questions })
    }

    /// Lets agents and clients in.
    pub fn open(&mut self) {
        self.publish(true);
        self.driver.open(true);
    }

    /// Takes inputs for as long as it lasts.
    pub async fn run(&mut self, inputs: &mut mpsc::Receiver<Input>) -> Vacated {
        let mut log = self.log();
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                biased;
                lost = log.lost() => return lost,
                count = inputs.recv_many(&mut batch, BATCH) => if count == 0 {
                    return Vacated::Lost("shutdown");
                },
            }
            let mut waiting = batch.drain(..);
            // Once more for as long as there is more to start than one turn looks at.
            while waiting.len() > 0 || self.leader.has_more() {
                if let Err(vacated) = self.turn(&mut waiting, &mut log).await {
                    return vacated;
                }
            }
        }
    }

    /// Tells every agent to go elsewhere; clients that wait find that they get no answer.
    pub fn end(mut self) {
        self.driver.open(false);
        self.driver.shown.send_replace(None);
        let leader = leader_elsewhere(&self.metrics.borrow());
        for (_, link) in self.links.drain() {
            // An agent that does not take it finds its stream closed.
            let _ = link.orders.try_send(Err(refuse_not_leader(leader.as_deref())));
        }
    }

    fn log(&self) -> Term {
        Term::new(&self.driver.setup.node, self.term)
    }

    /// One write, or one barrier; then what came of it leaves.
    async fn turn(
        &mut self,
        inputs: &mut impl Iterator<Item = Input>,
        log: &mut Term,
    ) -> Result<(), Vacated> {
        let begun = Instant::now();
        for connection in std::mem::take(&mut self.stuck) {
            self.leader.disconnect(connection, now());
        }
        self.leader.fleet_mut().keep_events(log.reads_events());
        while self.leader.takes_more()
            && let Some(input) = inputs.next()
        {
            self.take(input);
        }
        let Decision { gate, at_once } = self.leader.decide(now());
        self.let_out(at_once);
        let mut expels = false;
        match gate {
            Gate::Write(changes) => {
                expels = changes.iter().any(is_about_expelled);
                let begun = Instant::now();
                log.change(changes).await?;
                metrics::committed(begun.elapsed());
                self.leader
                    .fleet_mut()
                    .take_ended()
                    .into_iter()
                    .for_each(metrics::migrations_ended);
            }
            Gate::Barrier => log.confirm().await?,
            Gate::Open => {}
        }
        let outputs = self.leader.release();
        // Before a client hears of its change, so that it finds it when it reads.
        self.publish(outputs.publish);
        self.let_out(outputs);
        if expels {
            let all: Vec<_> = self.links.keys().copied().collect();
            all.into_iter().for_each(|connection| self.tell_expelled(connection));
        }
        metrics::turned(begun.elapsed());
        Ok(())
    }

    /// Tells an agent who is expelled.
    fn tell_expelled(&mut self, connection: Connection) {
        let records = self.driver.setup.node.applied.expelled();
        let certificates = records.into_iter().map(expelled).collect();
        let message = Message::Expelled(v1::Expelled { certificates });
        self.pass_on(connection, ConnectResponse { message: Some(message) });
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Connected(hello, orders, reply) => self.connect(*hello, orders, reply),
            Input::Disconnected(connection) => {
                self.links.remove(&connection);
                self.questions.forget(connection);
                self.leader.disconnect(connection, now());
            }
            Input::Question(whom, question, reply) => {
                // Without a link the reply is dropped: there will be no answer.
                if self.links.contains_key(&whom) {
                    let message = self.questions.ask(whom, question, reply);
                    self.pass_on(whom, ConnectResponse { message: Some(message) });
                }
            }
            Input::Answer(from, report) => self.questions.answer(from, report),
            Input::Said(connection, said) => self.leader.hear(connection, *said, now()),
            Input::Ask(request) => self.leader.ask(now(), request),
            Input::Tick => self.leader.tick(now()),
        }
    }

    fn connect(&mut self, hello: Hello, orders: Orders, reply: oneshot::Sender<Link>) {
        tracing::info!(host = %hello.host, rack = %hello.rack, vms = hello.vms.len(), "agent");
        let admission = match self.leader.connect(hello, now()) {
            Ok(admission) => admission,
            Err(refusal) => {
                // An agent that is gone needs no reason.
                let _ = orders.try_send(Err(convert::refusal(&refusal)));
                return;
            }
        };
        self.driver.last_connection = admission.connection;
        if let Some(void) = admission.void {
            self.links.remove(&void);
        }
        let closed = CancellationToken::new();
        let link = OpenLink { orders, _closes: closed.clone().drop_guard() };
        self.links.insert(admission.connection, link);
        // A reader that went away finds its stream closed.
        let _ = reply.send(Link { connection: admission.connection, closed });
    }

    fn let_out(&mut self, outputs: Outputs<Answer>) {
        for notice in outputs.notices {
            if notice.urgent {
                tracing::error!("{}", notice.text);
            } else {
                tracing::info!("{}", notice.text);
            }
        }
        for (connection, order) in outputs.orders {
            self.send(connection, order);
        }
        for answer in outputs.answers {
            answer();
        }
    }

    /// Lets readers see what was decided, and tells watchers if it is news to them.
    fn publish(&mut self, news: bool) {
        let published = self.leader.fleet_mut().published();
        self.driver.shown.send_if_modified(|shown| {
            *shown = Some(published);
            news
        });
    }

    fn send(&mut self, connection: Connection, order: Order) {
        let welcome = matches!(order, Order::Welcome(_));
        self.pass_on(connection, convert::order(order, &self.key, self.incarnation));
        if welcome {
            self.tell_expelled(connection);
        }
    }

    fn pass_on(&mut self, connection: Connection, response: ConnectResponse) {
        let Some(link) = self.links.get(&connection) else { return };
        if link.orders.try_send(Ok(response)).is_err() {
            self.links.remove(&connection);
            self.stuck.push(connection);
        }
    }
}
