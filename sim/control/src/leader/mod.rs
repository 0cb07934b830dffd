//! A node that leads: the production [`Turns`] over the log of the world. What is modelled is when inputs come, how many
//! of them share a turn, and how long the log takes.

mod out;

use std::collections::{BTreeMap, VecDeque};

use rackferry_fleet::{Connection, Decision, Fleet, Hello, Leader as Turns, Moment, Outputs, Said};

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
    /// Its turns over the fleet, once it is known what is committed.
    pub turns: Option<Box<Turns<(CallId, Reply)>>>,
    /// What it granted and showed.
    pub limits: LimitsKept,
    /// What it showed.
    pub shown: ProgressForward,
    inbox: VecDeque<Input>,
    links: BTreeMap<Connection, ConnId>,
    /// What the turn that was decided waits for.
    until: Option<out::Until>,
    decisions: u64,
    turn_due: bool,
}

impl Leader {
    /// The leadership of a term; it has no fleet yet.
    pub fn new(term: u64, followers: Followers) -> Self {
        Self {
            term,
            followers,
            round: 0,
            turns: None,
            limits: LimitsKept::default(),
            shown: ProgressForward::default(),
            inbox: VecDeque::new(),
            links: BTreeMap::new(),
            until: None,
            decisions: 0,
            turn_due: false,
        }
    }

    /// The fleet, once there is one.
    pub fn fleet(&self) -> Option<&Fleet> {
        self.turns.as_ref().map(|turns| turns.fleet())
    }

    fn connection_of(&self, conn: ConnId) -> Option<Connection> {
        self.links.iter().find(|(_, link)| **link == conn).map(|(connection, _)| *connection)
    }

    /// Nothing waits to be decided or to leave.
    pub fn is_idle(&self) -> bool {
        self.inbox.is_empty() && self.until.is_none()
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
        let ready = leader.turns.is_some() && leader.until.is_none() && !leader.inbox.is_empty();
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
        if leader.turns.is_none() || leader.until.is_some() {
            return;
        }
        let count = leader.inbox.len().min(most);
        let inputs: Vec<Input> = leader.inbox.drain(..count).collect();
        let mut watched = 0;
        let ticked = inputs.iter().any(|input| matches!(input, Input::Tick));
        for input in inputs {
            self.take(node, input);
            self.watch_decisions(node, &Outputs::default(), &mut watched);
        }
        let now = Moment(self.clock.now);
        let Some(turns) = self.turns_mut(node) else { return };
        let Decision { gate, at_once } = turns.decide(now);
        let published = turns.outputs().publish || at_once.publish;
        self.watch_decisions(node, &at_once, &mut watched);
        for notice in &at_once.notices {
            self.trace.say(self.clock.now, || format!("c{node} notes: {}", notice.text));
        }
        if published {
            self.watch_shown(node);
        }
        // Every tick looks for time-outs.
        if ticked {
            self.watch_queue(node);
        }
        self.wait_for(node, knew, gate);
        self.let_out(node, knew, at_once);
        self.leader_goes_on(node);
    }

    /// Looks at orders as they are decided.
    fn watch_decisions(
        &mut self,
        node: usize,
        at_once: &Outputs<(CallId, Reply)>,
        watched: &mut usize,
    ) {
        let Some(turns) = self.turns_mut(node) else { return };
        let orders = at_once.orders.iter().chain(&turns.outputs().orders);
        let news: Vec<_> = orders.skip(*watched).map(|(_, order)| order.clone()).collect();
        *watched += news.len();
        for order in &news {
            self.watch_decision(node, order);
        }
    }

    fn turns_mut(&mut self, node: usize) -> Option<&mut Turns<(CallId, Reply)>> {
        self.nodes[node].leader_mut()?.turns.as_deref_mut()
    }

    fn take(&mut self, node: usize, input: Input) -> Option<()> {
        let now = Moment(self.clock.now);
        let leader = self.nodes[node].leader_mut()?;
        let turns = leader.turns.as_mut()?;
        match input {
            Input::Connected(id, hello) => {
                self.trace
                    .say(now.0, || format!("c{node} hears {}: {}", hello.host, list(&hello.vms)));
                let Ok(admission) = turns.connect(*hello, now) else {
                    self.close(id, 1);
                    return None;
                };
                let void = admission.void.and_then(|void| leader.links.remove(&void));
                leader.links.insert(admission.connection, id);
                self.send(id, 1, Frame::Taken);
                if let Some(void) = void {
                    self.close(void, 1);
                }
            }
            Input::Disconnected(id) => {
                let connection = leader.connection_of(id)?;
                leader.links.remove(&connection);
                leader.turns.as_mut()?.disconnect(connection, now);
            }
            Input::Said(id, said) => {
                let connection = leader.connection_of(id)?;
                leader.turns.as_mut()?.hear(connection, *said, now);
            }
            Input::Tick => turns.tick(now),
            Input::Call(call) => {
                let operator = &self.operator;
                turns.ask(now, |fleet, now, out| (call, operator.ask(call, fleet, now, out)));
                let reply = turns.outputs().answers.last();
                self.trace.say(now.0, || format!("c{node} decides call {reply:?}"));
            }
        }
        Some(())
    }

    /// Whatever may start has started when a turn ends.
    fn watch_queue(&mut self, node: usize) {
        let overlooked = self.turns_mut(node).map(|turns| turns.fleet_mut().overlooked());
        if let Some(&id) = overlooked.unwrap_or_default().first() {
            let fleet = self.nodes[node].leader().and_then(|leader| leader.fleet());
            let wait = fleet.and_then(|fleet| fleet.migration(id)).and_then(|view| view.wait);
            let why = format!("{id} may start, and waits for {wait:?}");
            self.violated("starts what may start", why);
        }
    }

    /// The first commit of a term says what is committed: the fleet is made of that.
    fn open_fleet(&mut self, node: usize) {
        let state = &self.nodes[node];
        let Some(leader) = state.leader().filter(|leader| leader.turns.is_none()) else { return };
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
            leader.turns = Some(Box::new(Turns::new(fleet, Connection(0))));
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
