//! A leader's turn: a batch of inputs, one write or one barrier for it, and then what leaves.
//!
//! The order is the promise. A turn that changed records waits until they are committed. One that gives orders or
//! answers without a change waits until a quorum has confirmed, after the turn, that it still follows this leader: so
//! when the turn was taken no other leader had begun. Nothing else is decided meanwhile.
//!
//! There is no task, clock or socket here: the caller writes, asks the quorum, and sends.

use crate::{Change, Connection, Effect, Event, Fleet, Hello, Moment, Notice, Order, Said};

/// Changes after which no more inputs share a write: about 4 MiB.
const CHANGES: usize = 8192;

/// What must happen before the outputs of a turn may leave.
#[derive(Clone, Debug, PartialEq)]
pub enum Gate {
    /// These changes are committed, together.
    Write(Vec<Change>),
    /// A quorum confirms, from now on, that it follows this leader.
    Barrier,
    /// Nothing.
    Open,
}

/// What leaves.
#[derive(Debug)]
pub struct Outputs<A> {
    /// To agents, in this order.
    pub orders: Vec<(Connection, Order)>,
    /// To clients.
    pub answers: Vec<A>,
    /// To the operator's log.
    pub notices: Vec<Notice>,
    /// What watchers see has changed.
    pub publish: bool,
}

impl<A> Default for Outputs<A> {
    fn default() -> Self {
        Self { orders: Vec::new(), answers: Vec::new(), notices: Vec::new(), publish: false }
    }
}

/// What a turn comes to.
#[derive(Debug)]
pub struct Decision<A> {
    /// What the rest waits for; see [`Leader::release`].
    pub gate: Gate,
    /// What waits for nothing: it orders nothing.
    pub at_once: Outputs<A>,
}

/// An agent was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Its connection.
    pub connection: Connection,
    /// The one before of the same host, void from now on. Its agent must learn that: it may be alive, if the Hello
    /// was late, of an agent that is gone.
    pub void: Option<Connection>,
}

/// The fleet of a leader, and the turn it is in. `A` is an answer to a client.
pub struct Leader<A> {
    fleet: Fleet,
    last: Connection,
    changes: Vec<Change>,
    outputs: Outputs<A>,
    /// Decided, and behind the gate.
    held: Option<Outputs<A>>,
}

impl<A> Leader<A> {
    /// Begins with a fleet as its records say. Connections get greater numbers than `last`.
    pub fn new(fleet: Fleet, last: Connection) -> Self {
        Self { fleet, last, changes: Vec::new(), outputs: Outputs::default(), held: None }
    }

    /// What it knows.
    pub const fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// For tests that look for what was overlooked.
    pub const fn fleet_mut(&mut self) -> &mut Fleet {
        &mut self.fleet
    }

    /// The greatest number of a connection so far.
    pub const fn last_connection(&self) -> Connection {
        self.last
    }

    /// One more input may share the write of this turn. None may while what was decided waits.
    pub fn takes_more(&self) -> bool {
        self.held.is_none() && self.changes.len() < CHANGES
    }

    /// There is work left that no input must bring about.
    pub fn has_more(&self) -> bool {
        self.held.is_none() && self.fleet.has_more()
    }

    /// An agent introduces itself.
    ///
    /// # Errors
    /// It may not speak for its host.
    pub fn connect(&mut self, hello: Hello, now: Moment) -> Result<Admission, crate::Refusal> {
        self.fleet.admit(&hello, now)?;
        self.last.0 += 1;
        let connection = self.last;
        let void = self.fleet.connection_of(&hello.host);
        self.handle(Event::Connected(connection, hello), now);
        Ok(Admission { connection, void })
    }

    /// An agent's stream is gone.
    pub fn disconnect(&mut self, connection: Connection, now: Moment) {
        self.handle(Event::Disconnected(connection), now);
    }

    /// An agent says something.
    pub fn hear(&mut self, connection: Connection, said: Said, now: Moment) {
        self.handle(Event::Said(connection, said), now);
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Moment) {
        self.handle(Event::Tick, now);
    }

    /// A client asks; its answer leaves with this turn.
    pub fn ask(
        &mut self,
        now: Moment,
        request: impl FnOnce(&mut Fleet, Moment, &mut Vec<Effect>) -> A,
    ) {
        let mut effects = Vec::new();
        self.fleet.open_batch();
        let answer = request(&mut self.fleet, now, &mut effects);
        self.take(effects);
        self.outputs.answers.push(answer);
    }

    fn handle(&mut self, event: Event, now: Moment) {
        let mut effects = Vec::new();
        self.fleet.open_batch();
        self.fleet.handle(event, now, &mut effects);
        self.take(effects);
    }

    fn take(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Persist(changes) => self.changes.extend(changes),
                Effect::Send(connection, order) => self.outputs.orders.push((connection, order)),
                Effect::Publish => self.outputs.publish = true,
                Effect::Log(notice) => self.outputs.notices.push(notice),
            }
        }
    }

    /// What this turn has come to so far, or what is held back.
    pub fn outputs(&self) -> &Outputs<A> {
        self.held.as_ref().unwrap_or(&self.outputs)
    }

    /// Ends the turn: starts what may start, and says what its outputs wait for.
    pub fn decide(&mut self, now: Moment) -> Decision<A> {
        let mut effects = Vec::new();
        self.fleet.close_batch(now, &mut effects);
        self.take(effects);
        let mut held = std::mem::take(&mut self.outputs);
        let notices = std::mem::take(&mut held.notices);
        let at_once = Outputs { notices, ..Outputs::default() };
        let changes = std::mem::take(&mut self.changes);
        let gate = if !changes.is_empty() {
            Gate::Write(changes)
        } else if !held.orders.is_empty() || !held.answers.is_empty() {
            Gate::Barrier
        } else {
            Gate::Open
        };
        #[cfg(feature = "planted-bugs")]
        let (gate, at_once, held) = self.fleet.spoil(gate, at_once, held);
        self.held = Some(held);
        Decision { gate, at_once }
    }

    /// The gate is passed: what was decided leaves.
    pub fn release(&mut self) -> Outputs<A> {
        self.held.take().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BootId, Limits, Record};

    const NOW: Moment = Moment(7);

    fn leader() -> Leader<u32> {
        Leader::new(Fleet::new(Limits::default(), [], NOW), Connection(4))
    }

    fn hello() -> Hello {
        Hello {
            host: "a".into(),
            rack: "r".into(),
            page_addr: "a:1".to_owned(),
            memory_bytes: 1,
            agent_version: "1".to_owned(),
            boot: BootId::new("b"),
            installation: None,
            vms: Vec::new(),
        }
    }

    #[test]
    fn what_changed_is_written_before_anything_leaves() {
        let mut leader = leader();
        let admitted = leader.connect(hello(), NOW).unwrap();
        assert_eq!(admitted, Admission { connection: Connection(5), void: None });
        let decision = leader.decide(NOW);
        let Gate::Write(changes) = decision.gate else { panic!("{:?}", decision.gate) };
        assert!(changes.iter().any(|one| matches!(one, Change::Put(Record::Host(_)))));
        assert!(decision.at_once.orders.is_empty());
        assert!(!leader.takes_more(), "it waits for its write");
        let orders = leader.release().orders;
        assert!(matches!(orders[0], (Connection(5), Order::Welcome(_))), "{orders:?}");
        assert!(leader.takes_more());
    }

    #[test]
    fn an_answer_without_a_change_waits_for_the_quorum() {
        let mut leader = leader();
        leader.ask(NOW, |fleet, _, _| fleet.hosts().len() as u32);
        let decision = leader.decide(NOW);
        assert_eq!(decision.gate, Gate::Barrier);
        assert!(decision.at_once.answers.is_empty());
        assert_eq!(leader.release().answers, [0]);
    }

    #[test]
    fn a_turn_that_says_nothing_waits_for_nothing() {
        let mut leader = leader();
        leader.tick(NOW);
        assert_eq!(leader.decide(NOW).gate, Gate::Open);
    }

    #[test]
    fn agents_are_awaited_at_the_beginning_and_not_later() {
        let record = crate::HostRecord::new("a".into(), crate::HostId(1), "r".into(), 1);
        let fleet = Fleet::new(Limits::default(), [Record::Host(record)], NOW);
        let mut leader: Leader<u32> = Leader::new(fleet, Connection(4));
        assert!(leader.fleet().awaits_agents(NOW, 10));
        assert!(!leader.fleet().awaits_agents(Moment(NOW.0 + 10), 10));
        let admitted = leader.connect(hello(), Moment(NOW.0 + 1)).unwrap();
        assert!(!leader.fleet().awaits_agents(Moment(NOW.0 + 1), 10));
        leader.disconnect(admitted.connection, Moment(NOW.0 + 2));
        assert!(!leader.fleet().awaits_agents(Moment(NOW.0 + 2), 10), "it went later");
    }

    #[test]
    fn a_later_stream_makes_the_one_before_void() {
        let mut leader = leader();
        leader.connect(hello(), NOW).unwrap();
        let again = leader.connect(hello(), NOW).unwrap();
        assert_eq!(again, Admission { connection: Connection(6), void: Some(Connection(5)) });
        leader.disconnect(Connection(5), NOW);
        assert_eq!(leader.fleet().connection_of(&"a".into()), Some(Connection(6)));
    }
}
