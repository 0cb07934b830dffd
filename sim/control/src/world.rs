//! The world: everything there is, and what happens next.

use crate::Bug;
use crate::clock::{Clock, MS, SECOND};
use crate::coverage::Coverage;
use crate::dice::Dice;
use crate::faults::Kind;
use crate::host::{Chore, Host, qemu::Step};
use crate::invariants::{Violation, Watch};
use crate::net::{ConnId, Frame, Net, Place};
use crate::operator::{CallId, Operator, Reply};
use crate::plan::Plan;
use crate::raft::{Message, Node};
use crate::trace::Trace;
use crate::truth::Truth;

/// When a world begins: after the epoch, so that no moment looks like none.
pub const START: u64 = 1_000 * SECOND;

/// Something that happens at its moment.
#[derive(Debug)]
pub enum Happening {
    /// The first frame of a line arrives at this end.
    Deliver(ConnId, usize),
    /// An end gives up on a link with this cut.
    Silent(ConnId, usize, u64),
    /// A link's cut heals.
    LinkHeals((Place, Place), u64),
    /// A link is as quick as before.
    LinkQuick((Place, Place)),
    /// A message between coordinators: to, from.
    Raft(usize, usize, Message),
    /// A node looks whether it has heard of a leader.
    ElectionTimer(usize, u64),
    /// A leader of this term lets itself be heard.
    Beat(usize, u64),
    /// A second has passed for it.
    Tick(usize, u64),
    /// It takes inputs.
    Turn(usize, u64),
    /// Its batch waits for too long.
    Overdue(usize, u64, u64),
    /// A write has reached a node's disk.
    Stored {
        /// The node.
        node: usize,
        /// Its start.
        life: u64,
        /// Entries then on disk.
        count: usize,
        /// Term of the last of them.
        term: u64,
        /// The leader that is told, if it is another node, and its term.
        leader: Option<(usize, u64)>,
    },
    /// A node starts.
    StartNode(usize),
    /// A node's disk is as it should be.
    DiskHeals(usize),
    /// An agent starts.
    StartAgent(usize),
    /// A host's state directory can be written again.
    HostDiskHeals(usize),
    /// An agent of this start does something.
    Chore(usize, u64, Box<Chore>),
    /// A QEMU does something.
    Qemu {
        /// Its host.
        host: usize,
        /// Its VM.
        vm: usize,
        /// Of all copies.
        serial: u64,
        /// What.
        step: Step,
    },
    /// The operator does something.
    Act,
    /// A call is made, perhaps again.
    TryCall(CallId),
    /// It arrives at a node.
    CallArrives(usize, CallId),
    /// Its answer arrives.
    Answered(CallId, Reply),
    /// Something breaks.
    Fault,
    /// This breaks, near a host and a VM.
    Strike(Kind, usize, usize),
}

/// A world.
pub struct World {
    /// What it is like.
    pub plan: Plan,
    /// What was planted in it.
    pub bug: Option<Bug>,
    /// Chance.
    pub dice: Dice,
    /// Time.
    pub clock: Clock<Happening>,
    /// Connections.
    pub net: Net,
    /// Coordinators.
    pub nodes: Vec<Node>,
    /// Hosts.
    pub hosts: Vec<Host>,
    /// What is committed.
    pub truth: Truth,
    /// It has changed in this event.
    pub truth_changed: bool,
    /// The operator.
    pub operator: Operator,
    /// What was reached.
    pub coverage: Coverage,
    /// What happened.
    pub trace: Trace,
    /// What invariants remember.
    pub watch: Watch,
    /// The first that did not hold.
    pub violation: Option<Violation>,
    /// Until when faults seek each VM.
    pub sought_until: Vec<u64>,
    /// Nothing breaks any more.
    pub healing: bool,
    /// Copies of VMs made so far.
    pub copy_count: u64,
}

impl World {
    /// The world of a seed.
    pub fn new(seed: u64, bug: Option<Bug>, traced: bool) -> Self {
        let mut dice = Dice::new(seed);
        let plan = Plan::new(&mut dice);
        let names = |rack: &'static str| {
            (1..=plan.hosts_per_rack).map(move |n| (format!("{rack}{n}"), rack))
        };
        let hosts = names("a").chain(names("b"));
        let hosts = hosts.map(|(name, rack)| Host::new(&name, rack, plan.vms)).collect();
        let mut world = Self {
            bug,
            dice,
            clock: Clock::new(START),
            net: Net::default(),
            nodes: (0..plan.nodes).map(|_| Node::default()).collect(),
            hosts,
            truth: Truth::default(),
            truth_changed: false,
            operator: Operator::default(),
            coverage: Coverage::default(),
            trace: Trace::new(traced),
            watch: Watch::new(plan.vms),
            violation: None,
            sought_until: vec![0; plan.vms],
            healing: false,
            copy_count: 0,
            plan,
        };
        world.trace.say(START, || format!("{:?}", world.plan));
        world.begin();
        world
    }

    fn begin(&mut self) {
        self.boot_vms();
        for node in 0..self.nodes.len() {
            let pause = self.dice.between(1, 300) * MS;
            self.clock.after(pause, Happening::ElectionTimer(node, 1));
        }
        for host in 0..self.hosts.len() {
            let pause = self.dice.between(1, 800) * MS;
            self.start_agent_later(host, pause);
        }
        let pause = self.dice.between(1, 4) * SECOND;
        self.clock.after(pause, Happening::Act);
        if self.plan.fault_every_ns > 0 && !self.plan.kinds.is_empty() {
            self.clock.after(self.plan.fault_every_ns, Happening::Fault);
        }
    }

    /// Lets happen what happens until a moment, or until an invariant does not hold.
    pub fn run_until(&mut self, limit: u64) {
        while self.violation.is_none()
            && let Some(happening) = self.clock.next(limit)
        {
            self.coverage.events += 1;
            self.happen(happening);
            self.check();
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Deliver(id, to) => self.deliver(id, to),
            Happening::Silent(id, end, cut) => self.give_up(id, end, cut),
            Happening::LinkHeals(link, cut) => self.heal_link(link, cut),
            Happening::LinkQuick(link) => {
                self.net.slow.remove(&link);
            }
            Happening::Raft(to, from, message) => self.raft(to, from, message),
            Happening::ElectionTimer(node, life) => self.election_timer(node, life),
            Happening::Beat(node, term) => self.beat(node, term),
            Happening::Tick(node, term) => self.tick(node, term),
            Happening::Turn(node, term) => self.turn(node, term),
            Happening::Overdue(node, term, batches) => self.overdue(node, term, batches),
            Happening::Stored { node, life, count, term, leader } => {
                self.stored(node, life, count, term, leader);
            }
            Happening::StartNode(node) => self.start_node(node),
            Happening::DiskHeals(node) => self.heal_disk(node),
            Happening::StartAgent(host) => self.start_agent(host),
            Happening::HostDiskHeals(host) => self.hosts[host].full = false,
            Happening::Chore(host, life, chore) => self.chore(host, life, *chore),
            Happening::Qemu { host, vm, serial, step } => self.qemu_steps(host, vm, serial, step),
            Happening::Act => self.act(),
            Happening::TryCall(call) => self.try_call(call),
            Happening::CallArrives(node, call) => self.call_arrives(node, call),
            Happening::Answered(call, reply) => self.answered(call, reply),
            Happening::Fault => self.fault(),
            Happening::Strike(kind, host, vm) => self.strike(kind, Some((host, vm))),
        }
    }

    /// A frame reaches an end of a connection.
    pub fn arrived(&mut self, id: ConnId, end: usize, frame: Frame) {
        let Some(conn) = self.net.conns.get(&id) else { return };
        let (place, purpose) = (conn.ends[end], conn.purpose);
        match (place.checked_sub(self.nodes.len()), purpose) {
            (None, _) => self.coordinator_hears(place, id, frame),
            (Some(host), crate::net::Purpose::Stream) => self.agent_hears(host, id, frame),
            (Some(host), crate::net::Purpose::Pipe(migration)) => {
                self.pipe_hears(host, end, migration, id, frame);
            }
        }
    }

    /// A stream between agent and coordinator is over for the process at a place.
    pub fn stream_ended(&mut self, id: ConnId, place: Place) {
        match place.checked_sub(self.nodes.len()) {
            None => self.coordinator_loses(place, id),
            Some(host) => self.agent_loses(host, id),
        }
    }
}
