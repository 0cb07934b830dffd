//! The operator: evacuates, moves single VMs, cancels, holds back, asks again when no answer comes.

use rackferry_fleet::{
    Disruption, Effect, EvacuationId, EvacuationRequest, EvacuationState, Fleet, HostName,
    Installation, Link, LinkLimit, MigrationId, MigrationRequest, Moment, MoveOptions, Phase,
    Topology, WaitCode,
};

use crate::clock::{MS, SECOND};
use crate::host::clone_installation;
use crate::host::qemu::{Copy, Qemu};
use crate::invariants::Acknowledged;
use crate::leader::Input;
use crate::world::{Happening, World};

/// Number of a call.
pub type CallId = usize;
/// How often an unanswered call is made again.
const TRIES: u32 = 8;

/// What is asked for.
#[derive(Clone, Debug)]
pub enum Request {
    /// Empty a rack.
    Evacuate(EvacuationRequest),
    /// Move one VM.
    Migrate(MigrationRequest),
    /// Stop an evacuation.
    Cancel(EvacuationId),
    /// Stop one move.
    CancelMigration(MigrationId),
    /// Import an inventory with one link between the racks; with it, that the first two VMs are kept apart or not.
    Import(bool),
    /// Set the limit of that link, or remove it.
    Limit(Option<LinkLimit>),
    /// Let the VM of a move be stopped for as long as it takes.
    Force(MigrationId),
    /// Pause an evacuation, or let it go on.
    Pause(EvacuationId, bool),
    /// Cordon a rack or a host, or end that.
    Cordon(String, bool),
    /// Declare a host dead.
    DeclareDead(HostName, Option<Installation>),
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It is under way, or was already.
    Evacuation(EvacuationId),
    /// The same for a single move.
    Migration(MigrationId),
    /// It is stopped, or will be.
    Cancelled,
    /// It is so now.
    Done,
    /// No.
    Refused(String),
}

/// A request and what became of it.
#[derive(Debug)]
pub struct Call {
    /// What was asked for.
    pub request: Request,
    /// The answer that arrived.
    pub reply: Option<Reply>,
    tries: u32,
}

/// The operator.
#[derive(Debug, Default)]
pub struct Operator {
    /// All calls so far.
    pub calls: Vec<Call>,
    /// Evacuations it was told of.
    pub evacuations: Vec<EvacuationId>,
    /// Moves it was told of.
    pub migrations: Vec<MigrationId>,
}

impl Operator {
    /// Puts a call to the fleet.
    pub fn ask(
        &self,
        call: CallId,
        fleet: &mut Fleet,
        now: Moment,
        out: &mut Vec<Effect>,
    ) -> Reply {
        let reply = match &self.calls[call].request {
            Request::Evacuate(request) => {
                fleet.create_evacuation(request, now, out).map(Reply::Evacuation)
            }
            Request::Migrate(request) => {
                fleet.create_migration(request, now, out).map(Reply::Migration)
            }
            Request::Cancel(id) => {
                fleet.cancel_evacuation(*id, now, out).map(|()| Reply::Cancelled)
            }
            Request::CancelMigration(id) => {
                fleet.cancel_migration(*id, now, out).map(|()| Reply::Cancelled)
            }
            Request::Force(id) => fleet.force_switchover(*id, now, out).map(|()| Reply::Done),
            Request::Import(apart) => {
                fleet.import_inventory(LINK.to_owned(), topology(*apart), now, out);
                Ok(Reply::Done)
            }
            Request::Limit(limit) => {
                fleet.set_limits(&[(LINK.into(), *limit)], now, out).map(|()| Reply::Done)
            }
            Request::Pause(id, paused) => {
                fleet.pause_evacuation(*id, *paused, now, out).map(|()| Reply::Done)
            }
            Request::DeclareDead(host, installation) => {
                fleet.declare_dead(host, installation.as_ref(), now, out).map(|()| Reply::Done)
            }
            Request::Cordon(place, cordoned) => {
                let places = std::slice::from_ref(place);
                fleet.cordon(places, *cordoned, now, out).map(|_| Reply::Done)
            }
        };
        reply.unwrap_or_else(|refusal| Reply::Refused(refusal.to_string()))
    }
}

impl World {
    /// The operator does something, and will do something again.
    pub fn act(&mut self) {
        if self.healing {
            return;
        }
        let pause = self.dice.between(self.plan.act_every_ns / 4, self.plan.act_every_ns);
        self.clock.after(pause, Happening::Act);
        if self.dice.chance(500) {
            self.declare_lost_hosts();
        }
        match self.dice.below(16) {
            0..=3 => {
                let from_a = self.dice.chance(500);
                self.evacuate(from_a);
            }
            4 | 5 => {
                let (vm, host) =
                    (self.dice.index(self.plan.vms), self.dice.index(self.hosts.len()));
                let request = MigrationRequest {
                    request: format!("request-{}", self.operator.calls.len()),
                    vm: vm_name(vm).as_str().into(),
                    target: self.hosts[host].name.clone(),
                    options: self.options(),
                };
                self.call(Request::Migrate(request));
            }
            6 | 7 => {
                if let Some(id) = self.dice.pick(&self.operator.evacuations) {
                    for _ in 0..=self.dice.below(2) {
                        self.call(Request::Cancel(id));
                    }
                }
            }
            8 | 9 => {
                // Of an evacuation perhaps, so any number that may have been given.
                let most = self.operator.migrations.last().map_or(3, |last| last.0 + 3);
                let id = MigrationId(self.dice.between(1, most));
                self.call(Request::CancelMigration(id));
            }
            10..=12 => self.limit_link(),
            13 => {
                let most = self.operator.migrations.last().map_or(3, |last| last.0 + 3);
                let id = MigrationId(self.dice.between(1, most));
                self.call(Request::Force(id));
            }
            14 => {
                let cordoned = self.dice.chance(600);
                let host = self.dice.index(self.hosts.len());
                let rack = if self.dice.chance(500) { "a" } else { "b" };
                let host = self.hosts[host].name.to_string();
                let place = if self.dice.chance(700) { host } else { rack.to_owned() };
                self.call(Request::Cordon(place, cordoned));
            }
            _ => {
                if let Some(id) = self.dice.pick(&self.operator.evacuations) {
                    let paused = self.dice.chance(600);
                    self.call(Request::Pause(id, paused));
                }
            }
        }
    }

    fn limit_link(&mut self) {
        let imported =
            self.operator.calls.iter().any(|call| matches!(call.request, Request::Import(_)));
        if !imported || self.dice.chance(100) {
            // With one host per rack no VM could leave.
            let apart = self.plan.hosts_per_rack > 1 && self.dice.chance(600);
            self.call(Request::Import(apart));
        }
        let limit = match self.dice.below(4) {
            0 => None,
            1 => Some(LinkLimit::Percent(self.dice.between(1, 100) as u8)),
            _ => Some(LinkLimit::Rate(self.dice.between(1, 2 * LINK_RATE))),
        };
        self.call(Request::Limit(limit));
    }

    /// Ends what holds back, at the end of trouble: a world that is paused, or has nowhere to go, does not come to rest.
    /// True if there was anything.
    pub fn lift_holds(&mut self) -> bool {
        let fleet = self.nodes.iter().find_map(|node| node.leader()?.fleet());
        let Some(fleet) = fleet else { return false };
        let paused = fleet.evacuations().filter(|view| view.state == EvacuationState::Paused);
        // Migrations that were created before an import kept their VMs apart.
        let apart = fleet.migrations().filter(|view| {
            view.wait.as_ref().is_some_and(|wait| wait.code == WaitCode::AntiAffinity)
        });
        let cordoned = fleet.hosts().into_iter().filter(|host| host.cordoned);
        let lift: Vec<Request> = paused
            .map(|view| Request::Pause(view.record.id, false))
            .chain(apart.map(|view| Request::CancelMigration(view.record.id)))
            .chain(cordoned.map(|host| Request::Cordon(host.name.to_string(), false)))
            .collect();
        let any = !lift.is_empty();
        for request in lift {
            self.call(request);
        }
        self.declare_lost_hosts() || self.give_up_loaded_copies() || any
    }

    /// Where a source died and may have run on before, the copy that its target has loaded is not let run; true if there
    /// was one.
    fn give_up_loaded_copies(&mut self) -> bool {
        let fleet = self.nodes.iter().find_map(|node| node.leader()?.fleet());
        let Some(fleet) = fleet else { return false };
        let doubtful = fleet.migrations().filter(|view| view.phase == Phase::OwnerUnknown);
        let copies: Vec<(usize, usize)> = doubtful
            .filter_map(|view| {
                let at = |name: &HostName| self.hosts.iter().position(|host| host.name == *name);
                let (source, target) = (at(&view.record.source)?, at(&view.record.target)?);
                let mut vms = 0..self.plan.vms;
                let vm = vms.find(|&vm| vm_name(vm) == view.record.vm.as_str())?;
                let died = |copy: &Copy| copy.qemu == Qemu::Dead;
                let loaded = |copy: &Copy| copy.qemu == Qemu::Loaded;
                let doubtful = self.hosts[source].copies[vm].as_ref().is_some_and(died)
                    && self.hosts[target].copies[vm].as_ref().is_some_and(loaded);
                doubtful.then_some((target, vm))
            })
            .collect();
        for &(host, vm) in &copies {
            self.trace.say(self.clock.now, || format!("operator: destroys v{vm} on host {host}"));
            self.watch.killed(vm, Qemu::Loaded);
            self.qemu_dies(host, vm);
            self.hosts[host].copies[vm] = None;
            self.agent_event(host, rackferry_agent_core::Event::Changed);
        }
        !copies.is_empty()
    }

    /// Declares hosts dead that were lost with their disks; true if there was one.
    fn declare_lost_hosts(&mut self) -> bool {
        let fleet = self.nodes.iter().find_map(|node| node.leader()?.fleet());
        let views = fleet.map(Fleet::hosts).unwrap_or_default();
        for view in &views {
            if view.connection.is_some() && view.installation == Some(clone_installation()) {
                self.switch_clone_off(&view.name);
            }
        }
        let lost = views.into_iter().filter(|view| {
            let host = self.hosts.iter().find(|host| host.name == view.name);
            let replaced = host.map(crate::host::Host::installation) != view.installation;
            replaced && view.connection.is_none() && !view.declared_dead
        });
        let lost: Vec<_> = lost.map(|view| (view.name, view.installation)).collect();
        for (host, installation) in &lost {
            self.call(Request::DeclareDead(host.clone(), installation.clone()));
        }
        !lost.is_empty()
    }

    fn options(&mut self) -> MoveOptions {
        // At rest every VM must arrive, restless ones too.
        let disruption = match self.dice.below(3) {
            _ if self.healing => Disruption::Allow,
            0 => Disruption::None,
            1 => Disruption::Brief,
            _ => Disruption::Allow,
        };
        MoveOptions { verify: self.plan.verify, disruption, ..MoveOptions::default() }
    }

    /// Empties one of the two racks into the other.
    pub fn evacuate(&mut self, from_a: bool) -> CallId {
        let (source, target) = if from_a { ("a", "b") } else { ("b", "a") };
        let request = EvacuationRequest {
            request: format!("request-{}", self.operator.calls.len()),
            sources: vec![source.to_owned()],
            targets: vec![target.to_owned()],
            options: self.options(),
            link_limits: Default::default(),
            exclude: Default::default(),
            skip_blocked: false,
            // With both racks cordoned most of the time little would happen.
            no_cordon: self.healing || !self.operator.calls.len().is_multiple_of(4),
            deadline_ns: if self.dice.chance(300) {
                Some(self.dice.between(1, 30) * SECOND)
            } else {
                None
            },
        };
        self.call(Request::Evacuate(request))
    }

    fn call(&mut self, request: Request) -> CallId {
        let id = self.operator.calls.len();
        self.trace.say(self.clock.now, || format!("operator: call {id} {request:?}"));
        self.operator.calls.push(Call { request, reply: None, tries: 0 });
        self.coverage.acts += 1;
        self.try_call(id);
        id
    }

    /// Makes a call, again if it was not answered.
    pub fn try_call(&mut self, id: CallId) {
        let call = &mut self.operator.calls[id];
        call.tries += 1;
        if call.reply.is_some() || call.tries > TRIES {
            return;
        }
        let leading = (0..self.nodes.len()).filter(|&node| self.nodes[node].leader().is_some());
        let leading: Vec<usize> = leading.collect();
        let somebody = self.dice.index(self.nodes.len());
        let node = self.dice.pick(&leading).unwrap_or(somebody);
        let pause = self.dice.between(MS / 10, self.plan.delay_ns);
        self.clock.after(pause, Happening::CallArrives(node, id));
        // It may be answered after it was made again.
        let timeout = self.dice.between(300, 3000) * MS;
        self.clock.after(timeout, Happening::TryCall(id));
    }

    /// A call has arrived at a coordinator.
    pub fn call_arrives(&mut self, node: usize, id: CallId) {
        self.input(node, Input::Call(id));
    }

    /// An answer leaves a coordinator.
    pub fn answer(&mut self, id: CallId, reply: Reply) {
        let pause = self.dice.between(MS / 10, self.plan.delay_ns);
        self.clock.after(pause, Happening::Answered(id, reply));
    }

    /// An answer reaches the operator: from now on it must hold.
    pub fn answered(&mut self, id: CallId, reply: Reply) {
        let request = self.operator.calls[id].request.clone();
        if let (Some(first), false) =
            (&self.operator.calls[id].reply, matches!(reply, Reply::Refused(_)))
            && !matches!(first, Reply::Refused(_))
            && *first != reply
        {
            let why = format!("call {id} was answered {first:?}, then {reply:?}");
            self.violated("answers durable", why);
        }
        match (&reply, request) {
            (Reply::Evacuation(evacuation), Request::Evacuate(request)) => {
                self.operator.evacuations.push(*evacuation);
                self.acknowledged(Acknowledged::Evacuation(*evacuation, request.request));
            }
            (Reply::Migration(migration), Request::Migrate(request)) => {
                self.operator.migrations.push(*migration);
                self.acknowledged(Acknowledged::Migration(*migration, request.request));
            }
            (Reply::Cancelled, Request::Cancel(evacuation)) => {
                self.acknowledged(Acknowledged::Cancelled(evacuation));
            }
            _ => {}
        }
        self.operator.calls[id].reply = Some(reply);
    }

    /// Is the operator still waiting for anything?
    pub fn operator_waits(&self) -> bool {
        self.operator.calls.iter().any(|call| call.reply.is_none() && call.tries <= TRIES)
    }
}

/// The link between the racks.
pub const LINK: &str = "core0";
/// What it can carry, bytes per second.
const LINK_RATE: u64 = 100_000_000;

fn topology(apart: bool) -> Topology {
    let (a, b) = ("a".to_owned(), "b".to_owned());
    let link = Link { name: LINK.into(), a, b, rate: LINK_RATE, cost: 1 };
    let pair = (0..2).filter(|_| apart).map(|vm| (vm_name(vm).as_str().into(), "pair".to_owned()));
    Topology { links: vec![link], groups: pair.collect(), ..Topology::default() }
}

/// The name of the n-th VM.
pub fn vm_name(vm: usize) -> String {
    format!("v{vm}")
}

/// A pause after which an operator looks again.
pub const LOOK_AGAIN: u64 = SECOND;
