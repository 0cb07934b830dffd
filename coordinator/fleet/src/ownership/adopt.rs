//! What a host lists beyond the migrations it takes part in: new VMs, VMs that are gone, leftovers.

use crate::{
    End, Fleet, HostName, MigrationId, MigrationRecord, Order, Record, RunState, Stage, Standing,
    VmName, VmRecord, VmReport,
};

impl Fleet {
    /// Sets right what no migration in flight takes care of.
    pub(crate) fn sweep(&mut self, host: &HostName, hello: bool) {
        let Some(agent) = self.ownership.agents.get(host) else { return };
        let listed = agent.vms.clone();
        let strays_before: Vec<VmName> = self
            .ownership
            .astray
            .iter()
            .filter(|(_, at)| *at == host)
            .map(|(vm, _)| vm.clone())
            .collect();
        self.ownership.astray.retain(|_, at| at != host);
        for vm in listed.values() {
            // What runs astray is no word that came late.
            let is_news = hello || strays_before.contains(&vm.name);
            self.sweep_vm(host, vm, hello, is_news);
        }
        for vm in self.ownership.astray.keys().filter(|vm| !strays_before.contains(vm)) {
            let text = format!("VM {vm} runs on {host}, which does not own it");
            self.outbox.notices.push(crate::Notice { urgent: true, text });
        }
        self.forget_gone(host);
    }

    fn sweep_vm(&mut self, host: &HostName, vm: &VmReport, hello: bool, is_news: bool) {
        let moved_by = self.migration_of(host, vm);
        match vm.run_state {
            RunState::Unknown => {}
            RunState::Dead if vm.destroyed && vm.migration.is_none() => {
                self.sweep_destroyed(host, vm);
            }
            RunState::Dead => match moved_by.filter(|_| vm.migration.is_some()) {
                Some(migration) => self.sweep_dead(host, vm, &migration),
                None => self.sweep_forgotten(host, vm),
            },
            RunState::Incoming | RunState::Loaded => match moved_by {
                Some(migration) => self.sweep_copy(host, &migration),
                None => self.sweep_forgotten(host, vm),
            },
            RunState::MovedOut => match moved_by {
                Some(migration) => self.sweep_moved_out(host, &migration),
                None => self.sweep_forgotten(host, vm),
            },
            RunState::Running | RunState::Paused => {
                if hello {
                    self.cancel_what_is_over(host, vm, moved_by.as_ref());
                }
                self.sweep_running(host, vm, moved_by, is_news);
            }
        }
    }

    /// A copy of a move that is no longer remembered: the record of its VM alone says what becomes of it.
    fn sweep_forgotten(&mut self, host: &HostName, vm: &VmReport) {
        let Some(id) = vm.migration else { return };
        let Some(record) = self.store.vms().get(&vm.name) else {
            // Of a VM that has ended, too. What has arrived whole is left to a person.
            if vm.run_state == RunState::Incoming {
                self.tell(host, Order::DiscardTarget(id, "it is over".to_owned()));
            }
            return;
        };
        let (owns, generation) = (record.owner == *host, record.generation);
        let stable = record.standing == Standing::Stable;
        // It never ran, or died, and the VM is another host's. On which side of its move it was is not known any more.
        let useless =
            matches!(vm.run_state, RunState::Incoming | RunState::Loaded | RunState::Dead);
        if !owns && useless {
            self.tell(host, Order::DiscardTarget(id, "it is over".to_owned()));
        }
        // Stopped memory is of no use any more once the VM runs where it belongs.
        let outrun = stable && vm.run_state == RunState::MovedOut && self.runs_at_owner(&vm.name);
        if !owns && (outrun || vm.run_state == RunState::Dead) {
            self.tell(host, Order::ReleaseSource { migration: id, generation, resume: false });
        }
        if !owns || !stable {
            return;
        }
        match vm.run_state {
            RunState::MovedOut => {
                if planted!(self, OnlyCopyStranded) {
                    return;
                }
                let order = Order::ReleaseSource { migration: id, generation, resume: true };
                self.tell(host, order);
            }
            RunState::Dead if vm.may_have_run => self.tell(host, Order::KeepDead(id, generation)),
            _ => {}
        }
    }

    /// The migration by which a host came to have a copy in this state.
    fn migration_of(&self, host: &HostName, vm: &VmReport) -> Option<MigrationRecord> {
        if let Some(id) = vm.migration {
            let found = self.store.migrations().get(&id).filter(|found| found.vm == vm.name);
            return found.cloned();
        }
        let attempts = self.store.index().attempts_of_vm(&vm.name).rev();
        let mut attempts = attempts.filter_map(|id| self.store.migrations().get(&id));
        attempts.find(|one| one.source == *host || one.target == *host).cloned()
    }

    /// A copy that never ran. The log alone says whether it may.
    fn sweep_copy(&mut self, host: &HostName, migration: &MigrationRecord) {
        if migration.target != *host || migration.is_ordered() {
            return;
        }
        let owns = self.store.vms().get(&migration.vm).is_some_and(|vm| {
            vm.owner == *host
                && vm.generation == migration.generation
                && vm.standing == Standing::Stable
        });
        if owns {
            self.tell(host, Order::ResumeTarget(migration.id, migration.generation));
        } else {
            if planted!(self, LeavesCopies) {
                return;
            }
            self.tell(host, Order::DiscardTarget(migration.id, "it is over".to_owned()));
        }
    }

    /// What is left of a copy that died in a move, or after it. As long as it is there its name is taken, so the VM
    /// could not come to this host.
    fn sweep_dead(&mut self, host: &HostName, vm: &VmReport, migration: &MigrationRecord) {
        let record = self.store.vms().get(&migration.vm);
        let owns = record.is_none_or(|vm| vm.owner == *host);
        if owns && vm.may_have_run && !migration.is_active() {
            let generation = record.map_or(migration.generation, |record| record.generation);
            return self.tell(host, Order::KeepDead(migration.id, generation));
        }
        if owns || migration.is_ordered() {
            return;
        }
        if migration.target == *host {
            self.tell(host, Order::DiscardTarget(migration.id, "it is over".to_owned()));
        } else if migration.source == *host {
            self.release(migration, host, false);
        }
    }

    /// The host's operator has ended it. A migration of it is settled by that first; then neither its record nor the
    /// host's word that it was there is needed any more.
    fn sweep_destroyed(&mut self, host: &HostName, vm: &VmReport) {
        if self.expected(host, &vm.name) || self.leaves(host, &vm.name) {
            return;
        }
        let record = self.store.vms().get(&vm.name);
        if record.is_some_and(|vm| vm.owner == *host && vm.standing == Standing::Stable) {
            self.store.remove_vm(&vm.name);
            self.look_at_vm(&vm.name);
            self.free_room(host);
            self.note(false, format!("VM {} was ended on {host} by its operator", vm.name));
        }
        self.tell(host, Order::ForgetVm(vm.name.clone()));
    }

    fn leaves(&self, host: &HostName, vm: &VmName) -> bool {
        let active = self.active_on(host).into_iter();
        let mut active = active.filter_map(|id| self.store.migrations().get(&id));
        active.any(|one| one.source == *host && one.vm == *vm)
    }

    /// A copy that cannot run by itself any more.
    fn sweep_moved_out(&mut self, host: &HostName, migration: &MigrationRecord) {
        if migration.source != *host || migration.is_ordered() {
            return;
        }
        let resume = self.stays_with(host, &migration.vm);
        let moved =
            matches!(migration.stage, Stage::Settling | Stage::Ended { end: End::Moved, .. });
        // Its memory is of no use any more once the VM was started again where it died.
        let lost = matches!(migration.stage, Stage::Ended { end: End::Lost | End::Ended, .. });
        if resume || moved || (lost && self.runs_at_owner(&migration.vm)) {
            self.release(migration, host, resume);
        }
    }

    pub(crate) fn runs_at_owner(&self, vm: &VmName) -> bool {
        let Some(record) = self.store.vms().get(vm) else { return false };
        let listed = self.listed_vm(&record.owner, vm);
        listed.is_some_and(|vm| matches!(vm.run_state, RunState::Running | RunState::Paused))
    }

    fn sweep_running(
        &mut self,
        host: &HostName,
        vm: &VmReport,
        moved_by: Option<MigrationRecord>,
        is_news: bool,
    ) {
        let Some(record) = self.store.vms().get(&vm.name).cloned() else {
            return self.adopt(host, vm);
        };
        // A word from before the switchover, late.
        let late = |one: &MigrationRecord| {
            vm.migration == Some(one.id) && one.target == record.owner && !is_news
        };
        if moved_by.as_ref().is_some_and(late) {
            return;
        }
        if record.owner == *host {
            self.register_spec(vm);
            if record.memory_bytes != vm.memory_bytes {
                self.store.change_vm(&vm.name, |record| record.memory_bytes = vm.memory_bytes);
            }
            return;
        }
        let takes_part = self.active_on(host).into_iter().any(|id| self.moves(id, &vm.name));
        if !takes_part {
            self.running_elsewhere(host, &record);
        }
    }

    /// A new stream's source that counts its VM to a migration which is over, or not known.
    fn cancel_what_is_over(
        &mut self,
        host: &HostName,
        vm: &VmReport,
        moved_by: Option<&MigrationRecord>,
    ) {
        // A log that began anew without its VM knows nothing of it, and its source must not go on for ever.
        if let Some(id) = vm.migration
            && moved_by.is_none()
            && !self.store.vms().contains_key(&vm.name)
        {
            return self.tell(host, Order::Cancel(id, "no coordinator knows of it".to_owned()));
        }
        let ours = moved_by.filter(|one| vm.migration == Some(one.id) && one.source == *host);
        if let Some(migration) = ours.filter(|one| !one.is_active())
            && self.store.vms().contains_key(&vm.name)
        {
            self.tell(host, Order::Cancel(migration.id, "it is over".to_owned()));
        }
    }

    fn moves(&self, id: MigrationId, vm: &VmName) -> bool {
        self.store.migrations().get(&id).is_some_and(|migration| migration.vm == *vm)
    }

    /// An operator started a VM by hand on another host. If its owner says it has none, the VM has moved.
    fn running_elsewhere(&mut self, host: &HostName, record: &VmRecord) {
        let owner_has_none = self.is_declared_dead(&record.owner)
            || self.ownership.agents.get(&record.owner).is_some_and(|agent| {
                agent.vms.get(&record.name).is_none_or(|vm| vm.run_state == RunState::Dead)
            });
        if owner_has_none && record.standing == Standing::Stable {
            let generation = self.store.next();
            self.note(false, format!("VM {} is now on {host}", record.name));
            self.store.change_vm(&record.name, |vm| {
                vm.owner = host.clone();
                vm.generation = generation;
            });
            self.look_at_vm(&record.name);
            self.free_room(&record.owner);
        } else {
            self.ownership.astray.insert(record.name.clone(), host.clone());
        }
    }

    fn adopt(&mut self, host: &HostName, vm: &VmReport) {
        let record = VmRecord {
            name: vm.name.clone(),
            memory_bytes: vm.memory_bytes,
            owner: host.clone(),
            generation: self.store.next(),
            standing: Standing::Stable,
            spec: None,
        };
        self.store.put(Record::Vm(record));
        self.register_spec(vm);
    }

    /// VMs this host owns and lists no more have ended.
    fn forget_gone(&mut self, host: &HostName) {
        let Some(agent) = self.ownership.agents.get(host) else { return };
        let gone: Vec<VmName> = self
            .store
            .index()
            .vms_of_host(host)
            .filter_map(|vm| self.store.vms().get(vm))
            .filter(|vm| vm.standing == Standing::Stable)
            .filter(|vm| !agent.vms.contains_key(&vm.name))
            // Its disks may be somewhere: a person forgets it, or starts it again.
            .filter(|vm| !self.store.lost(host, vm.generation))
            .filter(|vm| !self.expected(host, &vm.name))
            .map(|vm| vm.name.clone())
            .collect();
        for name in gone {
            self.store.remove_vm(&name);
            self.look_at_vm(&name);
            self.free_room(host);
            self.note(false, format!("VM {name} is gone from {host}"));
        }
    }

    /// It has just come to this host, whose list is older.
    fn expected(&self, host: &HostName, vm: &VmName) -> bool {
        self.active_on(host).into_iter().any(|id| {
            self.store
                .migrations()
                .get(&id)
                .is_some_and(|migration| migration.vm == *vm && migration.target == *host)
        })
    }
}
