//! Agents come, go and list what they have.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    Action, BootId, Connection, Fleet, Hello, HostName, HostRecord, Member, MigrationId, Moment,
    Order, Progress, RackName, Record, RunState, Stage, VmName, VmReport,
    ownership::{Source, Target},
};

/// A connected agent.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) connection: Connection,
    pub(crate) boot: BootId,
    pub(crate) page_addr: String,
    pub(crate) version: String,
    /// None until it says so.
    pub(crate) memory_free_bytes: Option<u64>,
    pub(crate) vms: Arc<BTreeMap<VmName, VmReport>>,
    connected: Moment,
    /// When VMs came to do what they do, as far as that was later.
    changed: BTreeMap<VmName, Moment>,
}

impl Agent {
    /// A VM does what it does at least since then.
    pub(crate) fn state_since(&self, vm: &VmName) -> Moment {
        self.changed.get(vm).copied().unwrap_or(self.connected)
    }
}

/// Connected agents, by host and by connection.
#[derive(Debug, Default)]
pub(crate) struct Agents {
    by_host: BTreeMap<HostName, Agent>,
    hosts: BTreeMap<Connection, HostName>,
}

impl Agents {
    pub(crate) fn get(&self, host: &HostName) -> Option<&Agent> {
        self.by_host.get(host)
    }

    pub(crate) fn contains_key(&self, host: &HostName) -> bool {
        self.by_host.contains_key(host)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&HostName, &Agent)> {
        self.by_host.iter()
    }

    /// The host whose latest connection this is.
    pub(crate) fn host_of(&self, connection: Connection) -> Option<&HostName> {
        self.hosts.get(&connection)
    }

    /// An agent takes the place of the one that its host had.
    fn insert(&mut self, host: HostName, agent: Agent) {
        self.remove(&host);
        self.hosts.insert(agent.connection, host.clone());
        self.by_host.insert(host, agent);
    }

    fn remove(&mut self, host: &HostName) {
        if let Some(agent) = self.by_host.remove(host) {
            self.hosts.remove(&agent.connection);
        }
    }

    fn get_mut(&mut self, host: &HostName) -> Option<&mut Agent> {
        self.by_host.get_mut(host)
    }

    /// The guest of a VM has powered itself off at this host; the host's list says so with its next report only.
    pub(crate) fn powered_off(&mut self, host: &HostName, vm: &VmName, now: Moment) {
        let Some(agent) = self.by_host.get_mut(host) else { return };
        if let Some(copy) = Arc::make_mut(&mut agent.vms).get_mut(vm) {
            copy.run_state = RunState::Dead;
            copy.powered_off = true;
            agent.changed.insert(vm.clone(), now);
        }
    }

    /// The copy that a migration brought to a host runs; the host's list says so with its next report only.
    pub(crate) fn copy_runs(
        &mut self,
        host: &HostName,
        vm: &VmName,
        migration: MigrationId,
        now: Moment,
    ) {
        let waits = |copy: &VmReport| {
            copy.migration == Some(migration)
                && matches!(copy.run_state, RunState::Incoming | RunState::Loaded)
        };
        let Some(agent) = self.by_host.get_mut(host) else { return };
        if agent.vms.get(vm).is_some_and(waits)
            && let Some(copy) = Arc::make_mut(&mut agent.vms).get_mut(vm)
        {
            copy.run_state = RunState::Running;
            agent.changed.insert(vm.clone(), now);
        }
    }

    /// A host has this copy no more, and its memory is free: its next list says the same.
    pub(crate) fn forget_copy(&mut self, host: &HostName, vm: &VmName) {
        let Some(agent) = self.by_host.get_mut(host) else { return };
        let Some(copy) = Arc::make_mut(&mut agent.vms).remove(vm) else { return };
        if let Some(free) = &mut agent.memory_free_bytes
            && copy.run_state != RunState::Dead
        {
            *free = free.saturating_add(copy.memory_bytes);
        }
    }
}

impl Fleet {
    pub(crate) fn connected(&mut self, connection: Connection, hello: Hello) {
        let Hello { host, rack, page_addr, memory_bytes, agent_version, boot, installation, vms } =
            hello;
        let before = self.store.hosts().get(&host).cloned();
        let mut record = before.clone().unwrap_or_else(|| {
            HostRecord::new(host.clone(), self.store.next(), rack.clone(), memory_bytes)
        });
        record.rack = rack.clone();
        record.memory_bytes = memory_bytes;
        record.installation = installation.or(record.installation);
        record.declared_dead = false;
        if before.as_ref().is_some_and(|before| before.declared_dead) {
            self.happened(
                Action::InstallationAdmitted,
                host.as_str(),
                "the host was declared dead",
            );
        }
        let id = record.id;
        if before.as_ref() != Some(&record) {
            self.store.put(Record::Host(record));
        }
        // Whatever was known of it came through a stream that is void now.
        self.forget_words(&host);
        self.ownership.silent_since.remove(&host);
        let agent = Agent {
            connection,
            boot,
            page_addr,
            version: agent_version,
            memory_free_bytes: None,
            vms: by_name(vms),
            connected: self.now,
            changed: BTreeMap::new(),
        };
        self.ownership.agents.insert(host.clone(), agent);
        self.tell(&host, Order::Welcome(id));
        self.ownership.racks_due.extend(before.map(|old| old.rack));
        self.ownership.racks_due.insert(rack);
        self.listed(&host, true);
        self.free_room(&host);
        // It may have come back with less.
        self.tighten(&host);
    }

    pub(crate) fn disconnected(&mut self, connection: Connection) {
        let Some(host) = self.ownership.agents.host_of(connection).cloned() else { return };
        self.ownership.agents.remove(&host);
        self.ownership.silent_since.insert(host.clone(), self.now);
        self.forget_words(&host);
        self.ownership.astray.retain(|_, at| *at != host);
        self.ownership
            .racks_due
            .extend(self.store.hosts().get(&host).map(|record| record.rack.clone()));
        for id in self.active_on(&host) {
            self.reconcile(id);
        }
        self.unpublish_host(&host);
        // Its moves hold up no others while it is silent.
        for id in self.store.index().begun_from(&host).collect::<Vec<_>>() {
            if let Some(target) = self.store.migrations().get(&id).map(|one| one.target.clone()) {
                self.free_ends(&host, &target);
            }
        }
        for id in self.store.index().queued_from(&host).collect::<Vec<_>>() {
            self.scheduling.look_again(id);
        }
        self.look_at_reaching(&host);
        self.scheduling.review();
        self.outbox.publish = true;
    }

    pub(crate) fn report(&mut self, host: &HostName, free: u64, vms: Vec<VmReport>) {
        let Some(agent) = self.ownership.agents.get_mut(host) else { return };
        // Without a figure before, it may be more or less than what was reckoned.
        let (less, more) = match agent.memory_free_bytes.replace(free) {
            Some(known) => (free < known, free > known),
            None => (true, true),
        };
        let before = std::mem::replace(&mut agent.vms, by_name(vms));
        let fewer = before.keys().any(|vm| !agent.vms.contains_key(vm));
        let fuller = agent.vms.keys().any(|vm| !before.contains_key(vm));
        let differ = |(name, vm): &(&VmName, &VmReport)| before.get(*name) != Some(*vm);
        let changed = agent.vms.iter().filter(differ).map(|(name, _)| name);
        let gone = before.keys().filter(|vm| !agent.vms.contains_key(*vm));
        for vm in changed.chain(gone) {
            self.view.touch_vm(vm);
            let state = |vms: &BTreeMap<VmName, VmReport>| vms.get(vm).map(|vm| vm.run_state);
            if state(&before) != state(&agent.vms) {
                agent.changed.insert(vm.clone(), self.now);
            }
        }
        let vms = self.store.vms();
        agent.changed.retain(|vm, _| agent.vms.contains_key(vm) || vms.contains_key(vm));
        self.listed(host, false);
        // What it lists now is reserved no more: it may have been taken off twice before.
        if fewer || more || fuller {
            self.free_room(host);
        }
        if fuller || less {
            self.tighten(host);
        }
    }

    pub(crate) fn tick(&mut self) {
        self.audit_tick();
        self.attest_for_dead_hosts();
        for id in self.store.index().begun().collect::<Vec<_>>() {
            self.give_up_silent(id);
            self.miss_ready(id);
        }
        self.watch_deadlines();
        self.dispatch_tick();
        self.scheduling.review();
    }

    /// A target that lists its copy and has not said that it is ready: its word may be lost, for a full outbox drops
    /// words. It says it again when it is asked again.
    fn miss_ready(&mut self, id: MigrationId) {
        let live = self.live.get(&id);
        if live.is_some_and(|live| live.target == Target::Paused && !live.ready) {
            self.repeat_prepare(id);
        }
    }

    /// Everything that follows from a host's complete list.
    fn listed(&mut self, host: &HostName, hello: bool) {
        for id in self.active_on(host) {
            self.hear_list(id, host, hello);
            self.reconcile(id);
        }
        self.sweep(host, hello);
        self.view.touch_host(host);
        self.touch_moves(host);
        if hello {
            self.unpublish_host(host);
        }
        self.scheduling.release_host(host);
        for id in self.store.index().queued_from(host).collect::<Vec<_>>() {
            let vm = self.store.migrations().get(&id).and_then(|one| self.listed_vm(host, &one.vm));
            if vm.is_none_or(|vm| vm.run_state != RunState::Running) {
                self.scheduling.look_again(id);
            }
        }
        // Moves of a source that was silent count again, and slots are given to those that are heard.
        if hello {
            self.scheduling.review();
        }
        self.outbox.publish = true;
    }

    /// What is shown of moves that a host takes part in may have changed.
    fn touch_moves(&mut self, host: &HostName) {
        for id in self.active_on(host) {
            self.view.touch_migration(id);
        }
    }

    /// Tells agents of their neighbours where these have changed.
    pub(crate) fn show_racks(&mut self) {
        for host in self.store.take_receivers_changed() {
            let rack = self.store.hosts().get(&host).map(|record| record.rack.clone());
            self.ownership.racks_due.extend(rack);
        }
        let due = std::mem::take(&mut self.ownership.racks_due);
        if due.is_empty() {
            return;
        }
        for rack in due {
            self.show_rack(&rack);
        }
        // The neighbours of a target are told that it receives before it is told to prepare.
        self.outbox.orders.sort_by_key(|(_, order)| match order {
            Order::Welcome(_) => 0,
            Order::RackView { .. } => 1,
            _ => 2,
        });
    }

    /// Tells every agent of a rack which neighbours it has, which of them VMs are on their way to, and what they still
    /// claim for.
    fn show_rack(&mut self, rack: &RackName) {
        let hosts = self.store.index().hosts_of_rack(rack);
        let members: Vec<Member> = hosts.filter_map(|host| self.member(host)).collect();
        if members.is_empty() {
            return;
        }
        let epoch = self.store.next_epoch();
        let open: Vec<_> = self.store.index().open_crossings().collect();
        for member in &members {
            let (members, open) = (members.clone(), open.clone());
            let order = Order::RackView { epoch, members, open };
            self.tell(&member.host, order);
        }
    }

    /// A host as others are told of it, if its agent is connected.
    pub(crate) fn member(&self, host: &HostName) -> Option<Member> {
        let record = self.store.hosts().get(host)?;
        let agent = self.ownership.agents.get(host)?;
        let receives = self.store.index().begun_to(host).next().is_some();
        let page_addr = agent.page_addr.clone();
        Some(Member { id: record.id, host: host.clone(), page_addr, receives })
    }

    /// Active migrations a host takes part in, and was told of.
    pub(crate) fn active_on(&self, host: &HostName) -> Vec<MigrationId> {
        let index = self.store.index();
        let mut active: Vec<MigrationId> =
            index.begun_from(host).chain(index.begun_to(host)).collect();
        active.sort_unstable();
        active
    }

    /// What a host attested came through a stream that is gone.
    fn forget_words(&mut self, host: &HostName) {
        for id in self.active_on(host) {
            let Some(migration) = self.store.migrations().get(&id) else { continue };
            let Some(live) = self.live.get_mut(&id) else { continue };
            if migration.source == *host {
                live.source = Source::Unknown;
                live.call_off.forget_told();
                live.told = None;
                live.force_told = false;
                live.progress = Progress {
                    dirty_bytes_per_second: 0,
                    send_bytes_per_second: 0,
                    ..live.progress
                };
            }
            if migration.target == *host {
                live.target = Target::Unknown;
                live.ready = false;
            }
        }
    }

    /// Reduces a host's list to its word on one migration.
    fn hear_list(&mut self, id: MigrationId, host: &HostName, hello: bool) {
        let died_is_gone = planted!(self, DiedIsGone);
        let Some(migration) = self.store.migrations().get(&id) else { return };
        let Some(agent) = self.ownership.agents.get(host) else { return };
        let lost = self.store.lost(host, migration.generation);
        let Some(live) = self.live.get_mut(&id) else { return };
        let listed = agent.vms.get(&migration.vm);
        // Of one at the target that is not this migration's, nothing is said here.
        let counts = |vm: &&VmReport| migration.source == *host || vm.migration == Some(id);
        live.powered_off |= listed.filter(counts).is_some_and(|vm| vm.powered_off);
        if migration.source == *host {
            let (session, settling) = match &migration.stage {
                Stage::Started { source_boot, .. } => (Some(source_boot), false),
                stage => (None, *stage == Stage::Settling),
            };
            let alive = (settling || session == Some(&agent.boot))
                && listed.is_some_and(|vm| vm.migration == Some(id));
            if alive {
                live.session.hear();
            }
            // A list from before the order to start must not look like the end of the session. An agent
            // that was restarted since never had the order.
            let conclusive = hello || live.session.is_heard() || session != Some(&agent.boot);
            if let Some(word) = source_word(listed, alive, conclusive) {
                live.source = word;
            }
        } else {
            let ours = listed.filter(|vm| vm.migration.is_none_or(|other| other == id));
            let (boot, conclusive) = match &migration.stage {
                Stage::Preparing { target_boot } => (Some(target_boot), live.ready),
                Stage::Started { target_boot, .. } => (Some(target_boot), true),
                _ => (None, true),
            };
            let word = target_word(ours, boot == Some(&agent.boot), conclusive);
            // An installation that is dead may have run it.
            let word = match word {
                Some(Target::Gone) if listed.is_none() && lost => Some(Target::Died),
                word => word,
            };
            if let Some(word) = word {
                live.target =
                    if died_is_gone && word == Target::Died { Target::Gone } else { word };
            }
        }
        // The order to prepare may have been lost with the stream before, or could not be given again
        // without the source; to repeat it does no harm.
        if hello && matches!(live.target, Target::Unknown | Target::Paused) {
            self.repeat_prepare(id);
        }
    }

    pub(crate) fn boot_of(&self, host: &HostName) -> Option<BootId> {
        self.ownership.agents.get(host).map(|agent| agent.boot.clone())
    }

    pub(crate) fn listed_vm(&self, host: &HostName, vm: &VmName) -> Option<&VmReport> {
        self.ownership.agents.get(host)?.vms.get(vm)
    }
}

fn by_name(vms: Vec<VmReport>) -> Arc<BTreeMap<VmName, VmReport>> {
    Arc::new(vms.into_iter().map(|vm| (vm.name.clone(), vm)).collect())
}

/// What a source's list says, or nothing new.
fn source_word(listed: Option<&VmReport>, alive: bool, conclusive: bool) -> Option<Source> {
    let may_have_run = listed.is_some_and(|vm| vm.may_have_run);
    match listed.map(|vm| vm.run_state) {
        Some(RunState::Dead) if may_have_run => Some(Source::Died),
        None | Some(RunState::Dead) => Some(Source::Gone),
        Some(RunState::MovedOut) => Some(Source::Stopped),
        Some(RunState::Running | RunState::Paused) if alive => Some(Source::Moving),
        Some(RunState::Running | RunState::Paused) => conclusive.then_some(Source::Runs),
        Some(RunState::Incoming | RunState::Loaded | RunState::Unknown) => None,
    }
}

/// What a target's list says, or nothing new. `listed` is the copy of this migration.
fn target_word(listed: Option<&VmReport>, alive: bool, conclusive: bool) -> Option<Target> {
    let Some(vm) = listed else { return conclusive.then_some(Target::Gone) };
    match vm.run_state {
        // A body without a number may be older than the migration.
        RunState::Dead | RunState::MovedOut if !conclusive && vm.migration.is_none() => None,
        RunState::Dead if vm.may_have_run => Some(Target::Died),
        RunState::Dead | RunState::MovedOut => Some(Target::Gone),
        RunState::Running | RunState::Paused => Some(Target::Runs),
        RunState::Incoming | RunState::Loaded if alive => Some(Target::Paused),
        RunState::Incoming | RunState::Loaded => Some(Target::Orphaned),
        RunState::Unknown => None,
    }
}
