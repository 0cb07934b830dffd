//! What takes time at a host: a VM is prepared, or found, taken, and something is done to it step by step. While it is
//! taken nothing else is done to it; what may be done is asked of the production rules.

use rackferry_agent_core::{
    Act, Event, Mark, MigrationId, Preparation, Remains, Side, Standing, Step, VmState, Writing,
    preparation, remains,
};

use super::Chore;
use super::qemu::{self, Copy, Qemu};
use crate::clock::MS;
use crate::operator::vm_name;
use crate::world::World;

impl World {
    /// A VM is to be prepared, once nothing is being done to its name.
    pub(super) fn prepare(&mut self, host: usize, id: MigrationId, vm: usize, generation: u64) {
        if self.is_busy(host, vm) {
            return self.later(host, 5 * MS, Chore::Prepare(id, vm, generation));
        }
        let state = &self.hosts[host];
        let done = match preparation(state.facts(vm).as_ref(), id) {
            Preparation::Ready => Ok(()),
            Preparation::Taken => Err("the name is taken".to_owned()),
            Preparation::Boot | Preparation::Replace => {
                self.hosts[host].copies[vm] = None;
                return self.boot(host, id, vm, generation);
            }
        };
        self.agent_event(host, Event::Prepared(id, done));
    }

    fn boot(&mut self, host: usize, id: MigrationId, vm: usize, generation: u64) {
        let state = &self.hosts[host];
        if state.full || state.free(self.plan.room) == 0 {
            let failed = Event::Prepared(id, Err("no memory, or no disk".to_owned()));
            return self.agent_event(host, failed);
        }
        self.copy_count += 1;
        let mark = Mark { migration: id, generation, side: Side::Target };
        let copy = Copy {
            serial: self.copy_count,
            qemu: Qemu::Incoming,
            standing: Standing::incoming(mark),
            stale: None,
            deaf_until: 0,
            let_run: false,
            powered_off: false,
            memory: 0,
        };
        let state = &mut self.hosts[host];
        state.copies[vm] = Some(copy);
        if let Some(agent) = &mut state.agent {
            agent.booting.insert(vm);
        }
        let pause = self.dice.between(20, 600) * MS;
        self.later(host, pause, Chore::Booted(id, vm));
    }

    pub(super) fn booted(&mut self, host: usize, id: MigrationId, vm: usize) {
        if let Some(agent) = &mut self.hosts[host].agent {
            agent.booting.remove(&vm);
        }
        self.agent_event(host, Event::Changed);
        self.agent_event(host, Event::Prepared(id, Ok(())));
        self.step_of_session(host, vm, "prepared");
    }

    /// The operator of a host ends a VM that takes part in no migration there; false if its agent does not.
    pub fn destroy(&mut self, host: usize, vm: usize) -> bool {
        let Some(facts) = self.hosts[host].facts(vm).filter(|_| !self.is_busy(host, vm)) else {
            return false;
        };
        let unreachable = facts.state == VmState::Unknown;
        if unreachable || facts.standing.mark.is_some() {
            return false;
        }
        self.trace.say(self.clock.now, || format!("operator: destroys v{vm} on host {host}"));
        self.qemu_dies(host, vm);
        let full = self.hosts[host].full;
        let copy = &mut self.hosts[host].copies[vm];
        let let_run = copy.as_ref().is_some_and(|copy| copy.let_run);
        match (remains(&facts, facts.standing.may_have_run(let_run), false), copy) {
            (Remains::Word, Some(copy)) => drop(copy.write(Writing::Destroyed, full)),
            (_, copy) => *copy = None,
        }
        self.agent_event(host, Event::Changed);
        true
    }

    fn is_busy(&self, host: usize, vm: usize) -> bool {
        let agent = self.hosts[host].agent.as_ref();
        agent.is_some_and(|agent| agent.busy.contains(&vm) || agent.booting.contains(&vm))
    }

    /// The VM of an act is looked for.
    pub(super) fn find(&mut self, host: usize, act: Act) {
        let state = &self.hosts[host];
        let found = (0..state.copies.len()).find_map(|vm| {
            let facts = state.facts(vm)?;
            act.concerns(&facts.name, &facts.standing).then_some(vm)
        });
        let Some((vm, copy)) = found.and_then(|vm| Some((vm, state.copies[vm].as_ref()?))) else {
            return self.agent_event(host, Event::Acted(act, Ok(false)));
        };
        let serial = copy.serial;
        let pause = self.dice.between(MS / 10, 40 * MS);
        self.later(host, pause, Chore::Take(act, vm, serial));
    }

    /// It was found: it is taken, and looked at.
    pub(super) fn take_copy(&mut self, host: usize, act: Act, vm: usize, serial: u64) {
        if self.is_busy(host, vm) {
            return self.later(host, 5 * MS, Chore::Take(act, vm, serial));
        }
        let Some(facts) = self.hosts[host].facts(vm) else {
            return self.agent_event(host, Event::Acted(act, Ok(false)));
        };
        match act.verdict(&facts) {
            Err(refusal) => {
                self.agent_event(host, Event::Acted(act, Err(refusal.to_string())));
            }
            Ok(steps) => {
                let serial = self.hosts[host].copies[vm].as_ref().map_or(serial, |c| c.serial);
                if let Some(agent) = &mut self.hosts[host].agent {
                    agent.busy.insert(vm);
                }
                self.steps(host, act, vm, serial, steps);
            }
        }
    }

    /// The next step of an act, and those after it a little later.
    pub(super) fn steps(
        &mut self,
        host: usize,
        act: Act,
        vm: usize,
        serial: u64,
        mut steps: Vec<Step>,
    ) {
        let there = self.hosts[host].copies[vm].as_ref().is_some_and(|c| c.serial == serial);
        let done = match steps.is_empty() {
            true => Some(Ok(true)),
            false if !there => Some(Err(format!("{} is gone", vm_name(vm)))),
            false => self.step(host, vm, steps.remove(0)).err().map(Err),
        };
        match done {
            None => {
                let pause = self.dice.between(MS / 10, 40 * MS);
                self.later(host, pause, Chore::Steps(act, vm, serial, steps));
                self.step_of_session(host, vm, "acting");
            }
            Some(done) => {
                if let Some(agent) = &mut self.hosts[host].agent {
                    agent.busy.remove(&vm);
                }
                self.agent_event(host, Event::Acted(act, done));
            }
        }
    }

    fn step(&mut self, host: usize, vm: usize, step: Step) -> Result<(), String> {
        let full = self.hosts[host].full;
        let Some(copy) = self.hosts[host].copies[vm].as_mut() else { return Ok(()) };
        match step {
            Step::Cont => {
                copy.let_run = true;
                let serial = copy.serial;
                self.qemu_steps(host, vm, serial, qemu::Step::Cont);
                let copy = self.hosts[host].copies[vm].as_ref();
                if !copy.is_some_and(|c| matches!(c.qemu, Qemu::Running | Qemu::Sending)) {
                    return Err("cont".to_owned());
                }
            }
            Step::Write(writing) => {
                let written = copy.write(writing, full);
                self.agent_event(host, Event::Changed);
                if !written && !writing.is_fact() {
                    return Err("no disk".to_owned());
                }
            }
            Step::Announce => {}
            Step::Quit | Step::Kill => {
                self.qemu_dies(host, vm);
                self.hosts[host].copies[vm] = None;
                self.agent_event(host, Event::Changed);
            }
        }
        Ok(())
    }
}
