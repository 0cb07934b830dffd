//! The state and the turn: one event in, its effects out.

use std::collections::BTreeMap;

use crate::{
    Connection, Effect, Event, HostName, MigrationId, Moment, Notice, Order, Record, audit::Audit,
    live::Live, ownership::Ownership, placement::Placer, planning::Planning,
    scheduling::Scheduling, store::Store, view::View,
};

/// How much may happen at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Moves leaving a host.
    pub outgoing_per_host: u32,
    /// Moves reaching a host.
    pub incoming_per_host: u32,
    /// Moves under way, in all.
    pub moves_total: u32,
    /// VMs paused for a switchover, by host (source and target both count).
    pub switchovers_per_host: u32,
    /// VMs paused for a switchover, in all.
    pub switchovers_total: u32,
    /// How often an evacuation tries to move a VM, the first time included.
    pub attempts: u32,
    /// Nanoseconds before an evacuation tries a VM again; doubled with every attempt, up to ten minutes.
    pub retry_pause_ns: u64,
    /// The same for a VM that did not converge.
    pub non_converged_retry_ns: u64,
    /// Nanoseconds after which a move that cannot have begun looks for another target. Ownership never
    /// depends on it.
    pub host_silence_timeout_ns: u64,
    /// Finished evacuations, and finished single moves, kept for asking.
    pub history: usize,
    /// Events kept for asking; a quarter of them may be refusals.
    pub events: usize,
    /// Nanoseconds for which an event is kept.
    pub events_age_ns: u64,
    /// Bytes per second that a move should have at least on a link with a limit; more moves wait. One always may.
    pub link_share_min: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            outgoing_per_host: 2,
            incoming_per_host: 2,
            moves_total: 64,
            switchovers_per_host: 2,
            switchovers_total: 4,
            attempts: 5,
            retry_pause_ns: 2_000_000_000,
            non_converged_retry_ns: 30_000_000_000,
            host_silence_timeout_ns: 30_000_000_000,
            history: 100,
            events: 10_000,
            events_age_ns: 90 * 24 * 3600 * 1_000_000_000,
            link_share_min: 4_000_000,
        }
    }
}

/// The fleet. See the crate's documentation.
pub struct Fleet {
    pub(crate) limits: Limits,
    pub(crate) store: Store,
    pub(crate) live: BTreeMap<MigrationId, Live>,
    pub(crate) ownership: Ownership,
    pub(crate) scheduling: Scheduling,
    pub(crate) planning: Planning,
    pub(crate) view: View,
    pub(crate) audit: Audit,
    pub(crate) now: Moment,
    /// A batch of events is open: it is looked at what they come to at its end.
    in_batch: bool,
    pub(crate) outbox: Outbox,
    #[cfg(feature = "planted-bugs")]
    pub(crate) planted: Option<crate::PlantedBug>,
    /// What a planted bug writes too late.
    #[cfg(feature = "planted-bugs")]
    pub(crate) held: Vec<crate::Change>,
}

/// What leaves at the end of the turn, after the records.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pub(crate) orders: Vec<(Connection, Order)>,
    pub(crate) notices: Vec<Notice>,
    pub(crate) publish: bool,
}

impl Fleet {
    /// A fleet as its records say; every host is silent until its agent connects.
    pub fn new(limits: Limits, records: impl IntoIterator<Item = Record>, now: Moment) -> Self {
        let store = Store::load(records);
        let unfinished = store.migrations().values().filter(|migration| migration.is_active());
        let live: BTreeMap<_, _> =
            unfinished.map(|migration| (migration.id, Live::default())).collect();
        let mut fleet = Self {
            limits,
            ownership: Ownership::new(&store, now),
            scheduling: Scheduling::new(&store),
            planning: Planning::new(&store),
            view: View::default(),
            audit: Audit::default(),
            store,
            live,
            now,
            in_batch: false,
            outbox: Outbox::default(),
            #[cfg(feature = "planted-bugs")]
            planted: None,
            #[cfg(feature = "planted-bugs")]
            held: Vec::new(),
        };
        fleet.republish();
        fleet
    }

    /// Puts another planner in the place of spread-by-memory.
    pub fn set_placer(&mut self, placer: Box<dyn Placer>) {
        self.planning.set_placer(placer);
    }

    /// Takes what happened at an agent. Events of connections that are not their host's latest are
    /// ignored.
    pub fn handle(&mut self, event: Event, now: Moment, out: &mut Vec<Effect>) {
        self.begin(now);
        match event {
            Event::Connected(connection, hello) => self.connected(connection, hello),
            Event::Disconnected(connection) => self.disconnected(connection),
            Event::Said(connection, said) => {
                if let Some(host) = self.ownership.agents().host_of(connection).cloned() {
                    self.said(&host, said);
                }
            }
            Event::Tick => self.tick(),
        }
        if !self.in_batch {
            return self.finish(out);
        }
        // Together rates stay within budgets at every moment.
        self.divide_links_if_due();
        self.let_out(out);
    }

    /// More may start than was looked at: another turn is worth while, whatever comes.
    pub fn has_more(&self) -> bool {
        self.scheduling.has_more()
    }

    pub(crate) fn begin(&mut self, now: Moment) {
        self.now = self.now.max(now);
    }

    /// A batch is open.
    pub(crate) const fn in_batch(&self) -> bool {
        self.in_batch
    }

    /// From here on events and requests are one turn, until it is closed.
    pub(crate) fn open_batch(&mut self) {
        self.in_batch = true;
    }

    /// Ends the turn of a batch.
    pub(crate) fn close_batch(&mut self, now: Moment, out: &mut Vec<Effect>) {
        self.in_batch = false;
        self.begin(now);
        self.finish(out);
    }

    /// Ends a turn, or a client's request, whose answer shows what it has started: starts what may start, then lets the
    /// effects out, records first. Within a batch the records wait for its end.
    pub(crate) fn finish(&mut self, out: &mut Vec<Effect>) {
        self.dispatch();
        while self.close_evacuations() {
            self.dispatch();
        }
        self.grant_slots_if_due();
        self.show_racks();
        self.divide_links_if_due();
        if self.in_batch {
            return self.let_out(out);
        }
        #[cfg_attr(
            not(feature = "planted-bugs"),
            expect(unused_mut, reason = "only a bug changes it")
        )]
        let mut changes = self.store.take_changes();
        #[cfg(feature = "planted-bugs")]
        if self.has(crate::PlantedBug::CommitWrittenLate) {
            self.hold_commits(&mut changes);
        }
        self.outbox.publish |= !changes.is_empty();
        self.unpublish(&changes);
        debug_assert_eq!(self.fault(&changes), None);
        if !changes.is_empty() {
            out.push(Effect::Persist(changes));
        }
        self.let_out(out);
    }

    fn let_out(&mut self, out: &mut Vec<Effect>) {
        let Outbox { orders, notices, publish } = std::mem::take(&mut self.outbox);
        out.extend(notices.into_iter().map(Effect::Log));
        out.extend(orders.into_iter().map(|(connection, order)| Effect::Send(connection, order)));
        if publish {
            out.push(Effect::Publish);
        }
    }

    /// What is shown of a migration has changed.
    pub(crate) fn touch(&mut self, id: MigrationId) {
        self.view.touch_migration(id);
        self.outbox.publish = true;
    }

    /// Tells a host's agent, if it is connected.
    pub(crate) fn tell(&mut self, host: &HostName, order: Order) {
        if let Some(agent) = self.ownership.agents().get(host) {
            self.outbox.orders.push((agent.connection, order));
        }
    }

    pub(crate) fn note(&mut self, urgent: bool, text: String) {
        self.outbox.notices.push(Notice { urgent, text });
    }

    /// A contradiction between records that changed, if there is one: a bug.
    fn fault(&self, changes: &[crate::Change]) -> Option<String> {
        changes.iter().find_map(|change| match change {
            crate::Change::Put(Record::Vm(vm)) => self.fault_of_vm(vm),
            crate::Change::Put(Record::Migration(migration)) => {
                let dead = migration.is_active() && !self.live.contains_key(&migration.id);
                dead.then(|| format!("{} is active but not live", migration.id))
            }
            _ => None,
        })
    }

    fn fault_of_vm(&self, vm: &crate::VmRecord) -> Option<String> {
        let id = vm.standing.migration()?;
        let Some(migration) = self.store.migrations().get(&id) else {
            return Some(format!("{} stands in {id}, which is not known", vm.name));
        };
        let moves = migration.is_ordered() && migration.vm == vm.name;
        (!moves).then(|| format!("{} stands in {id}, which does not move it", vm.name))
    }
}
