//! The agent's stream to the coordinator: dialled again for ever, orders in, words and lists out.

use rackferry_agent_core::{Event, Word};
use rackferry_fleet::{BootId, Hello, HostName, Installation, Key, Record, Said, VmReport};

use super::{Chore, VM_BYTES, convert};
use crate::clock::MS;
use crate::net::{ConnId, Frame, Purpose};
use crate::world::World;

/// What a clone of a host says that it is.
pub fn clone_installation() -> Installation {
    Installation::new("clone")
}

/// Pause before the coordinator is dialled again.
const REDIAL: u64 = 300 * MS;

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
        self.agent_event(host, Event::Dialling);
        let state = &self.hosts[host];
        let hello = Hello {
            host: state.name.clone(),
            rack: state.rack.clone(),
            page_addr: String::new(),
            memory_bytes: room * VM_BYTES,
            agent_version: String::new(),
            boot,
            installation: Some(state.installation()),
            vms: state.list(),
        };
        let id = self.dial(me, node, Purpose::Stream, Frame::Hello(Box::new(hello)));
        if let Some(agent) = &mut self.hosts[host].agent {
            agent.stream = Some(id);
            agent.taken = false;
        }
    }

    /// A clone of a host, with its name and certificate and without its VMs, dials a coordinator.
    pub fn clone_dials(&mut self, host: usize) {
        let node = self.dice.index(self.nodes.len());
        let state = &self.hosts[host];
        let record = self.truth.records.get(&Key::Host(state.name.clone()));
        // The place of a dead host is any other installation's to take.
        let taken = matches!(record, Some(Record::Host(record)) if !record.declared_dead);
        if !taken || !self.nodes[node].up {
            return;
        }
        let hello = Hello {
            host: state.name.clone(),
            rack: state.rack.clone(),
            page_addr: String::new(),
            memory_bytes: self.plan.room * VM_BYTES,
            agent_version: String::new(),
            boot: BootId::new("clone"),
            installation: Some(clone_installation()),
            vms: Vec::new(),
        };
        self.dial(self.place_of(host), node, Purpose::Stream, Frame::Hello(Box::new(hello)));
    }

    /// A clone that has taken the place of a dead host is switched off.
    pub fn switch_clone_off(&mut self, name: &HostName) {
        let Some(host) = self.hosts.iter().position(|host| host.name == *name) else { return };
        let (me, own) =
            (self.place_of(host), self.hosts[host].agent.as_ref().and_then(|a| a.stream));
        let streams = self.net.conns.iter().filter(|(id, conn)| {
            conn.purpose == Purpose::Stream && conn.ends[0] == me && own != Some(**id)
        });
        for id in streams.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.close(id, 0);
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
                self.agent_event(host, Event::Connected);
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
        self.agent_event(host, Event::Disconnected);
    }

    /// Words that wait are sent soon.
    pub(super) fn drain_soon(&mut self, host: usize) {
        let Some(agent) = &mut self.hosts[host].agent else { return };
        if agent.core.has_word() && !std::mem::replace(&mut agent.draining, true) {
            let pause = self.dice.below(MS);
            self.later(host, pause, Chore::Drain);
        }
    }

    pub(super) fn drain(&mut self, host: usize) {
        if let Some(agent) = &mut self.hosts[host].agent {
            agent.draining = false;
        }
        while let Some(agent) = &mut self.hosts[host].agent {
            let under_way = agent.stream.map_or(0, |stream| self.net.under_way(stream, 1));
            if agent.core.has_word() && under_way >= self.plan.window {
                agent.draining = true;
                return self.later(host, 5 * MS, Chore::Drain);
            }
            let Some(word) = agent.core.next_word() else { return };
            let twice = !self.healing && self.dice.chance(self.plan.said_twice);
            if let Word::TargetDiscarded(migration) = &word {
                self.watch.said_gone(host, *migration);
            }
            let quiet = matches!(word, Word::Progress(..));
            let said = convert::said(word);
            if !quiet {
                self.trace
                    .say(self.clock.now, || format!("{} says {said:?}", self.hosts[host].name));
            }
            for _ in 0..=u32::from(twice) {
                self.say(host, said.clone());
            }
        }
    }

    fn say(&mut self, host: usize, said: Said) {
        let stream = self.hosts[host].agent.as_ref().and_then(|agent| agent.stream);
        if let Some(id) = stream {
            self.send(id, 0, Frame::Said(Box::new(said)));
        }
    }

    /// A report is to be made: each QEMU is asked, and some take their time.
    pub(super) fn list_soon(&mut self, host: usize) {
        let Some(stream) = self.hosts[host].agent.as_ref().and_then(|agent| agent.stream) else {
            return;
        };
        let pause = self.dice.below(MS);
        self.later(host, pause, Chore::List(stream));
    }

    pub(super) fn list(&mut self, host: usize, stream: ConnId) {
        let (free, vms) = (self.hosts[host].free(self.plan.room), self.hosts[host].list());
        let longest = if self.dice.chance(50) { 300 * MS } else { MS };
        let pause = self.dice.below(longest);
        self.later(host, pause, Chore::Report(stream, free, vms));
    }

    pub(super) fn report(
        &mut self,
        host: usize,
        stream: ConnId,
        memory_free_bytes: u64,
        vms: Vec<VmReport>,
    ) {
        let agent = self.hosts[host].agent.as_ref();
        if agent.is_none_or(|agent| agent.stream != Some(stream) || !agent.taken) {
            return;
        }
        self.trace.say(self.clock.now, || {
            format!("{} lists {}", self.hosts[host].name, crate::leader::list(&vms))
        });
        self.say(host, Said::Report { memory_free_bytes, vms });
        self.agent_event(host, Event::Reported);
    }
}
