//! The agent's stream to the coordinator: dialled again for ever, orders in, words and lists out.

use rackferry_fleet::{Hello, Said};

use super::{Chore, VM_BYTES};
use crate::clock::{MS, SECOND};
use crate::net::{ConnId, Frame, Purpose};
use crate::world::World;

/// Pause before the coordinator is dialled again.
const REDIAL: u64 = 300 * MS;
/// Words that wait for a stream.
pub const OUTBOX: usize = 1024;
/// A list at least this often.
const REPORT_EVERY: u64 = 2 * SECOND;

impl World {
    /// The agent dials a coordinator and introduces itself.
    pub(super) fn dial_coordinator(&mut self, host: usize) {
        let room = self.plan.room;
        let (count, me) = (self.nodes.len(), self.place_of(host));
        let Some(agent) = self.hosts[host].agent.as_mut().filter(|agent| agent.stream.is_none())
        else {
            return;
        };
        let node = agent.dial_next % count;
        agent.dial_next = node + 1;
        let boot = agent.boot.clone();
        if !self.nodes[node].up {
            return self.later(host, REDIAL, Chore::Dial);
        }
        let state = &self.hosts[host];
        let hello = Hello {
            host: state.name.clone(),
            rack: state.rack.clone(),
            page_addr: String::new(),
            memory_bytes: room * VM_BYTES,
            agent_version: String::new(),
            boot,
            vms: state.list(),
        };
        let id = self.dial(me, node, Purpose::Stream, Frame::Hello(Box::new(hello)));
        if let Some(agent) = &mut self.hosts[host].agent {
            agent.stream = Some(id);
            agent.taken = false;
        }
    }

    /// A frame of a coordinator has arrived.
    pub fn agent_hears(&mut self, host: usize, id: ConnId, frame: Frame) {
        let Some(agent) = self.hosts[host].agent.as_mut().filter(|a| a.stream == Some(id)) else {
            return;
        };
        match frame {
            Frame::Taken => {
                agent.taken = true;
                agent.report_due = false;
                let open: Vec<Said> = agent.requests.values().cloned().collect();
                for request in open {
                    self.say_now(host, request);
                }
                self.drain_soon(host);
                self.later(host, MS, Chore::Report(Some(id)));
            }
            Frame::NotLeader(Some(leader)) => agent.dial_next = leader,
            Frame::Order(order) => self.obey(host, *order),
            _ => {}
        }
    }

    /// The stream is gone; what waited to be said waits for the next.
    pub fn agent_loses(&mut self, host: usize, id: ConnId) {
        let Some(agent) = self.hosts[host].agent.as_mut().filter(|a| a.stream == Some(id)) else {
            return;
        };
        agent.stream = None;
        agent.taken = false;
        self.later(host, REDIAL, Chore::Dial);
    }

    /// Puts a word into the outbox. If one does not fit, other than progress, the stream starts anew.
    pub fn tell(&mut self, host: usize, said: Said) {
        let most = self.plan.outbox;
        let twice = !self.healing && self.dice.chance(self.plan.said_twice);
        let progress = matches!(said, Said::Progress(..));
        let Some(agent) = &mut self.hosts[host].agent else { return };
        let mut fits = true;
        for _ in 0..=u32::from(twice) {
            fits = agent.outbox.len() < most;
            if fits {
                agent.outbox.push_back(said.clone());
            }
        }
        let stream = agent.stream.filter(|_| agent.taken && !fits && !progress);
        if let Some(id) = stream {
            self.close(id, 0);
            return self.agent_loses(host, id);
        }
        self.drain_soon(host);
    }

    /// Asks something that a source session waits for: again on every new stream until it is answered.
    pub fn ask(&mut self, host: usize, migration: u64, request: Said) {
        if let Some(agent) = &mut self.hosts[host].agent {
            agent.requests.insert(migration, request.clone());
        }
        self.tell(host, request);
    }

    fn drain_soon(&mut self, host: usize) {
        let Some(agent) = &mut self.hosts[host].agent else { return };
        if agent.taken && !agent.outbox.is_empty() && !std::mem::replace(&mut agent.draining, true)
        {
            // A list that is being made holds it up.
            let longest = if self.dice.chance(50) { 300 * MS } else { MS };
            let pause = self.dice.below(longest);
            self.later(host, pause, Chore::Drain);
        }
    }

    pub(super) fn drain(&mut self, host: usize) {
        let Some(agent) = &mut self.hosts[host].agent else { return };
        agent.draining = false;
        if !agent.taken {
            return;
        }
        let waiting: Vec<Said> = agent.outbox.drain(..).collect();
        for said in waiting {
            self.say_now(host, said);
        }
    }

    fn say_now(&mut self, host: usize, said: Said) {
        let stream = self.hosts[host].agent.as_ref().and_then(|agent| agent.stream);
        let Some(id) = stream else { return };
        if !matches!(said, Said::Report { .. } | Said::Progress(..)) {
            self.trace.say(self.clock.now, || format!("{} says {said:?}", self.hosts[host].name));
        }
        self.send(id, 0, Frame::Said(Box::new(said)));
    }

    /// Sends the list of what is here; now and then, as long as this stream lives, or once.
    pub(super) fn report(&mut self, host: usize, every: Option<ConnId>) {
        let state = &mut self.hosts[host];
        let memory_free_bytes = state.free(self.plan.room);
        let vms = state.list();
        let Some(agent) = state.agent.as_mut().filter(|agent| agent.taken) else { return };
        if every.is_some() && agent.stream != every {
            return;
        }
        if every.is_none() {
            agent.report_due = false;
        }
        self.trace.say(self.clock.now, || {
            format!("{} lists {}", self.hosts[host].name, crate::leader::list(&vms))
        });
        self.say_now(host, Said::Report { memory_free_bytes, vms });
        if every.is_some() {
            self.later(host, REPORT_EVERY, Chore::Report(every));
        }
    }
}
