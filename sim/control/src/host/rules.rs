//! The production rules of an agent, driven: what they say is done, each thing in its time.

use rackferry_agent_core::{
    Effect, Event, Moment, Preparation, SourceCommand, TargetCommand, start,
};
use rackferry_fleet::Order;
use rackferry_migrator_protocol::session::{source, target};

use super::{Chore, Simulated, convert, qemu::Copy};
use crate::clock::MS;
use crate::net::ConnId;
use crate::world::World;

impl World {
    /// An order has arrived.
    pub(super) fn obey(&mut self, host: usize, order: Order) {
        self.trace
            .say(self.clock.now, || format!("{} takes {}", self.hosts[host].name, short(&order)));
        if matches!(order, Order::Welcome(_)) {
            return self.agent_event(host, Event::Welcomed);
        }
        let left = self.left_copy(host, &order);
        if let Some(order) = convert::order(order, &self.hosts) {
            self.agent_event(host, Event::Ordered(order));
            let Some(vm) = left else { return };
            self.seek(vm);
            self.step_of_session(host, vm, "ordered");
        }
    }

    /// The copy that an order says the last word about.
    fn left_copy(&self, host: usize, order: &Order) -> Option<usize> {
        let (&Order::ResumeTarget(id, _)
        | &Order::KeepDead(id, _)
        | &Order::ReleaseSource { migration: id, resume: true, .. }) = order
        else {
            return None;
        };
        let marked = |copy: &Copy| copy.standing.mark.is_some_and(|mark| mark.migration == id);
        self.hosts[host].copies.iter().position(|copy| copy.as_ref().is_some_and(marked))
    }

    /// An agent's rules take an event.
    pub fn agent_event(&mut self, host: usize, event: Event<Simulated>) {
        self.agent_event_of(host, event, None);
    }

    /// The same, with the connection of a caller.
    pub(super) fn agent_event_of(
        &mut self,
        host: usize,
        event: Event<Simulated>,
        caller: Option<ConnId>,
    ) {
        let now = Moment(self.clock.now);
        let Some(agent) = &mut self.hosts[host].agent else { return };
        let mut effects = Vec::new();
        self.watch.note_attested(host, &event);
        agent.core.handle(event, now, &mut effects);
        for effect in effects {
            self.perform(host, effect, caller);
        }
        self.drain_soon(host);
        self.plan_tick(host);
    }

    fn perform(&mut self, host: usize, effect: Effect<Simulated>, caller: Option<ConnId>) {
        match effect {
            Effect::Prepare(id, (vm, generation)) => {
                self.task_begins(host, Chore::Prepare(id, vm, generation));
            }
            Effect::Act(act) => self.task_begins(host, Chore::Find(act)),
            Effect::Send(id, _, start) => self.start_source(host, id.0, start),
            Effect::Receive(id, (vm, _)) => {
                if let Some(conn) = caller {
                    self.receive(host, conn, id.0, vm);
                }
            }
            Effect::Refuse(_) => {
                if let Some(conn) = caller {
                    self.close(conn, 1);
                }
            }
            Effect::TellSource(id, command) => self.tell_source(host, id.0, command),
            Effect::TellTarget(id, command) => {
                let event = match command.clone() {
                    TargetCommand::Resume(_) => target::Event::Go,
                    TargetCommand::Discard(why) => target::Event::Discard(why),
                };
                if !self.target_command(host, id.0, event) {
                    self.agent_event(host, Event::Undelivered(id, command));
                }
            }
            // Nothing is sent here that a rate could hold back.
            Effect::SetRate(..) => {}
            Effect::Forget(name) => {
                let vm = (0..self.plan.vms).find(|&vm| crate::operator::vm_name(vm) == name);
                let Some(vm) = vm else { return };
                let facts = self.hosts[host].facts(vm);
                if start(facts.as_ref()) == Preparation::Replace {
                    self.hosts[host].copies[vm] = None;
                    self.agent_event(host, Event::Changed);
                }
            }
            Effect::Report => self.list_soon(host),
            Effect::RestartStream => {
                let stream = self.hosts[host].agent.as_ref().and_then(|agent| agent.stream);
                if let Some(id) = stream {
                    self.close(id, 0);
                    self.agent_loses(host, id);
                }
            }
        }
    }

    /// A task begins at once, most of the time; any may be overtaken by a later one.
    fn task_begins(&mut self, host: usize, chore: Chore) {
        let soon = if self.dice.chance(900) { MS } else { 200 * MS };
        let pause = self.dice.below(soon);
        self.later(host, pause, chore);
    }

    fn tell_source(&mut self, host: usize, id: u64, command: SourceCommand) {
        let event = match command {
            SourceCommand::SlotGranted => source::Event::SlotGranted,
            SourceCommand::Decision { granted, reason } => {
                source::Event::Decision { granted, reason }
            }
            SourceCommand::Cancel(why) => source::Event::Cancel(why),
            SourceCommand::ForceSwitchover => {
                if let Some(session) = self.source_mut(host, id) {
                    session.force_switchover();
                }
                return;
            }
        };
        self.source_command(host, id, event);
    }

    fn plan_tick(&mut self, host: usize) {
        let Some(agent) = &mut self.hosts[host].agent else { return };
        let Some(Moment(at)) = agent.core.deadline() else { return };
        if agent.tick_at.is_none_or(|planned| at < planned) {
            agent.tick_at = Some(at);
            let pause = at.saturating_sub(self.clock.now);
            self.later(host, pause, Chore::Tick(at));
        }
    }

    pub(super) fn agent_tick(&mut self, host: usize, at: u64) {
        let Some(agent) = &mut self.hosts[host].agent else { return };
        if agent.tick_at == Some(at) {
            agent.tick_at = None;
            self.agent_event(host, Event::Tick);
        }
    }
}

fn short(order: &Order) -> String {
    match order {
        Order::RackView { .. } => "RackView".to_owned(),
        Order::PrepareTarget { migration, vm, generation, .. } => {
            format!("PrepareTarget {migration} {vm} generation {generation}")
        }
        Order::StartSource { migration, vm, generation, target, .. } => {
            format!("StartSource {migration} {vm} to {} generation {generation}", target.host)
        }
        order => format!("{order:?}"),
    }
}
