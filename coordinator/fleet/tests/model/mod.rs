//! A tiny world: agents, their QEMUs, streams that are cut, and a coordinator that dies.
//!
//! What a QEMU can do is reduced to what matters for ownership: the source runs (or can by itself)
//! until SHUT is forwarded to it; the target runs only after `cont`.

mod agent;
mod session;

use std::collections::{BTreeMap, VecDeque};

use agent::Agent;
use rackferry_fleet::{Connection, EvacuationId, Event, Limits, Order, RunState, Said, Standing};
use session::{Pipe, Wire};

use crate::common::{Desk, SECOND, request};

pub const HOSTS: [(&str, &str); 3] = [("a1", "a"), ("b1", "b"), ("b2", "b")];
pub const VMS: [&str; 2] = ["v1", "v2"];

/// What can happen, with two small numbers that choose where.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// One of the things that can go on does.
    GoOn,
    DeliverUpTwice,
    DeliverStale,
    GiveUp,
    /// A list; it may overtake words that wait in the agent.
    Report,
    /// A list by an agent that cannot reach its QEMUs.
    ReportDeaf,
    Tick,
    CutStream,
    Reconnect,
    KillAgent,
    StartAgent,
    CutPipe,
    KillQemu,
    RestartCoordinator,
    Evacuate,
    Cancel,
}

/// How the world's agents behave where the contract leaves it open.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// A restarted agent still names the migration of a VM that runs.
    pub remembers: bool,
    /// A dead VM is listed, rather than left out.
    pub lists_dead: bool,
}

pub struct World {
    pub desk: Desk,
    pub habits: Habits,
    pub agents: Vec<Agent>,
    /// Page connections by migration.
    pub pipes: BTreeMap<u64, Pipe>,
    /// What was under way on streams that were cut; it may still arrive.
    stale: VecDeque<(Connection, Said)>,
    /// VMs one of whose running copies was killed, and how many copies were killed at all.
    pub killed_running: Vec<&'static str>,
    pub kills: BTreeMap<&'static str, u32>,
    pub trace: Vec<String>,
}

impl World {
    pub fn new(habits: Habits) -> Self {
        let limits = Limits { outgoing_per_host: 2, ..Limits::default() };
        let mut world = Self {
            desk: Desk::with(limits),
            habits,
            agents: HOSTS.iter().map(|(host, rack)| Agent::new(host, rack)).collect(),
            pipes: BTreeMap::new(),
            stale: VecDeque::new(),
            killed_running: Vec::new(),
            kills: BTreeMap::new(),
            trace: Vec::new(),
        };
        for vm in VMS {
            world.agents[0].boot_vm(vm);
        }
        for host in 0..HOSTS.len() {
            world.reconnect(host);
        }
        world
    }

    pub fn step(&mut self, step: Step, a: usize, b: usize) {
        let host = a % HOSTS.len();
        self.trace.push(format!("{step:?} {host} {b}"));
        match step {
            Step::GoOn => self.go_on(a + HOSTS.len() * b),
            Step::DeliverUpTwice => self.deliver_up(host, true),
            Step::DeliverStale => {
                if let Some((connection, said)) = self.stale.pop_front() {
                    self.desk.say(connection, said);
                }
            }
            Step::GiveUp => self.give_up(host, b),
            Step::Report => self.report(host, false),
            Step::ReportDeaf => self.report(host, true),
            Step::Tick => self.desk.pass(SECOND * (b as u64 % 40)),
            Step::CutStream => self.cut_stream(host, b),
            Step::Reconnect => self.reconnect(host),
            Step::KillAgent => self.kill_agent(host),
            Step::StartAgent => self.start_agent(host),
            Step::CutPipe => self.cut_pipe(b),
            Step::KillQemu => self.kill_qemu(host, b),
            Step::RestartCoordinator => self.restart_coordinator(b),
            Step::Evacuate => self.evacuate(b),
            Step::Cancel => self.cancel(b),
        }
        self.collect_orders();
        self.check_one_owner();
    }

    /// Orders go onto the streams that are still open.
    fn collect_orders(&mut self) {
        for (connection, order) in self.desk.told() {
            let open = self.agents.iter_mut().find(|agent| agent.connection == Some(connection));
            if let Some(agent) = open {
                agent.down.push_back(order);
            }
        }
    }

    /// P1: at no instant do two copies of a VM run, or can by themselves.
    fn check_one_owner(&self) {
        for vm in VMS {
            let runs: Vec<&str> =
                self.agents.iter().filter(|agent| agent.runs(vm)).map(|agent| agent.host).collect();
            assert!(runs.len() <= 1, "{vm} runs on {runs:?}\n{}", self.trace.join("\n"));
        }
    }

    /// Does the n-th of what can be done now, so that few steps are spent on nothing.
    fn go_on(&mut self, n: usize) {
        let mut can: Vec<(u8, usize, usize)> = Vec::new();
        for (host, agent) in self.agents.iter().enumerate() {
            if !agent.up.is_empty() && agent.connection.is_some() {
                can.push((0, host, 0));
            }
            can.extend((0..agent.down.len().min(3)).map(|nth| (1, host, nth)));
            can.extend(
                (0..VMS.len()).filter(|&vm| agent.can_advance(VMS[vm])).map(|vm| (2, host, vm)),
            );
        }
        for (index, pipe) in self.pipes.values().enumerate() {
            if !pipe.down.is_empty() {
                can.push((3, 0, 2 * index));
            }
            if !pipe.up.is_empty() {
                can.push((3, 0, 2 * index + 1));
            }
        }
        let Some(&(what, host, b)) = can.get(n % can.len().max(1)) else { return };
        match what {
            0 => self.deliver_up(host, false),
            1 => self.deliver_down(host, b),
            2 => self.advance(host, b),
            _ => self.move_pipe(b),
        }
    }

    fn deliver_up(&mut self, host: usize, twice: bool) {
        let agent = &mut self.agents[host];
        let (Some(connection), Some(said)) = (agent.connection, agent.up.pop_front()) else {
            return;
        };
        if twice {
            self.desk.say(connection, said.clone());
        }
        self.desk.say(connection, said);
    }

    /// Orders are carried out in tasks of their own: any may be the first.
    fn deliver_down(&mut self, host: usize, nth: usize) {
        let down = &mut self.agents[host].down;
        if let Some(order) = down.remove(nth % down.len().max(1)) {
            self.trace.push(format!("  {} takes {order:?}", HOSTS[host].0));
            self.obey(host, order);
        }
    }

    pub fn say(&mut self, host: usize, said: Said) {
        let agent = &mut self.agents[host];
        if agent.alive {
            self.trace.push(format!("  {} says {said:?}", agent.host));
            agent.up.push_back(said);
        }
    }

    fn report(&mut self, host: usize, deaf: bool) {
        let agent = &mut self.agents[host];
        if agent.connection.is_none() {
            return;
        }
        let mut vms = agent.list(self.habits);
        for vm in vms.iter_mut().filter(|_| deaf) {
            vm.run_state = RunState::Unknown;
        }
        self.trace.push(format!("  {} reports {:?}", agent.host, states(&vms)));
        let report = Said::Report { memory_free_bytes: 1000 << 20, vms };
        let after = agent.up.iter().rposition(|said| matches!(said, Said::Report { .. }));
        agent.up.insert(after.map_or(0, |last| last + 1), report);
    }

    /// Some words are on their way and may still arrive, the others wait in the agent for the next stream.
    /// What it was told before it may carry out later.
    fn drop_stream(&mut self, host: usize, sent: usize) -> Option<Connection> {
        let agent = &mut self.agents[host];
        let connection = agent.connection.take()?;
        let sent = sent % (agent.up.len() + 1);
        self.stale.extend(agent.up.drain(..sent).map(|said| (connection, said)));
        agent.up.retain(|said| !matches!(said, Said::Report { .. }));
        Some(connection)
    }

    fn cut_stream(&mut self, host: usize, sent: usize) {
        if let Some(connection) = self.drop_stream(host, sent) {
            self.desk.handle(Event::Disconnected(connection));
        }
    }

    fn reconnect(&mut self, host: usize) {
        // The coordinator learns of a new stream before it learns that the old one is gone, at times.
        let agent = &self.agents[host];
        if !agent.alive {
            return;
        }
        let sent = agent.up.len() / 2;
        self.drop_stream(host, sent);
        let agent = &self.agents[host];
        let vms = agent.list(self.habits);
        let (name, rack, boot) = (agent.host, agent.rack, agent.boot.to_string());
        self.trace.push(format!("  {name} lists {:?}", states(&vms)));
        let connection = self.desk.connect(name, rack, &boot, vms);
        self.agents[host].connection = Some(connection);
        self.collect_orders();
        self.ask_again(host);
    }

    fn kill_agent(&mut self, host: usize) {
        self.cut_stream(host, usize::MAX);
        self.agents[host].up.clear();
        self.agents[host].down.clear();
        if !std::mem::replace(&mut self.agents[host].alive, false) {
            return;
        }
        let pipes: Vec<u64> = self.pipes.keys().copied().collect();
        for id in pipes {
            let pipe = &self.pipes[&id];
            if pipe.source == host || pipe.target == host {
                self.break_pipe(id);
            }
        }
        self.agents[host].die();
    }

    fn start_agent(&mut self, host: usize) {
        self.agents[host].start();
        if self.agents[host].connection.is_none() {
            self.reconnect(host);
        }
    }

    fn restart_coordinator(&mut self, sent: usize) {
        self.desk.restart();
        for host in 0..HOSTS.len() {
            self.drop_stream(host, sent);
        }
        self.stale.clear();
    }

    fn kill_qemu(&mut self, host: usize, b: usize) {
        let vm = VMS[b % VMS.len()];
        let Some(run_state) = self.agents[host].kill_qemu(vm) else { return };
        *self.kills.entry(vm).or_default() += 1;
        if run_state == RunState::Running {
            self.killed_running.push(vm);
        }
        self.qemu_died(host, vm);
    }

    fn evacuate(&mut self, b: usize) {
        let (source, target) = if b.is_multiple_of(2) { ("a", "b") } else { ("b", "a") };
        let mut out = Vec::new();
        let now = self.desk.now;
        let asked = self.desk.fleet.create_evacuation(&request(source, target), now, &mut out);
        self.trace.push(format!("  {asked:?}"));
        self.desk.take(out);
    }

    fn cancel(&mut self, b: usize) {
        let ids: Vec<EvacuationId> = self.desk.fleet.evacuations().map(|e| e.record.id).collect();
        if let Some(&id) = ids.get(b % ids.len().max(1)) {
            self.desk.cancel(id);
        }
    }

    fn cut_pipe(&mut self, b: usize) {
        let ids: Vec<u64> = self.pipes.keys().copied().collect();
        if let Some(&id) = ids.get(b % ids.len().max(1)) {
            self.break_pipe(id);
        }
    }

    fn move_pipe(&mut self, b: usize) {
        let ids: Vec<u64> = self.pipes.keys().copied().collect();
        let Some(&id) = ids.get((b / 2) % ids.len().max(1)) else { return };
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        let (to, wire) = if b.is_multiple_of(2) {
            (pipe.target, pipe.down.pop_front())
        } else {
            (pipe.source, pipe.up.pop_front())
        };
        if let Some(wire) = wire {
            self.trace.push(format!("  {} receives {wire:?} of {id}", HOSTS[to].0));
            self.receive(to, id, wire);
        }
    }

    /// Faults heal: everything is started, connected and delivered, again and again.
    pub fn heal(&mut self) {
        self.trace.push("HEAL".to_owned());
        for host in 0..HOSTS.len() {
            self.start_agent(host);
            self.reconnect(host);
        }
        for round in 0..60 {
            // What goes on for ever is shown once.
            if round == 10 {
                self.trace.push("...".to_owned());
            }
            let shown = self.trace.len();
            for host in 0..HOSTS.len() {
                for vm in 0..VMS.len() {
                    self.advance(host, vm);
                }
                self.report(host, false);
                while !self.agents[host].up.is_empty() {
                    self.deliver_up(host, false);
                    self.collect_orders();
                }
            }
            for host in 0..HOSTS.len() {
                while !self.agents[host].down.is_empty() {
                    self.deliver_down(host, 0);
                    self.check_one_owner();
                }
            }
            for step in 0..4 * self.pipes.len() {
                self.move_pipe(step);
                self.check_one_owner();
            }
            self.desk.pass(SECOND);
            self.collect_orders();
            if round >= 10 {
                self.trace.truncate(shown);
            }
        }
        self.check_settled();
    }

    /// Once faults heal: nothing is left over, everybody agrees, and who was not killed runs.
    fn check_settled(&self) {
        let trace = || self.trace.join("\n");
        let active = self.desk.fleet.migrations().filter(|view| view.record.is_active());
        let active: Vec<_> =
            active.map(|view| (view.record.clone(), view.phase, view.wait)).collect();
        assert!(active.is_empty(), "still active: {active:#?}\n{}", trace());
        for vm in VMS {
            let copies: Vec<(&str, RunState)> = self
                .agents
                .iter()
                .filter_map(|agent| Some((agent.host, agent.state(vm)?)))
                .collect();
            let copies: Vec<_> =
                copies.into_iter().filter(|(_, state)| *state != RunState::Dead).collect();
            let known = self.desk.fleet.vm(&vm.into());
            match copies[..] {
                [(host, RunState::Running)] => {
                    let known = known.expect("a VM that runs is known");
                    assert_eq!(known.owner.as_str(), host, "{vm}\n{}", trace());
                    assert_eq!(known.standing, Standing::Stable, "{vm}\n{}", trace());
                }
                [] => {
                    let kills = self.kills.get(vm).copied().unwrap_or(0);
                    let may = self.killed_running.contains(&vm) || kills > 1;
                    assert!(may, "{vm} is lost\n{}", trace());
                }
                _ => panic!("{vm}: left over {copies:?}\n{}", trace()),
            }
        }
    }
}

fn states(vms: &[rackferry_fleet::VmReport]) -> Vec<(String, RunState, Option<u64>)> {
    vms.iter().map(|vm| (vm.name.to_string(), vm.run_state, vm.migration.map(|id| id.0))).collect()
}

pub type Down = VecDeque<Order>;
pub type Wires = VecDeque<Wire>;
