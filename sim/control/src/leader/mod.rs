//! What stands around the fleet on the node that leads: inputs in turn, one write for a batch of them, and nothing
//! leaves before the write is committed. An order that bears on ownership and came without a write waits until a
//! majority has confirmed that this node still leads.

mod out;

use std::collections::{BTreeMap, VecDeque};

use rackferry_fleet::{Connection, Effect, Event, Fleet, Hello, HostName, Moment, Said};

use crate::clock::{MICROSECOND, SECOND};
use crate::invariants::{LimitsKept, ProgressForward};
use crate::net::{ConnId, Frame, Purpose};
use crate::operator::{CallId, Reply};
use crate::raft::Followers;
use crate::world::{Happening, World};

/// Something for the fleet.
pub enum Input {
    /// An agent introduces itself.
    Connected(ConnId, Box<Hello>),
    /// Its stream is gone.
    Disconnected(ConnId),
    /// It says something.
    Said(ConnId, Box<Said>),
    /// A client asks.
    Call(CallId),
    /// Time passes.
    Tick,
}

/// A node's leadership.
pub struct Leader {
    /// Of this term.
    pub term: u64,
    /// What it knows of the others.
    pub followers: Followers,
    /// The latest round of the question whether it still leads.
    pub round: u64,
    /// The fleet, once it is known what is committed.
    pub fleet: Option<Box<Fleet>>,
    /// What it granted and showed.
    pub limits: LimitsKept,
    /// What it showed.
    pub shown: ProgressForward,
    inbox: VecDeque<Input>,
    links: BTreeMap<Connection, ConnId>,
    batch: Option<out::Batch>,
    batches: u64,
    turn_due: bool,
    last_connection: u64,
}

impl Leader {
    /// The leadership of a term; it has no fleet yet.
    pub fn new(term: u64, followers: Followers) -> Self {
        Self {
            term,
            followers,
            round: 0,
            fleet: None,
            limits: LimitsKept::default(),
            shown: ProgressForward::default(),
            inbox: VecDeque::new(),
            links: BTreeMap::new(),
            batch: None,
            batches: 0,
            turn_due: false,
            last_connection: 0,
        }
    }

    fn connection_of(&self, conn: ConnId) -> Option<Connection> {
        self.links.iter().find(|(_, link)| **link == conn).map(|(connection, _)| *connection)
    }

    /// Nothing waits to be decided or to leave.
    pub fn is_idle(&self) -> bool {
        self.inbox.is_empty() && self.batch.is_none()
    }
}

impl World {
    /// A frame of an agent has arrived at a coordinator.
    pub fn coordinator_hears(&mut self, node: usize, id: ConnId, frame: Frame) {
        let follows = self.nodes[node].follows.filter(|&other| other != node);
        if self.nodes[node].leader().is_none() {
            self.send(id, 1, Frame::NotLeader(follows));
            return self.close(id, 1);
        }
        match frame {
            Frame::Hello(hello) => self.input(node, Input::Connected(id, hello)),
            Frame::Said(said) => self.input(node, Input::Said(id, said)),
            _ => {}
        }
    }

    /// Something for the fleet of a leader.
    pub fn input(&mut self, node: usize, input: Input) {
        let Some(leader) = self.nodes[node].leader_mut() else { return };
        leader.inbox.push_back(input);
        self.plan_turn(node);
    }

    fn plan_turn(&mut self, node: usize) {
        let Some(leader) = self.nodes[node].leader_mut() else { return };
        let ready = leader.fleet.is_some() && leader.batch.is_none() && !leader.inbox.is_empty();
        if ready && !std::mem::replace(&mut leader.turn_due, true) {
            let term = leader.term;
            let pause = self.dice.between(5, 400) * MICROSECOND;
            self.clock.after(pause, Happening::Turn(node, term));
        }
    }

    /// A second has passed for a leader.
    pub fn tick(&mut self, node: usize, term: u64) {
        if self.nodes[node].leader().is_some_and(|leader| leader.term == term) {
            self.input(node, Input::Tick);
            self.clock.after(SECOND, Happening::Tick(node, term));
        }
    }

    /// A leader takes a batch of inputs.
    pub fn turn(&mut self, node: usize, term: u64) {
        let most = self.dice.between(1, 8) as usize;
        let knew = (self.truth.terms.len(), self.nodes[node].commit);
        let Some(leader) = self.nodes[node].leader_mut().filter(|leader| leader.term == term)
        else {
            return;
        };
        leader.turn_due = false;
        if leader.fleet.is_none() || leader.batch.is_some() {
            return;
        }
        let count = leader.inbox.len().min(most);
        let inputs: Vec<Input> = leader.inbox.drain(..count).collect();
        let (mut changes, mut sends, mut answers) = (Vec::new(), Vec::new(), Vec::new());
        let mut published = false;
        for input in inputs {
            let mut effects = Vec::new();
            answers.extend(self.take(node, input, &mut effects));
            let told = sends.len();
            for effect in effects {
                match effect {
                    Effect::Persist(more) => changes.extend(more),
                    Effect::Send(connection, order) => sends.push((connection, order)),
                    Effect::Publish => published = true,
                    Effect::Log(notice) => {
                        self.trace
                            .say(self.clock.now, || format!("c{node} notes: {}", notice.text));
                    }
                }
            }
            for (_, order) in &sends[told..] {
                self.watch_decision(node, order);
            }
        }
        if published {
            self.watch_shown(node);
        }
        self.dispatch_batch(node, knew, changes, sends, answers);
    }

    fn take(
        &mut self,
        node: usize,
        input: Input,
        out: &mut Vec<Effect>,
    ) -> Option<(CallId, Reply)> {
        let now = Moment(self.clock.now);
        if let Input::Connected(id, _) = &input {
            self.send(*id, 1, Frame::Taken);
        }
        if let Input::Connected(_, hello) = &input {
            self.close_void(node, &hello.host);
        }
        let leader = self.nodes[node].leader_mut()?;
        let event = match input {
            Input::Connected(id, hello) => {
                leader.last_connection += 1;
                let connection = Connection(leader.last_connection);
                leader.links.insert(connection, id);
                self.trace
                    .say(now.0, || format!("c{node} hears {}: {}", hello.host, list(&hello.vms)));
                Event::Connected(connection, *hello)
            }
            Input::Disconnected(id) => {
                let connection = leader.connection_of(id)?;
                leader.links.remove(&connection);
                Event::Disconnected(connection)
            }
            Input::Said(id, said) => Event::Said(leader.connection_of(id)?, *said),
            Input::Tick => Event::Tick,
            Input::Call(call) => {
                let fleet = leader.fleet.as_mut()?;
                let reply = self.operator.ask(call, fleet, now, out);
                self.trace.say(now.0, || format!("c{node} decides call {call}: {reply:?}"));
                return Some((call, reply));
            }
        };
        leader.fleet.as_mut()?.handle(event, now, out);
        None
    }

    /// The first commit of a term says what is committed: the fleet is made of that.
    fn open_fleet(&mut self, node: usize) {
        let state = &self.nodes[node];
        let Some(leader) = state.leader().filter(|leader| leader.fleet.is_none()) else { return };
        let last = state.commit.checked_sub(1).and_then(|last| state.log.get(last));
        if last.is_none_or(|entry| entry.term != leader.term) {
            return;
        }
        let records = self.records_of(node).into_values();
        #[cfg_attr(
            not(feature = "planted-bugs"),
            expect(unused_mut, reason = "only bugs are put in")
        )]
        let mut fleet = Fleet::new(self.plan.limits, records, Moment(self.clock.now));
        #[cfg(feature = "planted-bugs")]
        if let Some(crate::Bug::InFleet(bug)) = self.bug {
            fleet.plant(bug);
        }
        if let Some(leader) = self.nodes[node].leader_mut() {
            leader.fleet = Some(Box::new(fleet));
        }
    }

    /// Only a host's latest stream counts: an agent that still holds an older one must dial again.
    fn close_void(&mut self, node: usize, host: &HostName) {
        let Some(leader) = self.nodes[node].leader_mut() else { return };
        let fleet = leader.fleet.as_ref();
        let known = fleet.and_then(|fleet| fleet.hosts().into_iter().find(|h| h.name == *host));
        let void = known.and_then(|known| known.connection);
        if let Some(id) = void.and_then(|void| leader.links.remove(&void)) {
            self.close(id, 1);
        }
    }

    /// A coordinator's end of a stream is over.
    pub fn coordinator_loses(&mut self, node: usize, id: ConnId) {
        self.input(node, Input::Disconnected(id));
    }

    /// A node that leads no more lets its agents go.
    pub fn close_streams(&mut self, node: usize) {
        let mine = self.net.conns.iter().filter(|(_, conn)| {
            conn.purpose == Purpose::Stream && conn.ends[1] == node && conn.open[1]
        });
        let mine: Vec<ConnId> = mine.map(|(&id, _)| id).collect();
        for id in mine {
            self.close(id, 1);
        }
    }
}

/// A host's list for people.
pub fn list(vms: &[rackferry_fleet::VmReport]) -> String {
    let each = vms.iter().map(|vm| match vm.migration {
        Some(id) => format!("{} {:?} ({id})", vm.name, vm.run_state),
        None => format!("{} {:?}", vm.name, vm.run_state),
    });
    each.collect::<Vec<_>>().join(", ")
}
