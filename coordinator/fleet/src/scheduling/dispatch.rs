//! Starts queued moves as limits and memory allow. Only those are looked at whose blocker was released.

use crate::{
    End, EvacuationId, Fleet, HostName, MigrationId, MigrationRecord, RunState, Stage, Wait,
    WaitCode, links::Loads, ownership::POWERED_OFF, queue::Blocker,
};

/// Moves and targets looked at in one turn; the others come to theirs in the next.
const LOOKS: usize = 20_000;
/// Moves without a target that are looked at each second, whatever was released.
const ROTATED: usize = 4;

/// What is known for one pass over the queue.
struct Pass {
    under_way: u32,
    looks: usize,
    loads: Option<Loads>,
}

impl Fleet {
    /// Starts every queued move that may start, the oldest first; the others say why they wait.
    pub(crate) fn dispatch(&mut self) {
        self.scheduling.queue.release_until(self.now);
        self.scheduling.more = false;
        if !self.scheduling.queue.has_work() {
            return;
        }
        let mut pass = Pass { under_way: self.under_way(), looks: LOOKS, loads: None };
        while pass.looks > 0
            && let Some(id) = self.next_look(&mut pass)
        {
            self.look(id, None, &mut pass);
        }
        self.fill_freed_hosts(&mut pass);
        self.scheduling.queue.forget_empty();
        self.scheduling.more = pass.looks == 0;
    }

    /// The oldest move to look at: of those that must be, and of those whose blockers have room.
    fn next_look(&mut self, pass: &mut Pass) -> Option<MigrationId> {
        let mut next = self.scheduling.queue.ready();
        if self.is_full(pass) {
            return next;
        }
        for (oldest, blocker) in self.scheduling.queue.freed() {
            if next.is_some_and(|next| next < oldest) {
                continue;
            }
            if self.has_room(&blocker, pass) {
                next = Some(oldest);
            } else {
                self.scheduling.queue.is_full(&blocker);
            }
        }
        next
    }

    fn is_full(&self, pass: &Pass) -> bool {
        pass.under_way >= self.limits.moves_total
    }

    fn has_room(&mut self, blocker: &Blocker, pass: &mut Pass) -> bool {
        match blocker {
            Blocker::Leaving(host) => self.busy_from(host) < self.limits.outgoing_per_host,
            Blocker::Reaching(host) => self.busy_to(host) < self.limits.incoming_per_host,
            Blocker::Corridor(evacuation, from, to) => {
                let loads = pass.loads.get_or_insert_with(|| self.loads());
                self.link_room(*evacuation, from, to, loads).is_ok()
            }
            _ => true,
        }
    }

    /// Starts a move, perhaps towards a host that may take it now, or says why it waits.
    fn look(&mut self, id: MigrationId, towards: Option<&HostName>, pass: &mut Pass) {
        pass.looks = pass.looks.saturating_sub(1);
        let before = self.scheduling.queue.blocker(id).cloned();
        let Some(migration) = self.store.migrations().get(&id).cloned() else {
            return self.scheduling.queue.remove(id);
        };
        if migration.stage != Stage::Queued {
            return self.scheduling.queue.remove(id);
        }
        if let Some((end, gone)) = self.vm_gone(&migration) {
            return self.end(id, end, gone);
        }
        match self.may_start(&migration, towards, pass) {
            Ok(target) => {
                self.scheduling.queue.remove(id);
                pass.under_way += 1;
                if let Some(loads) = &mut pass.loads {
                    self.add_load(&migration, &target, loads);
                }
                self.prepare(id, target);
            }
            Err((wait, blocker)) => {
                if before.as_ref() == Some(&blocker) {
                    self.scheduling.queue.is_full(&blocker);
                }
                self.scheduling.queue.wait(id, migration.memory_bytes, blocker);
                self.show_wait(id, Some(wait));
            }
        }
    }

    pub(crate) fn show_wait(&mut self, id: MigrationId, wait: Option<Wait>) {
        if let Some(live) = self.live.get_mut(&id)
            && live.wait != wait
        {
            live.wait = wait;
            self.touch(id);
        }
    }

    /// Why a queued migration has nothing to move any more.
    fn vm_gone(&self, migration: &MigrationRecord) -> Option<(End, String)> {
        let lost = |why: String| Some((End::Lost, why));
        let Some(vm) = self.store.vms().get(&migration.vm) else {
            return lost("the VM has ended".to_owned());
        };
        if vm.owner != migration.source {
            return lost(format!("the VM is on {} now", vm.owner));
        }
        if self.is_declared_dead(&vm.owner) {
            return lost(format!("{} was declared dead", vm.owner));
        }
        match self.listed_vm(&vm.owner, &vm.name)? {
            vm if vm.run_state != RunState::Dead => None,
            vm if vm.powered_off => Some((End::Ended, POWERED_OFF.to_owned())),
            _ => lost("its QEMU died".to_owned()),
        }
    }

    /// The target to start towards, or why not yet.
    fn may_start(
        &mut self,
        migration: &MigrationRecord,
        towards: Option<&HostName>,
        pass: &mut Pass,
    ) -> Result<HostName, (Wait, Blocker)> {
        let source = &migration.source;
        if let Some(paused) = migration.evacuation.filter(|&id| self.is_paused(id)) {
            let (code, detail) = (WaitCode::EvacuationPaused, paused.to_string());
            return Err((Wait { code, detail, limit: 0, used: 0 }, Blocker::Paused(paused)));
        }
        if let Some((wait, until)) = self.backs_off(migration) {
            return Err((wait, Blocker::Until(until)));
        }
        let at_source = Blocker::Host(source.clone());
        if !self.ownership.agents().contains_key(source) {
            return Err((Wait::host(WaitCode::SourceDisconnected, source), at_source));
        }
        let runs = self.listed_vm(source, &migration.vm).map(|vm| vm.run_state);
        if runs != Some(RunState::Running) {
            return Err((Wait::host(WaitCode::VmNotRunning, source), at_source));
        }
        if self.is_full(pass) {
            let (limit, used) = (self.limits.moves_total, pass.under_way);
            let (code, detail) = (WaitCode::FleetBusy, String::new());
            return Err((Wait { code, detail, limit, used }, Blocker::Fleet));
        }
        let (limit, used) = (self.limits.outgoing_per_host, self.busy_from(source));
        if used >= limit {
            let wait = Wait::full(WaitCode::SourceBusy, source, limit, used);
            return Err((wait, Blocker::Leaving(source.clone())));
        }
        let target = &migration.target;
        let Err(wait) = self.may_reach(migration, target, pass) else { return Ok(target.clone()) };
        self.another_target(migration, wait, towards, pass)
    }

    fn may_reach(
        &mut self,
        migration: &MigrationRecord,
        target: &HostName,
        pass: &mut Pass,
    ) -> Result<(), Wait> {
        if self.is_declared_dead(target) {
            return Err(Wait::host(WaitCode::TargetCordoned, target));
        }
        let Some(agent) = self.ownership.agents().get(target) else {
            return Err(Wait::host(WaitCode::TargetDisconnected, target));
        };
        if self.is_cordoned(target) && !planted!(self, CordonOverlooked) {
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
        let used = self.busy_to(target);
        if used >= limit {
            return Err(Wait::full(WaitCode::TargetBusy, target, limit, used));
        }
        let (from, to) = (self.rack_of(&migration.source), self.rack_of(target));
        let loads = pass.loads.get_or_insert_with(|| self.loads());
        self.link_room(migration.evacuation, &from, &to, loads)
    }

    /// Another target for a VM of an evacuation whose target is gone, full or cordoned; else the reason stays, and what
    /// it is waited for.
    fn another_target(
        &mut self,
        migration: &MigrationRecord,
        wait: Wait,
        towards: Option<&HostName>,
        pass: &mut Pass,
    ) -> Result<HostName, (Wait, Blocker)> {
        let target = &migration.target;
        let (patient, blocker) = match wait.code {
            WaitCode::NoRoom | WaitCode::TargetCordoned | WaitCode::AntiAffinity => {
                (false, Blocker::Room(target.clone()))
            }
            WaitCode::TargetDisconnected => {
                let silent = self.silent_for(target);
                let patient =
                    silent.is_none_or(|silent| silent <= self.limits.host_silence_timeout_ns);
                (patient, Blocker::Host(target.clone()))
            }
            WaitCode::TargetBusy => (true, Blocker::Reaching(target.clone())),
            WaitCode::LinkFull => {
                let racks = (self.rack_of(&migration.source), self.rack_of(target));
                (true, Blocker::Corridor(migration.evacuation, racks.0, racks.1))
            }
            _ => (true, Blocker::Host(target.clone())),
        };
        let others = match migration.evacuation.filter(|_| !patient) {
            Some(evacuation) => self.target_hosts(evacuation),
            None => Vec::new(),
        };
        let (Some(evacuation), false) = (migration.evacuation, others.is_empty()) else {
            return Err((wait, blocker));
        };
        let looked_at = match towards {
            Some(host) => vec![host.clone()],
            None => others,
        };
        let mut open = Vec::new();
        for host in looked_at.into_iter().filter(|host| host != target) {
            pass.looks = pass.looks.saturating_sub(1);
            if self.may_reach(migration, &host, pass).is_ok() {
                open.push(host);
            }
        }
        let found = self.place_one(&migration.vm, migration.memory_bytes, &open);
        found.ok_or((wait, Blocker::Targets(evacuation)))
    }

    fn target_hosts(&self, evacuation: EvacuationId) -> Vec<HostName> {
        let record = self.store.evacuations().get(&evacuation);
        record.map(|record| record.target_hosts.clone()).unwrap_or_default()
    }

    /// Moves that found no target go to hosts that may take them now.
    fn fill_freed_hosts(&mut self, pass: &mut Pass) {
        while let Some(host) = self.scheduling.queue.take_freed_host() {
            for evacuation in self.scheduling.queue.without_targets() {
                let record = self.store.evacuations().get(&evacuation);
                if !record.is_some_and(|record| record.target_hosts.contains(&host)) {
                    continue;
                }
                for (id, memory) in self.scheduling.queue.list(&Blocker::Targets(evacuation)) {
                    if self.is_full(pass) || pass.looks == 0 {
                        return self.scheduling.queue.keep_freed_host(host);
                    }
                    let own = self.store.migrations().get(&id).is_some_and(|m| m.target == host);
                    let room = self.room_bytes(&host, own.then_some(id));
                    if room >= memory && self.busy_to(&host) < self.limits.incoming_per_host {
                        self.look(id, Some(&host), pass);
                    }
                }
            }
        }
    }
}

/// What releases moves that wait.
impl Fleet {
    /// A move is under way no more: what it took is free.
    pub(crate) fn free_ends(&mut self, source: &HostName, target: &HostName) {
        if planted!(self, ForgetsWaiting) {
            return;
        }
        self.scheduling.queue.free(Blocker::Fleet);
        self.scheduling.queue.free(Blocker::Leaving(source.clone()));
        self.scheduling.queue.free_corridors();
        self.free_room(target);
        self.scheduling.slots_due = true;
        self.scheduling.rates_due = true;
    }

    /// A host may take what it did not take before.
    pub(crate) fn free_room(&mut self, host: &HostName) {
        self.scheduling.queue.free(Blocker::Reaching(host.clone()));
        self.scheduling.queue.release(&Blocker::Room(host.clone()));
        self.scheduling.queue.free_host(host);
    }

    /// A host takes less than before: a move that waits for its turn there may have to go elsewhere.
    pub(crate) fn tighten(&mut self, host: &HostName) {
        for id in self.store.index().reaching(host).collect::<Vec<_>>() {
            let blocker = self.scheduling.queue.blocker(id);
            if matches!(blocker, Some(Blocker::Reaching(_) | Blocker::Corridor(..))) {
                self.scheduling.queue.look_again(id);
            }
        }
    }

    /// Queued moves that shall go to a host are looked at again: it takes none, or is away.
    pub(crate) fn look_at_reaching(&mut self, host: &HostName) {
        for id in self.store.index().reaching(host).collect::<Vec<_>>() {
            self.scheduling.queue.look_again(id);
        }
    }

    /// Queued moves of a VM are looked at again.
    pub(crate) fn look_at_vm(&mut self, vm: &crate::VmName) {
        for id in self.store.index().attempts_of_vm(vm).collect::<Vec<_>>() {
            self.scheduling.queue.look_again(id);
        }
    }

    /// Everything that waits is looked at again.
    pub(crate) fn look_at_all(&mut self) {
        for id in self.live.keys().copied().collect::<Vec<_>>() {
            self.scheduling.queue.look_again(id);
        }
    }

    /// Time has passed: the silence time-out of hosts may have.
    pub(crate) fn dispatch_tick(&mut self) {
        for host in self.scheduling.queue.hosts_waited_for() {
            let silent = self.silent_for(&host);
            if silent.is_some_and(|silent| silent > self.limits.host_silence_timeout_ns) {
                let migrations = self.store.migrations();
                let elsewhere = |id: MigrationId, _: u64| {
                    migrations
                        .get(&id)
                        .is_some_and(|one| one.evacuation.is_some() && one.target == host)
                };
                self.scheduling.queue.release_if(&Blocker::Host(host.clone()), elsewhere);
            }
        }
        self.scheduling.queue.free_corridors();
        self.scheduling.queue.rotate(ROTATED);
    }

    /// Queued moves that could start now and do not: a blocker was released and nothing was looked at. Those without a
    /// target are left out: they are looked at in turn. For tests.
    pub fn overlooked(&mut self) -> Vec<MigrationId> {
        if self.scheduling.more {
            return Vec::new();
        }
        let mut pass = Pass { under_way: self.under_way(), looks: LOOKS, loads: None };
        let waiting = self.live.keys().copied().filter(|&id| {
            self.scheduling.queue.blocker(id).is_some_and(|one| !matches!(one, Blocker::Targets(_)))
        });
        let waiting: Vec<MigrationId> = waiting.collect();
        let mut overlooked = Vec::new();
        for id in waiting {
            let Some(migration) = self.store.migrations().get(&id).cloned() else { continue };
            let gone = self.vm_gone(&migration).is_some();
            if gone || self.may_start(&migration, None, &mut pass).is_ok() {
                overlooked.push(id);
            }
        }
        overlooked
    }
}
