//! Starts queued migrations as limits and memory allow, and hands out switchover slots.

use crate::{
    End, EvacuationId, Fleet, HostName, Limits, MigrationId, MigrationRecord, Order, RunState,
    Stage, Standing, VmName, Wait, WaitCode,
    ownership::{Source, Target},
    placement::{Demand, Room},
    slots::{Full, Usage},
};

impl Fleet {
    /// Starts every queued migration that may start, oldest first; the others say why they wait.
    pub(crate) fn dispatch(&mut self) {
        let queued: Vec<MigrationId> = self
            .live
            .keys()
            .copied()
            .filter(|&id| self.stage(id) == Some(&Stage::Queued))
            .collect();
        for id in queued {
            let Some((migration, _)) = self.active(id) else { continue };
            if let Some(gone) = self.vm_gone(&migration) {
                self.end(id, End::Lost, gone);
                continue;
            }
            self.learn_routes(&migration);
            match self.may_start(&migration) {
                Ok(target) => self.prepare(id, target),
                Err(wait) => self.show_wait(id, Some(wait)),
            }
        }
    }

    /// Finds out what lies between a VM and every host it may go to.
    fn learn_routes(&mut self, migration: &MigrationRecord) {
        let evacuation = migration.evacuation.and_then(|id| self.store.evacuations().get(&id));
        let mut targets = evacuation.map(|known| known.target_hosts.clone()).unwrap_or_default();
        targets.push(migration.target.clone());
        for target in targets {
            self.learn_route(&migration.source, &target);
        }
    }

    fn show_wait(&mut self, id: MigrationId, wait: Option<Wait>) {
        if let Some(live) = self.live.get_mut(&id)
            && live.wait != wait
        {
            live.wait = wait;
            self.outbox.publish = true;
        }
    }

    /// Why a queued migration has nothing to move any more.
    fn vm_gone(&self, migration: &MigrationRecord) -> Option<String> {
        let Some(vm) = self.store.vms().get(&migration.vm) else {
            return Some("the VM has ended".to_owned());
        };
        if vm.owner != migration.source {
            return Some(format!("the VM is on {} now", vm.owner));
        }
        let dead = self.listed_vm(&vm.owner, &vm.name)?.run_state == RunState::Dead;
        dead.then(|| "its QEMU died".to_owned())
    }

    /// The target to start towards, or why not yet.
    fn may_start(&self, migration: &MigrationRecord) -> Result<HostName, Wait> {
        let source = &migration.source;
        if let Some(paused) = migration.evacuation.filter(|&id| self.is_paused(id)) {
            let used = self.busy(|other| other.evacuation == Some(paused));
            let (code, detail) = (WaitCode::EvacuationPaused, paused.to_string());
            return Err(Wait { code, detail, limit: 0, used });
        }
        if let Some(wait) = self.backs_off(migration) {
            return Err(wait);
        }
        if !self.agents.contains_key(source) {
            return Err(Wait::host(WaitCode::SourceDisconnected, source));
        }
        let runs = self.listed_vm(source, &migration.vm).map(|vm| vm.run_state);
        if runs != Some(RunState::Running) {
            return Err(Wait::host(WaitCode::VmNotRunning, source));
        }
        let limit = self.limits.moves_total;
        let used = self.busy(|_| true);
        if used >= limit {
            let detail = String::new();
            return Err(Wait { code: WaitCode::FleetBusy, detail, limit, used });
        }
        let limit = self.limits.outgoing_per_host;
        let used = self.busy(|other| other.source == *source);
        if used >= limit {
            return Err(Wait::full(WaitCode::SourceBusy, source, limit, used));
        }
        match self.may_reach(migration, &migration.target) {
            Ok(()) => Ok(migration.target.clone()),
            Err(wait) => self.another_target(migration, wait),
        }
    }

    fn may_reach(&self, migration: &MigrationRecord, target: &HostName) -> Result<(), Wait> {
        let Some(agent) = self.agents.get(target) else {
            return Err(Wait::host(WaitCode::TargetDisconnected, target));
        };
        #[cfg(feature = "planted-bugs")]
        let overlooked = self.has(crate::PlantedBug::CordonOverlooked);
        #[cfg(not(feature = "planted-bugs"))]
        let overlooked = false;
        if self.is_cordoned(target) && !overlooked {
            return Err(Wait::host(WaitCode::TargetCordoned, target));
        }
        let left = agent.vms.get(&migration.vm);
        if left.is_some_and(|vm| vm.run_state != RunState::Dead) {
            return Err(Wait::host(WaitCode::TargetDiscard, target));
        }
        if let Some(wait) = self.kept_apart(migration, target) {
            return Err(wait);
        }
        if self.room_bytes(target, Some(migration.id)) < migration.memory_bytes {
            return Err(Wait::host(WaitCode::NoRoom, target));
        }
        let limit = self.limits.incoming_per_host;
        let used = self.busy(|other| other.target == *target);
        if used >= limit {
            return Err(Wait::full(WaitCode::TargetBusy, target, limit, used));
        }
        self.link_room(migration, target)
    }

    /// Another target for a VM of an evacuation whose target is gone, full or cordoned; else the reason stays.
    fn another_target(&self, migration: &MigrationRecord, wait: Wait) -> Result<HostName, Wait> {
        let patient = match wait.code {
            WaitCode::NoRoom | WaitCode::TargetCordoned | WaitCode::AntiAffinity => false,
            WaitCode::TargetDisconnected => self
                .silent_for(&migration.target)
                .is_none_or(|silent| silent <= self.limits.patience_ns),
            _ => true,
        };
        let evacuation = migration.evacuation.and_then(|id| self.store.evacuations().get(&id));
        let Some(evacuation) = evacuation.filter(|_| !patient) else { return Err(wait) };
        let others: Vec<HostName> = evacuation
            .target_hosts
            .iter()
            .filter(|host| **host != migration.target)
            .filter(|host| self.may_reach(migration, host).is_ok())
            .cloned()
            .collect();
        self.place_one(&migration.vm, migration.memory_bytes, &others).ok_or(wait)
    }

    /// Moves under way that match, as far as their sources are connected: a silent host must not hold up
    /// the others.
    pub(crate) fn busy(&self, matches: impl Fn(&MigrationRecord) -> bool) -> u32 {
        let active = self.live.keys().filter_map(|id| self.store.migrations().get(id));
        active
            .filter(|other| other.is_ordered() && self.agents.contains_key(&other.source))
            .filter(|other| matches(other))
            .count() as u32
    }

    /// Memory a host can still take. Moves on their way to it are off, `except` one.
    pub(crate) fn free_bytes(&self, host: &HostName, except: Option<MigrationId>) -> u64 {
        let (Some(agent), Some(record)) = (self.agents.get(host), self.store.hosts().get(host))
        else {
            return 0;
        };
        let used: u64 = agent.vms.values().map(|vm| vm.memory_bytes).sum();
        let free = agent.memory_free_bytes.unwrap_or(record.memory_bytes.saturating_sub(used));
        let active = self.live.keys().filter_map(|id| self.store.migrations().get(id));
        // What the host lists, it has already taken off by itself.
        let reserved: u64 = active
            .filter(|other| other.target == *host && Some(other.id) != except)
            .filter(|other| !agent.vms.contains_key(&other.vm))
            .map(|other| other.memory_bytes)
            .sum();
        free.saturating_sub(reserved)
    }

    /// Connected hosts that take VMs, with what they can take.
    pub(crate) fn rooms(&self, hosts: &[HostName]) -> Vec<Room> {
        let connected = hosts.iter().filter(|host| self.agents.contains_key(*host));
        let connected = connected.filter(|host| !self.is_cordoned(host));
        let mut groups = self.groups_at_hosts();
        connected
            .map(|host| Room {
                host: host.clone(),
                free_bytes: self.room_bytes(host, None),
                groups: groups.remove(host).unwrap_or_default(),
            })
            .collect()
    }

    /// What a VM needs of a host.
    pub(crate) fn demand(&self, vm: &VmName, memory_bytes: u64) -> Demand {
        Demand { vm: vm.clone(), memory_bytes, group: self.group_of(vm).cloned() }
    }

    /// A place for one VM among hosts, if there is one.
    pub(crate) fn place_one(&self, vm: &VmName, need: u64, hosts: &[HostName]) -> Option<HostName> {
        let demand = self.demand(vm, need);
        self.placer.place(&[demand], &self.rooms(hosts)).ok()?.pop()
    }

    /// The crossing between two hosts' racks in an evacuation; a single move has its own.
    pub(crate) fn crossing(
        &mut self,
        evacuation: Option<EvacuationId>,
        source: &HostName,
        target: &HostName,
    ) -> crate::Crossing {
        let rack = |host: &HostName| self.store.hosts().get(host).map(|host| host.rack.clone());
        let racks = (rack(source), rack(target));
        let same = self.store.migrations().values().find(|other| {
            evacuation.is_some()
                && other.evacuation == evacuation
                && (rack(&other.source), rack(&other.target)) == racks
        });
        same.map(|other| other.crossing).unwrap_or_else(|| self.store.next())
    }

    /// Reserves the VM for a target and tells that to prepare.
    fn prepare(&mut self, id: MigrationId, target: HostName) {
        let (Some(target_boot), Some((migration, _))) = (self.boot_of(&target), self.active(id))
        else {
            return;
        };
        let crossing = if target == migration.target {
            migration.crossing
        } else {
            self.crossing(migration.evacuation, &migration.source, &target)
        };
        let generation = self.store.next();
        let now = self.now;
        if let Some(record) = self.store.migration_mut(id) {
            record.target = target;
            record.crossing = crossing;
            record.generation = generation;
            record.stage = Stage::Preparing { target_boot };
            record.started = Some(now);
        }
        if let Some(vm) = self.store.vm_mut(&migration.vm) {
            vm.standing = Standing::Moving(id);
        }
        if let Some(live) = self.live.get_mut(&id) {
            live.source = Source::Runs;
        }
        self.show_wait(id, None);
        self.order_prepare(id);
    }

    /// Tells the target again what it may not have heard, or may have forgotten.
    pub(crate) fn repeat_prepare(&mut self, id: MigrationId) {
        let Some((migration, _)) = self.active(id) else { return };
        let Stage::Preparing { target_boot } = &migration.stage else { return };
        let Some(boot) = self.boot_of(&migration.target) else { return };
        if boot != *target_boot
            && let Some(record) = self.store.migration_mut(id)
        {
            record.stage = Stage::Preparing { target_boot: boot };
        }
        self.order_prepare(id);
    }

    fn order_prepare(&mut self, id: MigrationId) {
        let Some((migration, _)) = self.active(id) else { return };
        let Some(vm) = self.listed_vm(&migration.source, &migration.vm) else { return };
        let order = Order::PrepareTarget {
            migration: id,
            vm: migration.vm,
            generation: migration.generation,
            spec_toml: vm.spec_toml.clone(),
            memory_bytes: migration.memory_bytes,
            options: migration.options,
        };
        self.tell(&migration.target, order);
    }

    /// Tells the source to start, once the target waits and the source is there.
    pub(crate) fn start_source(&mut self, id: MigrationId) {
        let Some((migration, live)) = self.active(id) else { return };
        let Stage::Preparing { target_boot } = migration.stage else { return };
        if !live.ready || live.source != Source::Runs || live.target != Target::Paused {
            return;
        }
        let (Some(source_boot), Some(target)) =
            (self.boot_of(&migration.source), self.member(&migration.target))
        else {
            return;
        };
        if let Some(live) = self.live.get_mut(&id) {
            live.source = Source::Moving;
            live.acknowledged = false;
        }
        if let Some(record) = self.store.migration_mut(id) {
            record.stage = Stage::Started { source_boot, target_boot };
        }
        let rate = self.first_rate(id);
        let order = Order::StartSource {
            migration: id,
            vm: migration.vm,
            generation: migration.generation,
            crossing: migration.crossing,
            target,
            options: migration.options,
            rate,
        };
        self.tell(&migration.source, order);
    }

    /// Gives free slots to those who wait, first come first served.
    pub(crate) fn grant_slots(&mut self) {
        let waiting: Vec<MigrationId> = self.slots.waiting().collect();
        for id in waiting {
            let Some((migration, _)) = self.active(id) else { continue };
            // It would not hear of it, and when it is back its slot may be another's.
            if !self.agents.contains_key(&migration.source) {
                continue;
            }
            let room = self.slot_usage().room(&migration.source, &migration.target);
            #[cfg(feature = "planted-bugs")]
            let room = room.or_else(|full| {
                if self.has(crate::PlantedBug::SlotsForAll) { Ok(()) } else { Err(full) }
            });
            match room {
                Ok(()) => {
                    self.slots.seize(id);
                    self.show_wait(id, None);
                    self.tell(&migration.source, Order::SwitchoverGrant(id));
                    self.outbox.publish = true;
                }
                Err((Full { limit, used }, host)) => {
                    let detail = host.map_or_else(|| "all hosts".to_owned(), |h| h.to_string());
                    let code = WaitCode::SwitchoverSlot;
                    self.show_wait(id, Some(Wait { code, detail, limit, used }));
                }
            }
        }
    }

    /// Slots in use; one whose source is silent cannot switch and does not count.
    fn slot_usage(&self) -> Usage<HostName> {
        let Limits { switchovers_total, switchovers_per_host, .. } = self.limits;
        let mut usage = Usage::new(switchovers_total, switchovers_per_host);
        let held = self.slots.held().filter_map(|id| self.store.migrations().get(&id));
        for holder in held.filter(|holder| self.agents.contains_key(&holder.source)) {
            usage.count(&holder.source, &holder.target);
        }
        usage
    }
}
