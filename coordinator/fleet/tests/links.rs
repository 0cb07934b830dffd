//! Limits of links: which moves wait, which rates sources get, and what outlives a restart.

use std::collections::BTreeMap;

use crate::common::{Desk, SECOND, ended, progress, request, vm};
use rackferry_fleet::{
    Connection, Effect, Link, LinkLimit, LinkName, MigrationId, MoveOptions, Order, Outcome,
    Progress, Refusal, RunState, Said, Topology, WaitCode,
};

const MB: u64 = 1_000_000;

fn core(rate: u64) -> Topology {
    let (a, b) = ("a".to_owned(), "b".to_owned());
    let links = vec![Link { name: "core0".into(), a, b, rate, cost: 1 }];
    let racks = [("a", ["a1", "a2"]), ("b", ["b1", "b2"])];
    let racks = racks.map(|(rack, hosts)| (rack.into(), hosts.map(Into::into).into()));
    Topology { racks: racks.into(), links, ..Topology::default() }
}

/// Racks a and b with two hosts each, three VMs on each host of a, and an inventory with one link of 100 MB/s.
fn site() -> (Desk, [Connection; 2], [Connection; 2]) {
    let mut desk = Desk::new();
    let vms = |host: &str| {
        (0..3).map(|n| vm(&format!("{host}-{n}"), RunState::Running)).collect::<Vec<_>>()
    };
    let sources = ["a1", "a2"].map(|host| desk.connect(host, "a", host, vms(host)));
    let targets = ["b1", "b2"].map(|host| desk.connect(host, "b", host, vec![]));
    import(&mut desk, 100 * MB);
    desk.told();
    (desk, sources, targets)
}

fn import(desk: &mut Desk, rate: u64) -> bool {
    let mut out = Vec::new();
    let text = format!("core0: {rate}");
    let changed = desk.fleet.import_inventory(text, core(rate), desk.now, &mut out);
    desk.take(out);
    changed
}

fn limit(desk: &mut Desk, link: &str, limit: Option<LinkLimit>) -> Result<(), Refusal> {
    let mut out = Vec::new();
    let answer = desk.fleet.set_limits(&[(LinkName::from(link), limit)], desk.now, &mut out);
    desk.take(out);
    answer
}

fn core0(desk: &mut Desk, rate: u64) {
    limit(desk, "core0", Some(LinkLimit::Rate(rate))).expect("the link is known");
}

/// Every target says that it is ready, and what each source is told then.
fn start_all(desk: &mut Desk, targets: [Connection; 2]) -> BTreeMap<u64, Option<u64>> {
    for connection in targets {
        for id in 1..=6 {
            let ours = desk.orders.iter().any(|(to, order)| {
                *to == connection
                    && matches!(order, Order::PrepareTarget { migration, .. } if migration.0 == id)
            });
            if ours {
                desk.say(connection, Said::TargetReady(MigrationId(id)));
            }
        }
    }
    rates(desk)
}

/// The latest rate of every source, by migration.
fn rates(desk: &mut Desk) -> BTreeMap<u64, Option<u64>> {
    let mut rates = BTreeMap::new();
    for (_, order) in desk.told() {
        match order {
            Order::StartSource { migration, rate, .. } => rates.insert(migration.0, rate),
            Order::SetRate(migration, rate) => rates.insert(migration.0, rate),
            _ => None,
        };
    }
    rates
}

fn waits(desk: &Desk) -> Vec<(WaitCode, String, u32, u32)> {
    let waits = desk.fleet.migrations().filter_map(|view| view.wait);
    waits.map(|wait| (wait.code, wait.detail, wait.limit, wait.used)).collect()
}

#[test]
fn without_a_limit_nobody_is_held_back() {
    let (mut desk, _, targets) = site();
    desk.evacuate("a", "b");
    let rates = start_all(&mut desk, targets);
    assert_eq!(rates.into_values().collect::<Vec<_>>(), [None; 4]);
}

#[test]
fn a_limit_is_shared_and_changes_while_it_runs() {
    let (mut desk, _, targets) = site();
    core0(&mut desk, 40 * MB);
    desk.evacuate("a", "b");
    let told = start_all(&mut desk, targets);
    assert_eq!(told.into_values().collect::<Vec<_>>(), [Some(10 * MB); 4]);

    core0(&mut desk, 20 * MB);
    assert_eq!(rates(&mut desk).into_values().collect::<Vec<_>>(), [Some(5 * MB); 4]);
    core0(&mut desk, 20 * MB);
    assert!(desk.told().is_empty(), "said again, it changes nothing");
    limit(&mut desk, "core0", Some(LinkLimit::Percent(60))).expect("the link is known");
    assert_eq!(rates(&mut desk).into_values().collect::<Vec<_>>(), [Some(15 * MB); 4]);
    limit(&mut desk, "core0", None).expect("the link is known");
    assert_eq!(rates(&mut desk).into_values().collect::<Vec<_>>(), [None; 4]);
}

#[test]
fn the_other_direction_has_its_own_budget() {
    let (mut desk, _, targets) = site();
    core0(&mut desk, 40 * MB);
    let back = desk.connect("b1", "b", "b1", vec![vm("back", RunState::Running)]);
    desk.evacuate("a1", "b2");
    desk.evacuate("b1", "a2");
    let lanes = desk.fleet.links()[0].lanes;
    assert_eq!([lanes[0].moves, lanes[1].moves], [2, 1]);
    let told = start_all(&mut desk, [back, targets[1]]);
    assert_eq!(told.into_values().collect::<Vec<_>>(), [Some(20 * MB); 2]);
}

#[test]
fn moves_wait_while_their_share_would_be_too_small() {
    let (mut desk, sources, targets) = site();
    core0(&mut desk, 9 * MB);
    desk.evacuate("a", "b");
    let full = (WaitCode::LinkFull, "core0".to_owned(), 2, 2);
    assert_eq!(waits(&desk).iter().filter(|wait| **wait == full).count(), 3, "{:?}", waits(&desk));
    start_all(&mut desk, targets);
    desk.say(sources[0], Said::Ended(MigrationId(1), ended(Outcome::RolledBack)));
    let under_way = desk.fleet.links()[0].lanes[0].moves;
    assert_eq!(under_way, 2, "the next one has its place");

    core0(&mut desk, MB);
    assert!(desk.fleet.links()[0].lanes[0].allotted <= MB, "those under way go on, slower");
}

#[test]
fn one_may_always_move() {
    let (mut desk, _, targets) = site();
    core0(&mut desk, 1000);
    desk.evacuate("a", "b");
    assert_eq!(desk.fleet.links()[0].lanes[0].moves, 1);
    assert_eq!(start_all(&mut desk, targets), BTreeMap::from([(1, Some(1000))]));
}

#[test]
fn what_one_does_not_use_others_get_and_it_gets_it_back() {
    let (mut desk, sources, targets) = site();
    core0(&mut desk, 40 * MB);
    desk.evacuate("a", "b");
    start_all(&mut desk, targets);
    let sends = |bytes: u64| Progress { send_bytes_per_second: bytes, ..progress(0.5) };
    let tell = |desk: &mut Desk, first: u64| {
        for id in 1..=6 {
            let sent = if id == 1 { first } else { 30 * MB };
            for source in sources {
                desk.say(source, Said::Progress(MigrationId(id), sends(sent)));
            }
        }
        desk.pass(SECOND);
        rates(desk)
    };
    let told = tell(&mut desk, 2 * MB);
    assert_eq!(told[&1], Some(3 * MB));
    assert_eq!(told.values().flatten().sum::<u64>() / MB, 39, "{told:?}");
    let told = tell(&mut desk, 3 * MB);
    assert_eq!(told.into_values().collect::<Vec<_>>(), [Some(10 * MB); 4]);

    tell(&mut desk, 0);
    desk.say(sources[0], Said::SwitchoverRequest(MigrationId(1)));
    assert_eq!(rates(&mut desk)[&1], Some(10 * MB), "a switchover has its share");
}

#[test]
fn an_evacuation_may_have_a_limit_of_its_own() {
    let (mut desk, _, targets) = site();
    let mut out = Vec::new();
    let own = BTreeMap::from([("core0".into(), LinkLimit::Rate(16 * MB))]);
    let asked = rackferry_fleet::EvacuationRequest { link_limits: own, ..request("a1", "b") };
    let id = desk.fleet.create_evacuation(&asked, desk.now, &mut out).expect("it is possible");
    desk.take(out);
    desk.evacuate("a2", "b");
    let told = start_all(&mut desk, targets);
    let own = desk.fleet.migrations().filter(|view| view.record.evacuation == Some(id));
    let own: Vec<_> = own.filter_map(|view| told.get(&view.record.id.0).copied()).collect();
    assert_eq!(own, [Some(8 * MB); 2]);
    assert_eq!(told.values().filter(|rate| rate.is_none()).count(), 2);

    let unknown = BTreeMap::from([("core9".into(), LinkLimit::Rate(1))]);
    let asked = rackferry_fleet::EvacuationRequest { link_limits: unknown, ..asked };
    let refused = desk.fleet.plan_evacuation(&asked);
    assert_eq!(refused, Err(Refusal::UnknownLink("core9".into())));
}

#[test]
fn an_unknown_link_has_no_limit() {
    let (mut desk, ..) = site();
    let refused = Err(Refusal::UnknownLink("core9".into()));
    assert_eq!(limit(&mut desk, "core9", Some(LinkLimit::Rate(1))), refused);
    assert_eq!(limit(&mut desk, "core9", None), refused);
}

#[test]
fn a_restart_forgets_no_limit_and_tells_it_again() {
    let (mut desk, _, targets) = site();
    core0(&mut desk, 40 * MB);
    desk.evacuate("a", "b");
    start_all(&mut desk, targets);
    let before = desk.log.clone();
    desk.restart();
    assert_eq!(desk.fleet.links()[0].limit, Some(LinkLimit::Rate(40 * MB)));
    assert_eq!(desk.log, before);
    let moving = (0..3).map(|n| {
        let name = format!("a1-{n}");
        let moved = desk.fleet.migrations().find(|view| view.record.vm.as_str() == name);
        let id = moved.filter(|view| view.record.started.is_some()).map(|view| view.record.id);
        rackferry_fleet::VmReport { migration: id, ..vm(&name, RunState::Running) }
    });
    let moving = moving.collect();
    desk.connect("a1", "a", "a1", moving);
    let told = rates(&mut desk);
    assert_eq!(told.into_values().collect::<Vec<_>>(), [Some(10 * MB); 2]);
}

#[test]
fn an_inventory_replaces_the_one_before() {
    let (mut desk, ..) = site();
    core0(&mut desk, 40 * MB);
    assert!(!import(&mut desk, 100 * MB), "the same again is no change");
    assert!(import(&mut desk, 50 * MB));
    assert_eq!(desk.fleet.links()[0].link.as_ref().expect("it is there").rate, 50 * MB);

    let mut out: Vec<Effect> = Vec::new();
    desk.fleet.import_inventory(String::new(), Topology::default(), desk.now, &mut out);
    desk.take(out);
    let lost = &desk.fleet.links()[0];
    assert_eq!((lost.link.clone(), lost.limit), (None, Some(LinkLimit::Rate(40 * MB))));
    limit(&mut desk, "core0", None).expect("what is left of it can be removed");
    assert!(desk.fleet.links().is_empty());
}

#[test]
fn logs_of_before_are_read() {
    // A log of before there were links.
    let text = r#"{"evacuation.v1":{"id":1,"request":"","sources":[],"targets":[],"source_hosts":[],
        "target_hosts":[],"options":{"dedup":"Rack","compress":"Zstd","max_downtime_ms":0,"verify":false},
        "cancelled":false,"created":1,"ended":null,"vms":{}}}"#;
    let record: rackferry_fleet::Record = serde_json::from_str(text).expect("old logs are read");
    let rackferry_fleet::Record::Evacuation(record) = record else { panic!("not an evacuation") };
    assert!(record.link_limits.is_empty() && !record.paused);
    assert_eq!(record.options, MoveOptions::default());
    let text = r#"{"host.v1":{"name":"a1","id":1,"rack":"a","memory_bytes":1}}"#;
    let record: rackferry_fleet::Record = serde_json::from_str(text).expect("old logs are read");
    assert!(matches!(record, rackferry_fleet::Record::Host(host) if !host.cordoned));
}
