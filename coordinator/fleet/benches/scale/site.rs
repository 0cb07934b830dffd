//! A fleet, its log, and agents that are played: they do at once what they are told.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use rackferry_fleet::{
    BootId, Change, Connection, Counters, Crossing, Effect, End, EvacuationRequest, Event, Fleet,
    Generation, Hello, HostId, HostName, HostRecord, InventoryRecord, Key, LimitRecord, Limits,
    Link, LinkLimit, MigrationId, MigrationRecord, Moment, MoveOptions, Numbers, Order, Outcome,
    Progress, Published, RackName, Record, RunState, Said, SessionEnd, Stage, Standing, Topology,
    VmName, VmRecord, VmReport,
};

use crate::samples::Samples;

const SECOND: u64 = 1_000_000_000;
const GIB: u64 = 1 << 30;
/// Hosts of a rack; a site has two racks at least.
const RACK: usize = 40;
/// Turns of one kind in a round.
const TURNS: usize = 20;
/// Moves that end in a round.
const ENDS: usize = 2;

/// How large a site is.
#[derive(Clone, Copy)]
pub struct Size {
    pub hosts: usize,
    pub vms: usize,
    pub queued: usize,
}

/// A move that its source has begun.
struct Session {
    id: MigrationId,
    vm: VmName,
    generation: Generation,
    source: usize,
    target: usize,
}

/// A fleet and everything around it.
pub struct Site {
    size: Size,
    fleet: Fleet,
    log: BTreeMap<Key, Record>,
    lists: Vec<BTreeMap<VmName, VmReport>>,
    /// The host of a connection; hosts connect again with greater numbers.
    connections: BTreeMap<Connection, usize>,
    latest: Vec<Connection>,
    orders: VecDeque<(usize, Order)>,
    preparing: BTreeMap<MigrationId, usize>,
    sessions: VecDeque<Session>,
    now: u64,
    next_report: usize,
    /// What readers have: so each turn copies what it changes of it.
    shown: Arc<Published>,
}

impl Site {
    /// A site whose hosts are on record and not connected.
    pub fn new(size: Size) -> Self {
        let records = records(size);
        let log = records.into_iter().map(|record| (record.key(), record)).collect();
        let lists = (0..size.hosts).map(|host| list(size, host)).collect();
        Self::of(size, log, lists)
    }

    fn of(size: Size, log: BTreeMap<Key, Record>, lists: Vec<BTreeMap<VmName, VmReport>>) -> Self {
        let now = 1_000 * SECOND;
        let fleet = Fleet::new(limits(), log.values().cloned(), Moment(now));
        let latest = vec![Connection(0); size.hosts];
        Self {
            size,
            fleet,
            log,
            lists,
            connections: BTreeMap::new(),
            latest,
            orders: VecDeque::new(),
            preparing: BTreeMap::new(),
            sessions: VecDeque::new(),
            now,
            next_report: 0,
            shown: Arc::default(),
        }
    }

    /// The next leader: the records, and nothing else.
    pub fn failover(&self) -> Self {
        Self::of(self.size, self.log.clone(), self.lists.clone())
    }

    /// Every agent introduces itself.
    pub fn connect_all(&mut self) {
        for host in 0..self.size.hosts {
            self.connect(host);
        }
        self.orders.clear();
    }

    /// Agents introduce themselves until all have, or until a moment; how many have, and of how many.
    pub fn connect_until(&mut self, end: Instant) -> (usize, usize) {
        let mut admitted = 0;
        for host in 0..self.size.hosts {
            if Instant::now() > end {
                break;
            }
            self.connect(host);
            admitted += 1;
        }
        (admitted, self.size.hosts)
    }

    fn connect(&mut self, host: usize) {
        let connection = Connection(self.connections.len() as u64 + 1);
        self.connections.insert(connection, host);
        self.latest[host] = connection;
        let hello = Hello {
            host: host_name(host),
            rack: rack_name(self.size, host),
            page_addr: format!("10.0.{}.{}:7401", host / 250, host % 250),
            memory_bytes: memory(self.size),
            agent_version: "0.1.0".to_owned(),
            boot: BootId::new(format!("boot-{host}")),
            installation: None,
            vms: self.lists[host].values().cloned().collect(),
        };
        self.turn(Event::Connected(connection, hello));
    }

    /// Empties the first racks as far as moves shall be queued.
    pub fn evacuate(&mut self) {
        let emptied = self.size.queued * self.size.hosts / self.size.vms;
        let names = |hosts: std::ops::Range<usize>| hosts.map(|host| host_name(host).to_string());
        let request = EvacuationRequest {
            request: "bench".to_owned(),
            sources: names(0..emptied).collect(),
            targets: names(self.size.hosts / 2..self.size.hosts).collect(),
            options: MoveOptions::default(),
            link_limits: BTreeMap::new(),
            deadline_ns: None,
            exclude: Default::default(),
            skip_blocked: false,
            no_cordon: false,
        };
        let mut out = Vec::new();
        self.fleet
            .create_evacuation(&request, Moment(self.now), &mut out)
            .expect("there is room for all");
        self.take(out);
        self.obey(&mut Samples::default());
    }

    /// There is something left to measure.
    pub fn moves_go_on(&self) -> bool {
        !self.sessions.is_empty()
    }

    /// A second of a site's life: everything that happens in one, a few times; ends early at a moment.
    pub fn round(&mut self, samples: &mut Samples, end: Instant) {
        self.now += SECOND;
        samples.measure("tick", || self.turn(Event::Tick));
        self.obey(samples);
        for _ in 0..TURNS {
            if Instant::now() > end {
                return;
            }
            let host = self.next_report;
            // A step that visits every host.
            self.next_report = (host + 7) % self.size.hosts;
            let vms: Vec<VmReport> = self.lists[host].values().cloned().collect();
            let used: u64 = vms.iter().map(|vm| vm.memory_bytes).sum();
            let report = Said::Report { memory_free_bytes: memory(self.size) - used, vms };
            let event = Event::Said(self.latest[host], report);
            samples.measure("host report", || self.turn(event));
            self.obey(samples);
        }
        for turn in 0..TURNS.min(self.sessions.len()) {
            let session = &self.sessions[turn % self.sessions.len()];
            let progress = Progress {
                pass1_ratio: 0.5,
                remaining_bytes: GIB,
                send_bytes_per_second: 50_000_000 + self.now % 1_000_000,
                ..Progress::default()
            };
            let said = Said::Progress(session.id, progress);
            let event = Event::Said(self.latest[session.source], said);
            samples.measure("session progress", || self.turn(event));
        }
        for _ in 0..ENDS {
            if Instant::now() > end {
                return;
            }
            self.finish_one(samples);
        }
    }

    /// The oldest session switches over and ends.
    fn finish_one(&mut self, samples: &mut Samples) {
        let Some(session) = self.sessions.pop_front() else { return };
        let Session { id, vm, generation, source, target } = session;
        let (from, to) = (self.latest[source], self.latest[target]);
        let mut say = |site: &mut Self, kind, connection, said| {
            let event = Event::Said(connection, said);
            samples.measure(kind, || site.turn(event));
            site.obey(samples);
        };
        say(self, "switchover request", from, Said::SwitchoverRequest(id));
        say(self, "commit request", from, Said::CommitRequest(id, generation));
        say(self, "source stopped", from, Said::SourceStopped(id));
        let report = self.lists[source].remove(&vm);
        if let Some(report) = report {
            let arrived = VmReport { run_state: RunState::Running, migration: None, ..report };
            self.lists[target].insert(vm, arrived);
        }
        say(self, "target running", to, Said::TargetRunning(id));
        let end = SessionEnd {
            outcome: Outcome::Moved,
            reason: String::new(),
            counters: Counters { logical: GIB, wire: GIB / 2, ..Counters::default() },
            qemu_downtime_ms: 20,
            blackout_ms: 30,
            memory_digest: String::new(),
            not_converged: false,
            powered_off: false,
        };
        say(self, "end of a move", from, Said::Ended(id, end));
    }

    /// Agents do what they were told.
    fn obey(&mut self, samples: &mut Samples) {
        while let Some((host, order)) = self.orders.pop_front() {
            match order {
                Order::PrepareTarget { migration, vm, memory_bytes, .. } => {
                    let copy = VmReport {
                        migration: Some(migration),
                        run_state: RunState::Incoming,
                        ..report(vm.clone(), memory_bytes)
                    };
                    self.lists[host].insert(vm, copy);
                    self.preparing.insert(migration, host);
                    let ready = Event::Said(self.latest[host], Said::TargetReady(migration));
                    samples.measure("target ready", || self.turn(ready));
                }
                Order::StartSource { migration, vm, generation, .. } => {
                    let Some(target) = self.preparing.remove(&migration) else { continue };
                    if let Some(report) = self.lists[host].get_mut(&vm) {
                        report.migration = Some(migration);
                    }
                    let session = Session { id: migration, vm, generation, source: host, target };
                    self.sessions.push_back(session);
                }
                _ => {}
            }
        }
    }

    fn turn(&mut self, event: Event) {
        let mut out = Vec::new();
        self.fleet.handle(event, Moment(self.now), &mut out);
        self.take(out);
    }

    fn take(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Persist(changes) => changes.into_iter().for_each(|change| match change {
                    Change::Put(record) => drop(self.log.insert(record.key(), record)),
                    Change::Remove(key) => drop(self.log.remove(&key)),
                }),
                Effect::Send(connection, order) => {
                    let host = self.connections[&connection];
                    self.orders.push_back((host, order));
                }
                Effect::Publish | Effect::Log(_) => {}
            }
        }
        // As a leader does after every turn.
        self.shown = self.fleet.published();
    }
}

fn limits() -> Limits {
    Limits { history: 100_000, ..Limits::default() }
}

fn host_name(host: usize) -> HostName {
    HostName::new(format!("host-{host:04}"))
}

fn rack_name(size: Size, host: usize) -> RackName {
    RackName::new(format!("rack-{:02}", host / RACK.min(size.hosts / 2)))
}

fn vm_name(vm: usize) -> VmName {
    VmName::new(format!("vm-{vm:05}"))
}

/// What a host has: twice what its VMs take.
fn memory(size: Size) -> u64 {
    (2 * size.vms / size.hosts) as u64 * GIB
}

fn report(name: VmName, memory_bytes: u64) -> VmReport {
    VmReport {
        spec_toml: format!("name = '{name}'\nmemory_mib = 1024\nvcpus = 2\n").repeat(4),
        may_have_run: false,
        destroyed: false,
        powered_off: false,
        cpu_properties: (0..100).map(|n| format!("cpu-flag-{n}")).collect(),
        name,
        memory_bytes,
        run_state: RunState::Running,
        migration: None,
        qemu_version: "10.0.2".to_owned(),
        machine_type: "pc-q35-10.0".to_owned(),
    }
}

fn list(size: Size, host: usize) -> BTreeMap<VmName, VmReport> {
    let each = size.vms / size.hosts;
    let vms = (host * each..(host + 1) * each).map(vm_name);
    vms.map(|name| (name.clone(), report(name, GIB))).collect()
}

/// Hosts, VMs, an inventory with limits, and moves that have ended: one for every tenth VM.
fn records(size: Size) -> Vec<Record> {
    let each = size.vms / size.hosts;
    let mut records = Vec::new();
    for host in 0..size.hosts {
        records.push(Record::Host(HostRecord::new(
            host_name(host),
            HostId(host as u32 + 1),
            rack_name(size, host),
            memory(size),
        )));
    }
    for vm in 0..size.vms {
        records.push(Record::Vm(VmRecord {
            name: vm_name(vm),
            memory_bytes: GIB,
            owner: host_name(vm / each),
            generation: Generation(vm as u64 + 1),
            standing: Standing::Stable,
            spec: Some(report(vm_name(vm), GIB).spec_toml.into()),
        }));
    }
    let past = size.vms / 10;
    records.extend((0..past).map(|n| Record::Migration(Box::new(ended(size, n)))));
    records.push(Record::Numbers(Numbers {
        host: HostId(size.hosts as u32),
        migration: MigrationId(past as u64),
        crossing: Crossing(past as u64),
        generation: Generation(2 * size.vms as u64),
        ..Numbers::default()
    }));
    records.extend(inventory(size));
    records
}

/// A single move that has brought a VM to where it is.
fn ended(size: Size, n: usize) -> MigrationRecord {
    let vm = n * 10;
    let owner = vm / (size.vms / size.hosts);
    MigrationRecord {
        id: MigrationId(n as u64 + 1),
        vm: vm_name(vm),
        memory_bytes: GIB,
        source: host_name((owner + 1) % size.hosts),
        target: host_name(owner),
        evacuation: None,
        request: Some(format!("past-{n}")),
        attempt: 1,
        not_before: None,
        crossing: Crossing(n as u64 + 1),
        options: MoveOptions::default(),
        generation: Generation(vm as u64 + 1),
        stage: Stage::Ended { end: End::Moved, reason: String::new(), at: Moment(SECOND) },
        cancelled: false,
        forced: false,
        created: Moment(SECOND),
        started: Some(Moment(SECOND)),
        result: Default::default(),
    }
}

/// Every rack is joined to two spines; links may be used for two fifths.
fn inventory(size: Size) -> Vec<Record> {
    let mut topology = Topology::default();
    for host in 0..size.hosts {
        topology.racks.entry(rack_name(size, host)).or_default().insert(host_name(host));
    }
    let mut records = Vec::new();
    for rack in topology.racks.keys() {
        for spine in ["s1", "s2"] {
            let name = format!("{rack}-{spine}");
            let (a, b) = (rack.to_string(), spine.to_owned());
            records.push(Record::Limit(LimitRecord {
                link: name.as_str().into(),
                limit: LinkLimit::Percent(40),
            }));
            let name = name.as_str().into();
            topology.links.push(Link { name, a, b, rate: 12_500_000_000, cost: 1 });
        }
    }
    let imported = Moment(SECOND);
    let inventory = InventoryRecord { text: String::new(), topology, imported };
    records.push(Record::Inventory(Box::new(inventory)));
    records
}
