//! Headroom, and VMs that never share a host.

use crate::common::{Desk, MIB, ended, request, vm};
use rackferry_fleet::{
    MigrationId, MigrationRequest, MoveOptions, Outcome, Phase, Refusal, RunState, Said, Topology,
    WaitCode,
};

/// Rack a with a host and VMs, rack b with two hosts.
fn site(vms: &[&str]) -> Desk {
    let mut desk = Desk::new();
    let list = vms.iter().map(|name| vm(name, RunState::Running)).collect();
    desk.connect("a1", "a", "a1", list);
    for host in ["b1", "b2"] {
        desk.connect(host, "b", host, vec![]);
    }
    desk
}

fn import(desk: &mut Desk, headroom: &[(&str, u8)], group: &[&str]) {
    let topology = Topology {
        headroom: headroom.iter().map(|(host, percent)| ((*host).into(), *percent)).collect(),
        groups: group.iter().map(|vm| ((*vm).into(), "db".to_owned())).collect(),
        ..Topology::default()
    };
    let mut out = Vec::new();
    desk.fleet.import_inventory(format!("{topology:?}"), topology, desk.now, &mut out);
    desk.take(out);
}

fn migrate(desk: &mut Desk, vm: &str, target: &str) -> Result<MigrationId, Refusal> {
    let request = MigrationRequest {
        request: String::new(),
        vm: vm.into(),
        target: target.into(),
        options: MoveOptions::default(),
    };
    let mut out = Vec::new();
    let answer = desk.fleet.create_migration(&request, desk.now, &mut out);
    desk.take(out);
    answer
}

#[test]
fn headroom_is_kept_free_on_every_target() {
    // Each VM has 100 MiB, each host 1000.
    let mut desk = site(&["v1", "v2", "v3"]);
    import(&mut desk, &[("b1", 90), ("b2", 80)], &[]);
    let plan = desk.fleet.plan_evacuation(&request("a", "b")).expect("one and two fit").moves;
    let to_b1 = plan.iter().filter(|step| step.target.as_str() == "b1").count();
    assert_eq!(to_b1, 1);
    import(&mut desk, &[("b1", 95), ("b2", 80)], &[]);
    let refused = desk.fleet.plan_evacuation(&request("a", "b")).expect_err("two fit");
    let text = refused.to_string();
    assert!(text.contains("2 hosts can take 250 MiB"), "{text}");
    let refused = migrate(&mut desk, "v1", "b1").expect_err("half a VM fits");
    assert!(matches!(refused, Refusal::DoesNotFit(_)), "{refused}");
    import(&mut desk, &[("b1", 100)], &[]);
    let host = desk.fleet.hosts().into_iter().find(|host| host.name.as_str() == "b1");
    assert_eq!(host.expect("known").memory_free_bytes, 1000 * MIB, "it is free all the same");
}

#[test]
fn vms_of_a_group_go_to_different_hosts() {
    let mut desk = site(&["db1", "db2", "web"]);
    import(&mut desk, &[("b2", 70)], &["db1", "db2"]);
    let plan = desk.fleet.plan_evacuation(&request("a", "b")).expect("there are two hosts").moves;
    let target = |name: &str| {
        let step = plan.iter().find(|step| step.vm.as_str() == name).expect("it moves");
        step.target.to_string()
    };
    assert_ne!(target("db1"), target("db2"));
}

#[test]
fn a_group_that_cannot_be_kept_apart_is_refused_by_name() {
    let mut desk = site(&["db1", "db2", "db3"]);
    import(&mut desk, &[], &["db1", "db2", "db3"]);
    let refused = desk.fleet.plan_evacuation(&request("a", "b")).expect_err("two hosts for three");
    assert_eq!(
        refused.to_string(),
        "anti-affinity group db: VM db3 has no host of its own; db1 is on b1, db2 is on b2, and no other host has room"
    );
    migrate(&mut desk, "db1", "b1").expect("no other VM of the group is there");
    let refused = migrate(&mut desk, "db2", "b1").expect_err("db1 is on its way there");
    assert!(matches!(&refused, Refusal::KeptApart(why) if why.group == "db"), "{refused}");
}

#[test]
fn what_was_queued_before_goes_elsewhere_or_waits() {
    let mut desk = site(&["db1", "db2", "web"]);
    let a = rackferry_fleet::Connection(1);
    migrate(&mut desk, "web", "b2").expect("it fits");
    migrate(&mut desk, "db1", "b1").expect("it fits");
    let queued = migrate(&mut desk, "db2", "b1").expect("nothing says no yet");
    assert_eq!(desk.phase(queued.0), Phase::Queued, "two leave a host at a time");
    import(&mut desk, &[], &["db1", "db2"]);
    desk.say(rackferry_fleet::Connection(3), Said::TargetReady(MigrationId(1)));
    desk.say(a, Said::Ended(MigrationId(1), ended(Outcome::RolledBack)));
    desk.pass(1);
    let wait = desk.fleet.migration(queued).expect("known").wait.expect("it waits");
    assert_eq!((wait.code, wait.detail.as_str()), (WaitCode::AntiAffinity, "db: db1 is on b1"));
}
