//! A fleet with agents played by hand.
#![allow(dead_code, reason = "each test file uses some of it")]

use rackferry_fleet::{
    BootId, Change, Connection, Counters, Effect, EvacuationId, EvacuationRequest, Event, Fleet,
    Hello, Key, Limits, MigrationId, Moment, MoveOptions, Notice, Order, Outcome, Progress, Record,
    RunState, Said, SessionEnd, VmReport,
};

pub const SECOND: u64 = 1_000_000_000;
pub const MIB: u64 = 1 << 20;

/// Everything around a fleet: what it persisted, told and noted.
pub struct Desk {
    pub fleet: Fleet,
    pub limits: Limits,
    pub log: std::collections::BTreeMap<Key, Record>,
    pub orders: Vec<(Connection, Order)>,
    pub notices: Vec<Notice>,
    pub now: Moment,
    connections: u64,
}

impl Desk {
    pub fn new() -> Self {
        Self::with(Limits::default())
    }

    pub fn with(limits: Limits) -> Self {
        Self {
            fleet: Fleet::new(limits, [], Moment(1)),
            limits,
            log: Default::default(),
            orders: Vec::new(),
            notices: Vec::new(),
            now: Moment(1),
            connections: 0,
        }
    }

    /// The coordinator dies and is started again from its log; every stream is cut.
    pub fn restart(&mut self) {
        self.fleet = Fleet::new(self.limits, self.log.values().cloned(), self.now);
        self.orders.clear();
    }

    /// Executes effects as the shell does; asserts that records come first.
    pub fn take(&mut self, effects: Vec<Effect>) {
        let mut told = false;
        for effect in effects {
            match effect {
                Effect::Persist(changes) => {
                    assert!(!told, "a record after an order");
                    for change in changes {
                        match change {
                            Change::Put(record) => {
                                self.log.insert(record.key(), record);
                            }
                            Change::Remove(key) => {
                                self.log.remove(&key);
                            }
                        }
                    }
                }
                Effect::Send(connection, order) => {
                    told = true;
                    self.orders.push((connection, order));
                }
                Effect::Log(notice) => self.notices.push(notice),
                Effect::Publish => {}
            }
        }
    }

    pub fn handle(&mut self, event: Event) {
        let mut out = Vec::new();
        self.fleet.handle(event, self.now, &mut out);
        self.take(out);
    }

    /// An agent connects. Its boot is named after `boot`.
    pub fn connect(
        &mut self,
        host: &str,
        rack: &str,
        boot: &str,
        vms: Vec<VmReport>,
    ) -> Connection {
        self.connections += 1;
        let connection = Connection(self.connections);
        let hello = Hello {
            host: host.into(),
            rack: rack.into(),
            page_addr: format!("{host}:7401"),
            memory_bytes: 1000 * MIB,
            agent_version: "0.1.0".to_owned(),
            boot: BootId::new(boot),
            installation: None,
            vms,
        };
        self.handle(Event::Connected(connection, hello));
        connection
    }

    pub fn say(&mut self, connection: Connection, said: Said) {
        self.handle(Event::Said(connection, said));
    }

    pub fn report(&mut self, connection: Connection, vms: Vec<VmReport>) {
        self.say(connection, Said::Report { memory_free_bytes: 1000 * MIB, vms });
    }

    pub fn pass(&mut self, nanoseconds: u64) {
        self.now = Moment(self.now.0 + nanoseconds);
        self.handle(Event::Tick);
    }

    pub fn evacuate(&mut self, source: &str, target: &str) -> EvacuationId {
        let mut out = Vec::new();
        let request = request(source, target);
        let id =
            self.fleet.create_evacuation(&request, self.now, &mut out).expect("it is possible");
        self.take(out);
        id
    }

    pub fn cancel(&mut self, id: EvacuationId) {
        let mut out = Vec::new();
        self.fleet.cancel_evacuation(id, self.now, &mut out).expect("it is known");
        self.take(out);
    }

    pub fn cordon(&mut self, place: &str, cordoned: bool) {
        let mut out = Vec::new();
        let places = [place.to_owned()];
        self.fleet.cordon(&places, cordoned, self.now, &mut out).expect("it is known");
        self.take(out);
    }

    /// A move from the target's word that it is ready to its end; no host lists anything.
    pub fn complete(&mut self, from: Connection, to: Connection, id: u64) {
        let migration = MigrationId(id);
        self.say(to, Said::TargetReady(migration));
        let generation = self.fleet.migration(migration).expect("known").record.generation;
        self.say(from, Said::CommitRequest(migration, generation));
        self.say(from, Said::SourceStopped(migration));
        self.say(to, Said::TargetRunning(migration));
        self.say(from, Said::Ended(migration, ended(Outcome::Moved)));
    }

    /// Takes the orders so far.
    pub fn told(&mut self) -> Vec<(Connection, Order)> {
        std::mem::take(&mut self.orders)
    }

    /// The orders so far without those about racks.
    pub fn told_of_moves(&mut self) -> Vec<(Connection, Order)> {
        let mut told = self.told();
        told.retain(|(_, order)| !matches!(order, Order::Welcome(_) | Order::RackView { .. }));
        told
    }

    pub fn vm(&self, name: &str) -> rackferry_fleet::VmView {
        self.fleet.vm(&name.into()).expect("the VM is known")
    }

    pub fn phase(&self, id: u64) -> rackferry_fleet::Phase {
        self.fleet.migration(MigrationId(id)).expect("the migration is known").phase
    }
}

pub fn request(source: &str, target: &str) -> EvacuationRequest {
    EvacuationRequest {
        request: String::new(),
        sources: vec![source.to_owned()],
        targets: vec![target.to_owned()],
        options: MoveOptions::default(),
        link_limits: Default::default(),
        deadline_ns: None,
        exclude: Default::default(),
        skip_blocked: false,
        no_cordon: false,
    }
}

pub fn vm(name: &str, run_state: RunState) -> VmReport {
    VmReport {
        name: name.into(),
        memory_bytes: 100 * MIB,
        run_state,
        migration: None,
        qemu_version: "7.2".to_owned(),
        machine_type: "q35".to_owned(),
        spec_toml: format!("name = '{name}'"),
        may_have_run: false,
        destroyed: false,
        powered_off: false,
        cpu_properties: vec!["sse2".to_owned()],
    }
}

pub fn moving(name: &str, run_state: RunState, migration: u64) -> VmReport {
    VmReport { migration: Some(MigrationId(migration)), ..vm(name, run_state) }
}

pub fn ended(outcome: Outcome) -> SessionEnd {
    SessionEnd {
        outcome,
        reason: String::new(),
        counters: Counters { logical: 100 * MIB, wire: MIB, ..Counters::default() },
        qemu_downtime_ms: 20,
        blackout_ms: 30,
        memory_digest: String::new(),
        not_converged: false,
        powered_off: false,
    }
}

pub fn progress(pass1_ratio: f64) -> Progress {
    Progress { pass1_ratio, ..Progress::default() }
}
