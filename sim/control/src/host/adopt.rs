//! Agents die and start: what they find, and what QEMUs do meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use rackferry_agent_core::adopt::{Adoption, adoption};
use rackferry_agent_core::{Core, Event};
use rackferry_fleet::BootId;

use super::qemu::{Qemu, Step};
use super::{Agent, Chore};
use crate::clock::{MS, SECOND};
use crate::world::{Happening, World};

impl World {
    /// The agent's process is killed. Its QEMUs see their streams close.
    pub fn kill_agent(&mut self, host: usize) {
        if self.hosts[host].agent.take().is_none() {
            return;
        }
        self.trace.say(self.clock.now, || format!("{}'s agent dies", self.hosts[host].name));
        self.close_all(self.place_of(host));
        self.watch.falls_silent(host);
        for vm in 0..self.plan.vms {
            let Some(copy) = &self.hosts[host].copies[vm] else { continue };
            if matches!(copy.qemu, Qemu::Postmigrate | Qemu::Loaded) {
                self.seek(vm);
                continue;
            }
            if matches!(copy.qemu, Qemu::Sending | Qemu::Finishing | Qemu::Receiving(_)) {
                let longest = if self.dice.chance(800) { 100 * MS } else { 3 * SECOND };
                let pause = self.dice.below(longest);
                self.qemu_later(host, vm, pause, Step::Settle);
            }
        }
    }

    /// An agent is started after a while, unless there is one.
    pub fn start_agent_later(&mut self, host: usize, pause: u64) {
        if !std::mem::replace(&mut self.hosts[host].starting, true) {
            self.clock.after(pause, Happening::StartAgent(host));
        }
    }

    /// An agent starts.
    pub fn start_agent(&mut self, host: usize) {
        let dial_next = self.dice.index(self.nodes.len());
        let state = &mut self.hosts[host];
        state.starting = false;
        if state.agent.is_some() {
            return;
        }
        state.life += 1;
        state.agent = Some(Agent {
            boot: BootId::new(format!("{}-{}", state.name, state.life)),
            stream: None,
            taken: false,
            dial_next,
            core: Core::new(self.plan.outbox),
            tick_at: None,
            draining: false,
            sources: BTreeMap::new(),
            targets: BTreeMap::new(),
            busy: BTreeSet::new(),
            booting: BTreeSet::new(),
            unreachable: BTreeSet::new(),
        });
        self.trace.say(self.clock.now, || format!("{}'s agent starts", self.hosts[host].name));
        let pause = self.dice.between(10, 500) * MS;
        self.later(host, pause, Chore::Adopt);
    }

    /// Looks for every QEMU an earlier agent has left; only then the coordinator is dialled.
    pub(super) fn adopt(&mut self, host: usize) {
        for vm in 0..self.plan.vms {
            if !self.adopt_copy(host, vm) {
                if let Some(agent) = &mut self.hosts[host].agent {
                    agent.unreachable.insert(vm);
                }
                self.later(host, SECOND, Chore::LookAgain(vm));
            }
        }
        self.later(host, MS, Chore::Dial);
    }

    pub(super) fn look_again(&mut self, host: usize, vm: usize) {
        if !self.adopt_copy(host, vm) {
            return self.later(host, SECOND, Chore::LookAgain(vm));
        }
        if let Some(agent) = &mut self.hosts[host].agent {
            agent.unreachable.remove(&vm);
        }
        self.agent_event(host, Event::Changed);
    }

    /// Brings what an earlier agent left to a state that lasts; false if its QEMU does not answer.
    fn adopt_copy(&mut self, host: usize, vm: usize) -> bool {
        let (now, heard) = (self.clock.now, self.dice.chance(500));
        let full = self.hosts[host].full;
        let Some(mut copy) = self.hosts[host].copies[vm].as_mut() else { return true };
        if copy.deaf_until > now && copy.qemu != Qemu::Dead {
            return false;
        }
        copy.let_run = true;
        // What could not be written is not known any more.
        if let Some(standing) = copy.stale.take() {
            copy.standing = standing;
        }
        if copy.qemu == Qemu::Dead {
            return true;
        }
        loop {
            let Some(seen) = copy.qemu.seen() else { return false };
            match adoption(&copy.standing, false, seen) {
                Adoption::Cancel if copy.qemu == Qemu::Shut && heard => {
                    copy.qemu = Qemu::Postmigrate;
                }
                Adoption::Cancel | Adoption::LetRun => {
                    let ran = copy.qemu.runs();
                    copy.qemu = Qemu::Running;
                    if !ran {
                        self.begins_to_run(host, vm);
                    }
                    let Some(again) = self.hosts[host].copies[vm].as_mut() else { return true };
                    copy = again;
                }
                Adoption::Write(_) if full => return false,
                Adoption::Write(writing) => writing.apply(&mut copy.standing),
                Adoption::Adopt(_) => return true,
            }
        }
    }
}
