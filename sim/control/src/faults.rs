//! What breaks.

use rackferry_agent_core::Side;
use rackferry_fleet::Key;

use crate::clock::{MS, SECOND};
use crate::coverage::PHASES;
use crate::host::qemu::{Copy, Qemu};
use crate::net::{ConnId, Purpose, pair};
use crate::world::{Happening, World};

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An agent is killed, and started again.
    KillAgent,
    /// A coordinator is killed, and started again.
    KillNode,
    /// The leader is.
    KillLeader,
    /// All coordinators are, at once.
    KillAllNodes,
    /// A stream between agent and coordinator is cut; part of what travels on it is lost.
    CutStream,
    /// A connection between agents is.
    CutPipe,
    /// Two places cannot reach each other.
    CutLink,
    /// A place can reach no other.
    Isolate,
    /// The leader and one host can reach each other, and no other coordinator.
    IsolateLeader,
    /// Messages between two places take long.
    SlowLink,
    /// A coordinator's disk takes long.
    SlowDisk,
    /// A coordinator's disk is full.
    FullDisk,
    /// A host's state directory is.
    FullHostDisk,
    /// QEMUs of a host do not answer the next agent for a while.
    DeafQemu,
    /// A QEMU is killed, or its guest powers itself off.
    KillQemu,
    /// A host loses its power, and comes back with what is on its disk.
    KillHost,
    /// A host is lost with its disk, and its name comes back on a new one.
    LoseHost,
    /// A clone of a host dials in.
    CloneHost,
    /// An agent is killed, and at the other end of one of its sessions the QEMU.
    BothEnds,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::KillAgent,
        Self::KillNode,
        Self::KillLeader,
        Self::KillAllNodes,
        Self::CutStream,
        Self::CutPipe,
        Self::CutLink,
        Self::Isolate,
        Self::IsolateLeader,
        Self::SlowLink,
        Self::SlowDisk,
        Self::FullDisk,
        Self::FullHostDisk,
        Self::DeafQemu,
        Self::KillQemu,
        Self::KillHost,
        Self::LoseHost,
        Self::CloneHost,
        Self::BothEnds,
    ];

    /// VMs may be lost by it.
    pub fn kills(self) -> bool {
        matches!(self, Self::KillQemu | Self::KillHost | Self::LoseHost | Self::BothEnds)
    }

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::KillAgent => "agent killed",
            Self::KillNode => "coordinator killed",
            Self::KillLeader => "leader killed",
            Self::KillAllNodes => "all coordinators killed",
            Self::CutStream => "stream cut",
            Self::CutPipe => "page connection cut",
            Self::CutLink => "link cut",
            Self::Isolate => "place isolated",
            Self::IsolateLeader => "leader isolated",
            Self::SlowLink => "link slow",
            Self::SlowDisk => "disk slow",
            Self::FullDisk => "disk full",
            Self::FullHostDisk => "host's disk full",
            Self::DeafQemu => "QEMU does not answer",
            Self::KillQemu => "QEMU killed",
            Self::KillHost => "host without power",
            Self::LoseHost => "host lost with its disk",
            Self::CloneHost => "clone of a host",
            Self::BothEnds => "agent here, QEMU there killed",
        }
    }
}

/// QEMUs that may be killed in one world: some VMs are to be left.
const KILLS: u32 = 3;

/// In so many of a thousand steps that concern a VM that is sought something breaks.
const SOUGHT_AT_STEP: u64 = 700;
/// How long it is sought.
const SOUGHT_FOR: u64 = 6 * SECOND;

impl World {
    /// Something breaks, and something else will.
    pub fn fault(&mut self) {
        if self.healing {
            return;
        }
        let pause = self.dice.between(10 * MS, 2 * self.plan.fault_every_ns);
        self.clock.after(pause, Happening::Fault);
        if let Some(kind) = self.dice.pick(&self.plan.kinds) {
            self.strike(kind, None);
        }
    }

    /// A session has made a step: sometimes something breaks just then, or a moment later.
    pub fn step_of_session(&mut self, host: usize, vm: usize, phase: &'static str) {
        *self.coverage.phases.entry(phase).or_default() += 1;
        if matches!(phase, "stopping" | "handed over") {
            self.seek(vm);
        }
        let sought = self.clock.now < self.sought_until[vm];
        let often = if sought { SOUGHT_AT_STEP } else { self.plan.fault_at_step };
        if self.healing || !self.dice.chance(often) {
            return;
        }
        self.strike_soon(host, vm);
        // One failure is often not alone, and what they take together is what nothing else can tell.
        if self.dice.chance(self.plan.both_ends)
            && let Some(other) = self.other_end(host)
        {
            self.strike_soon(other, vm);
        }
    }

    /// A VM stands still, and which copy goes on is being decided. In some worlds faults seek it for a while: where they
    /// are as rare as elsewhere, the two or three in a row that it takes to get this wrong would hardly ever meet.
    pub fn seek(&mut self, vm: usize) {
        if self.plan.seeks {
            self.sought_until[vm] = self.clock.now + SOUGHT_FOR;
        }
    }

    fn strike_soon(&mut self, host: usize, vm: usize) {
        let Some(kind) = self.dice.pick(&self.plan.kinds) else { return };
        let soon = if self.dice.chance(500) { 0 } else { 150 * MS };
        let pause = self.dice.between(0, soon);
        self.clock.after(pause, Happening::Strike(kind, host, vm));
    }

    /// A host with which this one has a session.
    fn other_end(&mut self, host: usize) -> Option<usize> {
        let place = self.place_of(host);
        let pipes = self.net.conns.values().filter(|conn| conn.purpose != Purpose::Stream);
        let pipes = pipes.filter(|conn| conn.ends.contains(&place));
        let others = pipes.flat_map(|conn| conn.ends).filter(|&end| end != place);
        let others: Vec<usize> =
            others.filter_map(|end| end.checked_sub(self.nodes.len())).collect();
        self.dice.pick(&others)
    }

    fn furthest_phase(&self) -> &'static str {
        let agents = self.hosts.iter().filter_map(|host| host.agent.as_ref());
        let sources = agents.flat_map(|agent| agent.sources.values());
        let names = sources.map(|session| session.phase_name());
        let rank = |name: &str| PHASES.iter().position(|phase| *phase == name);
        names.filter(|name| rank(name).is_some()).max_by_key(|name| rank(name)).unwrap_or("none")
    }

    fn while_broken(&mut self) -> u64 {
        let longest = if self.dice.chance(600) { 3 * SECOND } else { 25 * SECOND };
        self.dice.between(30 * MS, longest)
    }

    /// Breaks something, near a host and a VM if they are given.
    pub fn strike(&mut self, kind: Kind, near: Option<(usize, usize)>) {
        if self.healing {
            return;
        }
        let phase = self.furthest_phase();
        *self.coverage.faults.entry((kind, phase)).or_default() += 1;
        let any = self.dice.index(self.hosts.len());
        let some_vm = self.dice.index(self.plan.vms);
        let near = near.filter(|_| self.dice.chance(700));
        let (host, vm) = near.unwrap_or((any, some_vm));
        let some_node = self.dice.index(self.nodes.len());
        let leading = (0..self.nodes.len()).find(|&node| self.nodes[node].leader().is_some());
        let leader = leading.unwrap_or(some_node);
        self.trace.say(self.clock.now, || {
            format!(
                "FAULT {} ({} / c{some_node}, c{leader} leads)",
                kind.name(),
                self.hosts[host].name
            )
        });
        let pause = self.while_broken();
        match kind {
            Kind::KillAgent => {
                self.kill_agent(host);
                self.start_agent_later(host, pause);
            }
            Kind::KillNode => self.restart_node(some_node, pause),
            Kind::KillLeader => self.restart_node(leader, pause),
            Kind::KillAllNodes => {
                for node in 0..self.nodes.len() {
                    let pause = self.dice.between(50 * MS, 4 * SECOND);
                    self.restart_node(node, pause);
                }
            }
            Kind::CutStream | Kind::CutPipe => self.cut_some(kind == Kind::CutStream, host),
            Kind::CutLink | Kind::SlowLink => self.trouble_link(kind, host, pause),
            Kind::Isolate => {
                let place = if self.dice.chance(500) { self.place_of(host) } else { some_node };
                self.isolate(&[place], pause);
            }
            Kind::IsolateLeader => self.isolate(&[leader, self.place_of(host)], pause),
            Kind::SlowDisk => {
                self.nodes[some_node].disk_ns = self.dice.between(50, 2500) * MS;
                self.clock.after(pause, Happening::DiskHeals(some_node));
            }
            Kind::FullDisk => {
                self.nodes[some_node].full = true;
                self.clock.after(pause, Happening::DiskHeals(some_node));
            }
            Kind::FullHostDisk => {
                self.hosts[host].full = true;
                self.clock.after(pause, Happening::HostDiskHeals(host));
            }
            Kind::DeafQemu => {
                let until = self.clock.now + pause;
                for copy in self.hosts[host].copies.iter_mut().flatten() {
                    copy.deaf_until = until;
                }
                self.kill_agent(host);
                let start = self.dice.between(10, 900) * MS;
                self.start_agent_later(host, start);
            }
            Kind::KillQemu => self.kill_qemu(host, vm),
            Kind::KillHost => self.kill_host(host, pause),
            Kind::LoseHost => self.lose_host(host, pause),
            Kind::CloneHost => self.clone_dials(host),
            Kind::BothEnds => self.kill_both_ends(host, vm, pause),
        }
    }

    /// Cuts some places off from all others.
    fn isolate(&mut self, some: &[usize], pause: u64) {
        for other in 0..self.nodes.len() + self.hosts.len() {
            for &place in some.iter().filter(|_| !some.contains(&other)) {
                self.cut_link(place, other, pause);
            }
        }
    }

    fn restart_node(&mut self, node: usize, pause: u64) {
        self.kill_node(node);
        self.clock.after(pause, Happening::StartNode(node));
    }

    /// A node's disk has room and is quick again.
    pub fn heal_disk(&mut self, node: usize) {
        self.nodes[node].full = false;
        self.nodes[node].disk_ns = 4 * MS;
    }

    fn cut_some(&mut self, streams: bool, host: usize) {
        let place = self.place_of(host);
        let of = |conn: &crate::net::Conn| (conn.purpose == Purpose::Stream) == streams;
        let all = self.net.conns.iter().filter(|(_, conn)| of(conn));
        let near: Vec<ConnId> =
            all.clone().filter(|(_, c)| c.ends.contains(&place)).map(|(&id, _)| id).collect();
        let all: Vec<ConnId> = all.map(|(&id, _)| id).collect();
        let id = self.dice.pick(&near).or_else(|| self.dice.pick(&all));
        if let Some(id) = id {
            self.cut_conn(id);
        }
    }

    fn trouble_link(&mut self, kind: Kind, host: usize, pause: u64) {
        let a = self.place_of(host);
        let places = self.nodes.len() + self.hosts.len();
        let b = (a + 1 + self.dice.index(places - 1)) % places;
        if kind == Kind::CutLink {
            self.cut_link(a, b, pause);
        } else {
            let slow = self.dice.between(100, 3000) * MS;
            self.net.slow.insert(pair(a, b), slow);
            self.clock.after(pause, Happening::LinkQuick(pair(a, b)));
        }
    }

    fn kill_qemu(&mut self, host: usize, vm: usize) {
        let there = self.hosts.iter().position(|h| h.copies[vm].is_some());
        let has = self.hosts[host].copies[vm].is_some();
        let Some(host) = (if has { Some(host) } else { there }) else { return };
        let Some(copy) = &self.hosts[host].copies[vm] else { return };
        if copy.qemu == Qemu::Dead || self.watch.kills >= KILLS {
            return;
        }
        let qemu = copy.qemu;
        // Half of the guests that run do it themselves: QEMU ends the same way.
        let powers_off = qemu.runs() && copy.serial.is_multiple_of(2);
        self.watch.killed(vm, qemu);
        if self.dice.chance(500) && self.destroy(host, vm) {
            return;
        }
        if let Some(copy) = &mut self.hosts[host].copies[vm] {
            copy.powered_off = powers_off;
        }
        self.qemu_dies(host, vm);
    }

    fn kill_both_ends(&mut self, host: usize, vm: usize, pause: u64) {
        let other = self.other_end(host).unwrap_or(host);
        self.kill_agent(host);
        self.start_agent_later(host, pause);
        self.kill_qemu(other, vm);
    }

    fn kill_host(&mut self, host: usize, pause: u64) {
        if self.watch.kills >= KILLS {
            return;
        }
        self.kill_agent(host);
        for vm in 0..self.plan.vms {
            let Some(copy) = &self.hosts[host].copies[vm] else { continue };
            let qemu = copy.qemu;
            self.watch.killed(vm, qemu);
            self.qemu_dies(host, vm);
        }
        self.start_agent_later(host, pause);
    }

    /// By declaring a source dead its operator accepts what has arrived, though the source may have run on before, also
    /// after it has rolled back unheard.
    fn forgo_memory(&mut self, host: usize, vm: usize) {
        let Some(lost) = self.hosts[host].copies[vm].as_ref() else { return };
        let ours = lost.standing.mark;
        if ours.is_some_and(|mark| mark.side == Side::Target) {
            return;
        }
        let copies = self.hosts.iter().filter_map(|host| host.copies[vm].as_ref());
        let arrived = |copy: &&Copy| {
            let theirs = copy.standing.mark.filter(|mark| mark.side == Side::Target);
            theirs.is_some_and(|it| ours.is_none_or(|mark| mark.migration == it.migration))
        };
        if let Some(copy) = copies.into_iter().find(arrived) {
            self.watch.memories[vm] = copy.memory;
        }
    }

    /// What was on its disk is gone too; only an operator can say so.
    fn lose_host(&mut self, host: usize, pause: u64) {
        let known = self.truth.records.contains_key(&Key::Host(self.hosts[host].name.clone()));
        if self.watch.kills >= KILLS || !known {
            return;
        }
        self.kill_host(host, pause);
        for vm in 0..self.plan.vms {
            self.forgo_memory(host, vm);
        }
        let state = &mut self.hosts[host];
        state.copies.iter_mut().for_each(|copy| *copy = None);
        state.disks += 1;
        state.full = false;
    }
}
