//! Hosts and VMs that are gone for good: an operator says so, because no agent can.

use crate::{
    Effect, Fleet, HostName, Installation, MigrationId, Moment, Order, Refusal, RunState, Standing,
    VmName, VmReport,
    ownership::{Source, Target},
};

impl Fleet {
    /// Declares a host dead for good, with everything that ran there. Of its migrations, a VM that leaves it is lost unless
    /// it has been committed; one that may have run there after it arrived is lost, for no older copy may go on. To say it
    /// again changes nothing, also once another installation than the one that is meant has taken its place.
    ///
    /// # Errors
    /// If the host is not known, or its agent is connected; then nothing happens.
    pub fn declare_dead(
        &mut self,
        host: &HostName,
        installation: Option<&Installation>,
        now: Moment,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let record = self.store.hosts().get(host);
        let record = record.ok_or_else(|| Refusal::UnknownHost(host.clone()))?;
        if installation.is_some() && installation != record.installation.as_ref() {
            return Ok(());
        }
        if self.ownership.agents.contains_key(host) {
            return Err(Refusal::Connected(host.clone()));
        }
        if record.declared_dead {
            return Ok(());
        }
        self.begin(now);
        let last = self.store.last_generation();
        self.store.change_host(host, |record| {
            record.declared_dead = true;
            record.lost_up_to = last;
        });
        self.note(true, format!("{host} was declared dead"));
        self.attest_for_dead(host);
        self.look_at_reaching(host);
        let queued: Vec<MigrationId> = self.store.index().queued_from(host).collect();
        queued.into_iter().for_each(|id| self.scheduling.look_again(id));
        self.view.touch_host(host);
        let vms: Vec<VmName> = self.store.index().vms_of_host(host).cloned().collect();
        for vm in &vms {
            self.look_at_vm(vm);
            self.view.touch_vm(vm);
        }
        self.outbox.publish = true;
        self.finish(out);
        Ok(())
    }

    /// What hosts that were declared dead would attest; the word of one comes with every tick, for a new leader did not hear
    /// it.
    pub(crate) fn attest_for_dead_hosts(&mut self) {
        let dead = self.store.hosts().values().filter(|record| record.declared_dead);
        let dead: Vec<HostName> = dead.map(|record| record.name.clone()).collect();
        dead.iter().for_each(|host| self.attest_for_dead(host));
    }

    fn attest_for_dead(&mut self, host: &HostName) {
        let arrived = if planted!(self, DeadIsGone) { Target::Gone } else { Target::Died };
        for id in self.active_on(host) {
            let Some(migration) = self.store.migrations().get(&id) else { continue };
            let Some(live) = self.live.get_mut(&id) else { continue };
            if migration.source == *host {
                live.source = Source::Gone;
            } else {
                live.target = arrived;
            }
            live.reason.get_or_insert_with(|| format!("{host} was declared dead"));
            self.reconcile(id);
        }
    }

    pub(crate) fn is_declared_dead(&self, host: &HostName) -> bool {
        self.store.hosts().get(host).is_some_and(|record| record.declared_dead)
    }

    /// Forgets a host that was declared dead.
    ///
    /// # Errors
    /// If it is not known, was not declared dead, owns VMs, or takes part in a migration; then nothing happens.
    pub fn forget_host(
        &mut self,
        host: &HostName,
        now: Moment,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        if !self.store.hosts().contains_key(host) {
            return Err(Refusal::UnknownHost(host.clone()));
        }
        let in_use = |why: String| Err(Refusal::HostInUse(host.clone(), why));
        if !self.is_declared_dead(host) {
            return in_use("it was not declared dead".to_owned());
        }
        let index = self.store.index();
        if let Some(vm) = index.vms_of_host(host).next() {
            return in_use(format!("it owns VM {vm}; forget that first, or start it elsewhere"));
        }
        let moves = index.reaching(host).chain(index.queued_from(host));
        if let Some(id) = self.active_on(host).into_iter().chain(moves).next() {
            return in_use(format!("it takes part in {id}"));
        }
        self.begin(now);
        self.store.remove_host(host);
        self.ownership.silent_since.remove(host);
        self.ownership.refused_installations.remove(host);
        self.view.touch_host(host);
        self.note(false, format!("{host} was forgotten"));
        self.outbox.publish = true;
        self.finish(out);
        Ok(())
    }

    /// Forgets a VM whose QEMU is gone, and lets its host remove what is left of it.
    ///
    /// # Errors
    /// If it is not known, moves, may run, or has a copy left that could; then nothing happens.
    pub fn forget_vm(
        &mut self,
        name: &VmName,
        now: Moment,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let record = self.store.vms().get(name).ok_or_else(|| Refusal::UnknownVm(name.clone()))?;
        if let Some(migration) = self.move_of(name) {
            return Err(Refusal::VmBusy { vm: name.clone(), migration });
        }
        let owner = record.owner.clone();
        let connected = self.ownership.agents.contains_key(&owner);
        if !connected && !self.is_declared_dead(&owner) {
            return Err(Refusal::Disconnected(owner));
        }
        // Also a copy that stopped elsewhere could still go on, and would be of no VM any more.
        let copy = self.has_copy(name);
        if let Some(host) = copy.or((record.standing != Standing::Stable).then_some(owner.clone()))
        {
            return Err(Refusal::VmMayRun(name.clone(), host));
        }
        if let Some(host) = self.silent_end(name) {
            return Err(Refusal::Disconnected(host));
        }
        self.begin(now);
        self.store.remove_vm(name);
        self.look_at_vm(name);
        self.tell(&owner, Order::ForgetVm(name.clone()));
        self.free_room(&owner);
        self.note(false, format!("VM {name} was forgotten"));
        self.outbox.publish = true;
        self.finish(out);
        Ok(())
    }

    /// A host of the move that lost a VM, if it is silent: it may have a copy that could go on.
    fn silent_end(&self, name: &VmName) -> Option<HostName> {
        let lost = self.loss_of(name)?;
        let mut ends = [&lost.source, &lost.target].into_iter();
        let silent = |host: &&HostName| {
            !self.ownership.agents.contains_key(host) && !self.is_declared_dead(host)
        };
        ends.find(silent).cloned()
    }

    /// A host whose copy of a VM could go on.
    fn has_copy(&self, name: &VmName) -> Option<HostName> {
        let goes_on = |vm: &VmReport| vm.run_state != RunState::Dead;
        let mut agents = self.ownership.agents.iter();
        let found = agents.find(|(_, agent)| agent.vms.get(name).is_some_and(goes_on));
        found.map(|(host, _)| host.clone())
    }
}
