//! Orders, carried out in tasks of their own: each takes its time, and any may be overtaken by a later one.

use rackferry_fleet::{
    Counters, Generation, MigrationId, Order, Outcome, Said, SessionEnd, VmName,
};
use rackferry_migrator_protocol::session::{source, target};

use super::chores::{Chore, Start};
use super::qemu::{Copy, Mark, Qemu, Role, Side, Step};
use crate::clock::MS;
use crate::world::World;

impl World {
    /// An order has arrived.
    pub(super) fn obey(&mut self, host: usize, order: Order) {
        self.trace.say(self.clock.now, || {
            let short = match &order {
                Order::RackView { .. } => "RackView".to_owned(),
                Order::PrepareTarget { migration, vm, generation, .. } => {
                    format!("PrepareTarget {migration} {vm} generation {generation}")
                }
                Order::StartSource { migration, vm, generation, target, .. } => {
                    format!(
                        "StartSource {migration} {vm} to {} generation {generation}",
                        target.host
                    )
                }
                order => format!("{order:?}"),
            };
            format!("{} takes {short}", self.hosts[host].name)
        });
        // A task begins at once, most of the time.
        let soon = if self.dice.chance(900) { MS } else { 200 * MS };
        let pause = self.dice.below(soon);
        match order {
            Order::Welcome(_) => {
                if let Some(agent) = &mut self.hosts[host].agent {
                    agent.welcomed = true;
                }
            }
            // Nothing is sent here that a rate could hold back.
            Order::RackView { .. } | Order::SetRate(..) => {}
            Order::HurrySource(id) => {
                if let Some(session) = self.source_mut(host, id.0) {
                    session.hurry();
                }
            }
            Order::PrepareTarget { migration, vm, generation, .. } => {
                self.later(host, pause, Chore::Prepare(migration, vm, generation));
            }
            Order::StartSource { migration, vm, generation, target, options, .. } => {
                let target = self.hosts.iter().position(|host| host.name == target.host);
                let (Some(target), Some(vm)) = (target, vm_number(&vm)) else { return };
                let disruption = options.disruption;
                let start = Start { migration: migration.0, vm, generation, target, disruption };
                self.later(host, pause, Chore::Start(start));
            }
            Order::SwitchoverGrant(id) => {
                self.answered_request(host, id.0);
                self.source_command(host, id.0, source::Event::SlotGranted);
            }
            Order::CommitDecision { migration, refusal, .. } => {
                self.answered_request(host, migration.0);
                let granted = refusal.is_none();
                let reason = refusal.unwrap_or_default();
                let decision = source::Event::Decision { granted, reason };
                self.source_command(host, migration.0, decision);
            }
            Order::Cancel(id, why) => {
                self.source_command(host, id.0, source::Event::Cancel(why));
            }
            Order::ResumeTarget(id, _) => {
                if !self.target_command(host, id.0, target::Event::Go) {
                    self.later(host, pause, Chore::Resume(id.0));
                }
            }
            Order::DiscardTarget(id, why) => {
                if !self.target_command(host, id.0, target::Event::Discard(why)) {
                    self.later(host, pause, Chore::Discard(id.0));
                }
            }
            Order::ReleaseSource { migration, resume, .. } => {
                self.later(host, pause, Chore::Release(migration.0, resume));
            }
        }
    }

    fn answered_request(&mut self, host: usize, migration: u64) {
        if let Some(agent) = &mut self.hosts[host].agent {
            agent.requests.remove(&migration);
        }
    }

    pub(super) fn prepare(
        &mut self,
        host: usize,
        id: MigrationId,
        vm: &VmName,
        generation: Generation,
    ) {
        let Some(vm) = vm_number(vm) else { return };
        let state = &self.hosts[host];
        let Some(agent) = &state.agent else { return };
        let failed = |why: &str| Said::Ended(id, ended(Outcome::RolledBack, why));
        if !agent.welcomed {
            return self.tell(host, failed("not welcomed yet"));
        }
        if let Some(copy) = &state.copies[vm] {
            let mark = copy.mark.is_some_and(|mark| mark.migration == id.0);
            let known = copy.role == Role::Incoming && mark && copy.qemu != Qemu::Dead;
            let dead = copy.qemu == Qemu::Dead;
            // Whoever starts it will say so.
            match (known, agent.booting.contains(&vm)) {
                (true, true) => {}
                (true, false) if !agent.unreachable.contains(&vm) => {
                    self.prepared(host, id, generation);
                }
                _ if dead => {}
                _ => self.tell(host, failed("the name is taken")),
            }
            if !dead {
                return;
            }
            // What is left of a VM that died here does not keep it from coming back.
            self.hosts[host].copies[vm] = None;
        }
        let state = &self.hosts[host];
        if state.full || state.free(self.plan.room) == 0 {
            return self.tell(host, failed("no memory, or no disk"));
        }
        self.copy_count += 1;
        let mark = Some(Mark { migration: id.0, side: Side::Target });
        let serial = self.copy_count;
        let copy = Copy {
            serial,
            qemu: Qemu::Incoming,
            role: Role::Incoming,
            mark,
            stale: None,
            deaf_until: 0,
        };
        let state = &mut self.hosts[host];
        state.copies[vm] = Some(copy);
        if let Some(agent) = &mut state.agent {
            agent.booting.insert(vm);
        }
        let pause = self.dice.between(20, 600) * MS;
        self.later(host, pause, Chore::Booted(id, vm, generation));
    }

    pub(super) fn prepared(&mut self, host: usize, id: MigrationId, generation: Generation) {
        if let Some(agent) = &mut self.hosts[host].agent
            && !agent.targets.contains_key(&id.0)
        {
            agent.expected.insert(id.0, generation.0);
        }
        self.tell(host, Said::TargetReady(id));
        self.step_of_session(host, "prepared");
    }

    /// Looks for what arrives by a migration, then kills it. Says so also if there is nothing.
    pub(super) fn discard(&mut self, host: usize, id: u64) {
        let state = &mut self.hosts[host];
        let Some(agent) = &mut state.agent else { return };
        agent.expected.remove(&id);
        let vm = state.copy_in(id, Side::Target);
        let agent = state.agent.as_ref();
        let listed = |vm: &usize| agent.is_some_and(|agent| !agent.booting.contains(vm));
        let found = vm.filter(listed).and_then(|vm| {
            let copy = state.copies[vm].as_ref()?;
            (copy.role == Role::Incoming).then_some((vm, copy.serial))
        });
        let pause = self.dice.between(1, 60) * MS;
        self.later(host, pause, Chore::Kill(id, found));
    }

    pub(super) fn kill_incoming(&mut self, host: usize, id: u64, found: Option<(usize, u64)>) {
        if let Some((vm, serial)) = found
            && let Some(copy) = self.hosts[host].copies[vm].clone()
        {
            let agent = self.hosts[host].agent.as_ref();
            let unreachable = agent.is_some_and(|agent| agent.unreachable.contains(&vm));
            let other = copy.serial != serial || copy.role != Role::Incoming;
            if unreachable || other || copy.qemu == Qemu::Running {
                return;
            }
            self.remove_copy(host, vm);
        }
        if let Some(agent) = &mut self.hosts[host].agent {
            agent.expected.remove(&id);
        }
        self.tell(host, Said::TargetDiscarded(MigrationId(id)));
    }

    pub(super) fn remove_copy(&mut self, host: usize, vm: usize) {
        self.qemu_dies(host, vm);
        self.hosts[host].copies[vm] = None;
        self.list_changed(host);
    }

    pub(super) fn resume_loaded(&mut self, host: usize, id: u64) {
        let Some(vm) = self.hosts[host].copy_in(id, Side::Target) else { return };
        let agent = self.hosts[host].agent.as_ref();
        if agent.is_some_and(|agent| agent.unreachable.contains(&vm)) {
            return;
        }
        let Some(copy) = &self.hosts[host].copies[vm] else { return };
        let serial = copy.serial;
        if matches!(copy.qemu, Qemu::Running | Qemu::Loaded) {
            let pause = self.dice.between(1, 40) * MS;
            self.qemu_later(host, vm, pause, Step::Cont);
            self.later(host, pause + MS, Chore::Resumed(id, vm, serial));
        }
    }

    pub(super) fn resumed(&mut self, host: usize, id: u64, vm: usize, serial: u64) {
        let copy = self.hosts[host].copies[vm].as_ref().filter(|copy| copy.serial == serial);
        if copy.is_some_and(|copy| copy.qemu == Qemu::Running) {
            self.now_owned(host, vm);
            self.tell(host, Said::TargetRunning(MigrationId(id)));
        }
    }

    /// Writes down that a VM belongs here.
    pub(super) fn now_owned(&mut self, host: usize, vm: usize) {
        let full = self.hosts[host].full;
        if let Some(copy) = &mut self.hosts[host].copies[vm] {
            copy.write_down(Role::Run, None, full);
        }
        self.list_changed(host);
    }

    pub(super) fn release_source(&mut self, host: usize, id: u64, resume: bool) {
        let Some(vm) = self.hosts[host].copy_in(id, Side::Source) else { return };
        let agent = self.hosts[host].agent.as_ref();
        if agent.is_some_and(|agent| agent.unreachable.contains(&vm)) {
            return;
        }
        if !resume {
            return self.release(host, vm);
        }
        let Some(copy) = &self.hosts[host].copies[vm] else { return };
        match copy.qemu {
            Qemu::Postmigrate => self.qemu_steps(host, vm, copy.serial, Step::Cont),
            Qemu::Running | Qemu::Sending => {}
            _ => return,
        }
        self.now_owned(host, vm);
    }

    /// Ends a QEMU whose VM has left or died; any other may be the only copy.
    pub(super) fn release(&mut self, host: usize, vm: usize) {
        let qemu = self.hosts[host].copies[vm].as_ref().map(|copy| copy.qemu);
        if matches!(qemu, Some(Qemu::Postmigrate | Qemu::Dead)) {
            self.remove_copy(host, vm);
        }
    }
}

/// The number of a VM.
pub fn vm_number(name: &VmName) -> Option<usize> {
    name.as_str().strip_prefix('v')?.parse().ok()
}

/// The end of a session, without figures.
pub fn ended(outcome: Outcome, reason: &str) -> SessionEnd {
    SessionEnd {
        outcome,
        reason: reason.to_owned(),
        counters: Counters::default(),
        qemu_downtime_ms: 0,
        blackout_ms: 0,
        memory_digest: String::new(),
        not_converged: false,
    }
}
