//! Agents come, go and list what they have.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    BootId, Connection, Crossing, Fleet, Hello, HostName, HostRecord, Member, MigrationId, Order,
    Progress, RackName, Record, RunState, Stage, VmName, VmReport,
    fleet::Agent,
    ownership::{Source, Target},
};

impl Fleet {
    pub(crate) fn connected(&mut self, connection: Connection, hello: Hello) {
        let Hello { host, rack, page_addr, memory_bytes, agent_version, boot, vms } = hello;
        let before = self.store.hosts().get(&host).cloned();
        let id = before.as_ref().map_or_else(|| self.store.next(), |record| record.id);
        let cordoned = before.as_ref().is_some_and(|record| record.cordoned);
        let record =
            HostRecord { name: host.clone(), id, rack: rack.clone(), memory_bytes, cordoned };
        if before.as_ref() != Some(&record) {
            self.store.put(Record::Host(record));
        }
        // Whatever was known of it came through a stream that is void now.
        self.forget_words(&host);
        self.silent_since.remove(&host);
        let agent = Agent {
            connection,
            boot,
            page_addr,
            version: agent_version,
            memory_free_bytes: None,
            vms: by_name(vms),
        };
        self.agents.insert(host.clone(), agent);
        self.tell(&host, Order::Welcome(id));
        if let Some(old) = before.filter(|old| old.rack != rack) {
            self.show_rack(&old.rack);
        }
        self.show_rack(&rack);
        self.listed(&host, true);
    }

    pub(crate) fn disconnected(&mut self, connection: Connection) {
        let Some(host) = self.host_of(connection) else { return };
        self.agents.remove(&host);
        self.silent_since.insert(host.clone(), self.now);
        self.forget_words(&host);
        self.astray.retain(|_, at| *at != host);
        if let Some(rack) = self.store.hosts().get(&host).map(|record| record.rack.clone()) {
            self.show_rack(&rack);
        }
        for id in self.active_on(&host) {
            self.judge(id);
        }
        self.dispatch_due = true;
        self.outbox.publish = true;
    }

    pub(crate) fn report(&mut self, host: &HostName, free: u64, vms: Vec<VmReport>) {
        let Some(agent) = self.agents.get_mut(host) else { return };
        agent.memory_free_bytes = Some(free);
        agent.vms = by_name(vms);
        self.listed(host, false);
    }

    pub(crate) fn tick(&mut self) {
        let waiting = self.live.keys().copied().collect::<Vec<_>>();
        for id in waiting {
            self.lose_patience(id);
            self.miss_ready(id);
        }
        self.watch_deadlines();
        self.dispatch_due = true;
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
            self.judge(id);
        }
        self.sweep(host, hello);
        self.dispatch_due = true;
        self.outbox.publish = true;
    }

    /// Tells every agent of a rack who its neighbours are, and what they still claim for.
    pub(crate) fn show_rack(&mut self, rack: &RackName) {
        let in_rack = |host: &&HostRecord| host.rack == *rack;
        let members: Vec<Member> = self
            .store
            .hosts()
            .values()
            .filter(in_rack)
            .filter_map(|host| self.member(&host.name))
            .collect();
        if members.is_empty() {
            return;
        }
        let epoch = self.store.next_epoch();
        let active = self.live.keys().filter_map(|id| self.store.migrations().get(id));
        let open: BTreeSet<Crossing> = active.map(|migration| migration.crossing).collect();
        for member in &members {
            let (members, open) = (members.clone(), open.iter().copied().collect());
            let order = Order::RackView { epoch, members, open };
            self.tell(&member.host, order);
        }
    }

    /// A host as others are told of it, if its agent is connected.
    pub(crate) fn member(&self, host: &HostName) -> Option<Member> {
        let record = self.store.hosts().get(host)?;
        let agent = self.agents.get(host)?;
        Some(Member { id: record.id, host: host.clone(), page_addr: agent.page_addr.clone() })
    }

    /// Active migrations a host takes part in, and was told of.
    pub(crate) fn active_on(&self, host: &HostName) -> Vec<MigrationId> {
        let active = self.live.keys().filter_map(|id| self.store.migrations().get(id));
        active
            .filter(|migration| migration.stage != Stage::Queued)
            .filter(|migration| migration.source == *host || migration.target == *host)
            .map(|migration| migration.id)
            .collect()
    }

    /// What a host attested came through a stream that is gone.
    fn forget_words(&mut self, host: &HostName) {
        for id in self.active_on(host) {
            let Some(migration) = self.store.migrations().get(&id) else { continue };
            let Some(live) = self.live.get_mut(&id) else { continue };
            if migration.source == *host {
                live.source = Source::Unknown;
                live.cancel_told = false;
                live.told = None;
                live.hurry_told = false;
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
        let Some(migration) = self.store.migrations().get(&id) else { return };
        let Some(agent) = self.agents.get(host) else { return };
        let Some(live) = self.live.get_mut(&id) else { return };
        let listed = agent.vms.get(&migration.vm);
        if migration.source == *host {
            let (session, settling) = match &migration.stage {
                Stage::Started { source_boot, .. } => (Some(source_boot), false),
                stage => (None, *stage == Stage::Settling),
            };
            let alive = (settling || session == Some(&agent.boot))
                && listed.is_some_and(|vm| vm.migration == Some(id));
            live.acknowledged |= alive;
            // A list from before the order to start must not look like the end of the session. An agent
            // that was restarted since never had the order.
            let conclusive = hello || live.acknowledged || session != Some(&agent.boot);
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
            if let Some(word) = target_word(ours, boot == Some(&agent.boot), conclusive) {
                live.target = word;
            }
        }
        // The order to prepare may have been lost with the stream before, or could not be given again
        // without the source; to repeat it does no harm.
        if hello && matches!(live.target, Target::Unknown | Target::Paused) {
            self.repeat_prepare(id);
        }
    }

    pub(crate) fn boot_of(&self, host: &HostName) -> Option<BootId> {
        self.agents.get(host).map(|agent| agent.boot.clone())
    }

    pub(crate) fn listed_vm(&self, host: &HostName, vm: &VmName) -> Option<&VmReport> {
        self.agents.get(host)?.vms.get(vm)
    }
}

fn by_name(vms: Vec<VmReport>) -> BTreeMap<VmName, VmReport> {
    vms.into_iter().map(|vm| (vm.name.clone(), vm)).collect()
}

/// What a source's list says, or nothing new.
fn source_word(listed: Option<&VmReport>, alive: bool, conclusive: bool) -> Option<Source> {
    match listed.map(|vm| vm.run_state) {
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
        RunState::Dead | RunState::MovedOut => {
            (conclusive || vm.migration.is_some()).then_some(Target::Gone)
        }
        RunState::Running | RunState::Paused => Some(Target::Runs),
        RunState::Incoming | RunState::Loaded if alive => Some(Target::Paused),
        RunState::Incoming | RunState::Loaded => Some(Target::Orphaned),
        RunState::Unknown => None,
    }
}
