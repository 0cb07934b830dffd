//! Snapshots of every screen.

use insta::assert_snapshot;
use rackferry_proto::v1;

use super::{
    check, cluster, doctor, evacuation, event, follow, inventory, json, migration, plan, site, vm,
};
use crate::exit::{Code, Failure};

const GIB: u64 = 1 << 30;

fn one(vm: &str, phase: v1::Phase) -> v1::Migration {
    v1::Migration {
        id: format!("mig-{vm}"),
        vm: vm.to_owned(),
        evacuation_id: "evac-1".to_owned(),
        source_host: "r1-h1".to_owned(),
        source_rack: "r1".to_owned(),
        target_host: "r2-h1".to_owned(),
        target_rack: "r2".to_owned(),
        memory_bytes: GIB,
        generation: 7,
        attempt: 1,
        phase: phase.into(),
        created_unix_ms: 1_000_000,
        ..v1::Migration::default()
    }
}

fn moved() -> v1::Migration {
    v1::Migration {
        pass1_ratio: 1.0,
        started_unix_ms: 1_001_000,
        ended_unix_ms: 1_013_400,
        blackout_ms: 42,
        qemu_downtime_ms: 35,
        end: v1::MigrationEnd::Moved.into(),
        counters: Some(v1::TransferCounters {
            logical_bytes: 2 * GIB,
            zero_bytes: GIB,
            duplicate_bytes: GIB - (GIB >> 3),
            raw_bytes: GIB >> 3,
            wire_bytes: GIB >> 4,
            supplied_bytes: 4096,
        }),
        ..one("web-1", v1::Phase::Done)
    }
}

fn copying() -> v1::Migration {
    v1::Migration {
        pass1_ratio: 0.789,
        started_unix_ms: 1_001_000,
        round: 2,
        remaining_bytes: GIB >> 2,
        dirty_bytes_per_second: 93 << 20,
        send_bytes_per_second: 100 << 20,
        ..one("db-3", v1::Phase::Copying)
    }
}

fn queued() -> v1::Migration {
    v1::Migration {
        wait_reason: Some(v1::WaitReason {
            code: v1::WaitCode::TargetBusy.into(),
            detail: "r2-h1".to_owned(),
            limit: 2,
            used: 2,
        }),
        ..one("ci-88", v1::Phase::Queued)
    }
}

fn failed() -> v1::Migration {
    v1::Migration {
        started_unix_ms: 1_001_000,
        ended_unix_ms: 1_002_000,
        reason: "the agent of r2-h1 was restarted".to_owned(),
        end: v1::MigrationEnd::RolledBack.into(),
        ..one("api-12", v1::Phase::RolledBack)
    }
}

fn running() -> v1::Evacuation {
    v1::Evacuation {
        id: "evac-1".to_owned(),
        sources: vec!["r1".to_owned()],
        targets: vec!["r2".to_owned(), "r3".to_owned()],
        state: v1::EvacuationState::Running.into(),
        created_unix_ms: 1_000_000,
        migrations: vec![moved(), copying(), queued(), failed()],
        totals: Some(v1::EvacuationTotals {
            vms: 4,
            queued: 1,
            copying: 1,
            done: 1,
            failed: 1,
            memory_bytes: 4 * GIB,
            memory_done_bytes: GIB,
            counters: moved().counters,
            ..v1::EvacuationTotals::default()
        }),
        ..v1::Evacuation::default()
    }
}

fn incomplete() -> v1::Evacuation {
    let totals = v1::EvacuationTotals {
        vms: 2,
        done: 1,
        failed: 1,
        memory_bytes: 2 * GIB,
        memory_done_bytes: GIB,
        counters: moved().counters,
        ..v1::EvacuationTotals::default()
    };
    v1::Evacuation {
        state: v1::EvacuationState::Incomplete.into(),
        result_code: 4,
        ended_unix_ms: 1_075_000,
        migrations: vec![moved(), failed()],
        totals: Some(totals),
        ..running()
    }
}

#[test]
fn evacuations() {
    assert_snapshot!("detail", evacuation::detail(&running(), NOW));
    assert_snapshot!("outcome", evacuation::outcome(&incomplete()));
    let left_out = v1::Evacuation { left_out: way_back().1, ..incomplete() };
    assert_snapshot!("outcome_left_out", evacuation::outcome(&left_out));
    let text = evacuation::detail(&left_out, NOW);
    let line =
        "Left out, 2 VMs:\n    db-3 on r2-h1: the agent of r1-h2 is not connected\n    ci-88:";
    assert!(text.contains(line), "{text}");
    let mut remaining = v1::Evacuation { remaining: way_back().1[..1].into(), ..left_out };
    remaining.silent_hosts = vec!["r1-h2".to_owned()];
    assert_snapshot!("outcome_remaining", evacuation::outcome(&remaining));
    let cancelled =
        v1::Evacuation { state: v1::EvacuationState::Cancelled.into(), ..remaining.clone() };
    assert!(!evacuation::outcome(&cancelled).contains("cordon"));
    let open = v1::Evacuation { no_cordon: true, ..remaining };
    assert!(!evacuation::outcome(&open).contains("cordon"));
    assert_snapshot!("list", evacuation::list(&[incomplete(), running()]));
    assert_snapshot!("cancelled", evacuation::cancelled(&running()));
    assert_snapshot!("detached", follow::goes_on("evac-1"));
    let late = v1::Evacuation { overdue: true, ..running() };
    assert_snapshot!("overdue", evacuation::overdue(&late));
    assert_snapshot!("late", evacuation::list(&[late]));
    assert_eq!(evacuation::list(&[]), "No evacuations.");
}

#[test]
fn what_goes_on_has_no_result() {
    let value = |text: String| serde_json::from_str::<serde_json::Value>(&text).unwrap();
    let of_it = value(json::evacuation_snapshot(&running(), &[]));
    assert!(of_it["id"] == "evac-1" && of_it.get("result_code").is_none(), "{of_it}");
    let of_it = value(json::migration_snapshot(&copying()));
    assert!(of_it["id"] == "mig-db-3" && of_it.get("result_code").is_none(), "{of_it}");
    let listed = value(json::evacuations(&[incomplete(), running()]));
    assert_eq!(listed["evacuations"][0]["result_code"], 4);
    assert!(listed["evacuations"][1].get("result_code").is_none(), "{listed}");
}

#[test]
fn an_operator_is_called() {
    let stuck = v1::Migration {
        wait_reason: Some(v1::WaitReason {
            code: v1::WaitCode::SourceDisconnected.into(),
            detail: "r1-h1".to_owned(),
            ..v1::WaitReason::default()
        }),
        ..one("db-3", v1::Phase::OwnerUnknown)
    };
    let left = v1::Evacuation { migrations: vec![moved(), stuck], ..running() };
    assert_snapshot!("stuck", evacuation::stuck(&left));
    let mut evacuation = running();
    evacuation.totals.as_mut().unwrap().uncertain = 1;
    assert!(evacuation::summary(&evacuation).contains("OPERATOR NEEDED 1"));
}

/// When the screens are looked at: 75 s after everything was asked for.
const NOW: u64 = 1_075_000;

#[test]
fn migrations() {
    let all = [moved(), copying(), queued(), failed()];
    assert_snapshot!("migrations", migration::list(&all, NOW));
    assert_snapshot!("json_migrations", json::migrations(&all[1..3]));
    assert_eq!(migration::list(&[], NOW), "No migrations.");
    let forecast = v1::Migration {
        predicted_stop_ms: 420,
        stop_limit_ms: 300,
        counters: moved().counters,
        ..copying()
    };
    assert_snapshot!("migration", migration::detail(&forecast, NOW));
    assert_snapshot!("migration_queued", migration::detail(&queued(), NOW));
    assert_snapshot!("migration_failed", migration::detail(&failed(), NOW));
}

#[test]
fn what_is_detached_says_how_to_follow_it() {
    assert_snapshot!("migration_detached", migration::detached(&queued()));
    let follow = |text: String| -> (serde_json::Value, serde_json::Value) {
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["result_code"], 0);
        (value["id"].clone(), value["follow"].clone())
    };
    assert_eq!(
        follow(json::detached_migration(&queued())),
        ("mig-ci-88".into(), "rackferry migration show --watch mig-ci-88".into())
    );
    assert_eq!(
        follow(json::detached_evacuation(&running(), &[])),
        ("evac-1".into(), "rackferry status --watch evac-1".into())
    );
}

#[test]
fn there_is_no_eta_without_a_rate_or_at_the_end() {
    let eta = |one: v1::Migration| rackferry_model::view::Migration::from(one).eta_ms;
    assert_eq!(eta(copying()), Some(2560));
    assert_eq!(eta(v1::Migration { send_bytes_per_second: 0, ..copying() }), None);
    assert_eq!(eta(v1::Migration { remaining_bytes: 0, ..copying() }), None);
    assert_eq!(eta(v1::Migration { ended_unix_ms: 1, ..copying() }), None);
}

#[test]
fn single_moves() {
    assert_snapshot!("moved", migration::outcome(&moved()));
    assert_snapshot!("stayed", migration::outcome(&failed()));
    assert_snapshot!("forced", migration::forced(&copying()));
    assert_eq!(migration::forced(&moved()), "mig-web-1 is over: VM web-1 moved");
    let switching = one("web-1", v1::Phase::Switching);
    assert_eq!(
        migration::cancelled(&switching),
        "mig-web-1: VM web-1 is switching and goes on to r2-h1"
    );
}

fn vms() -> Vec<v1::Vm> {
    let vm = v1::Vm {
        name: "web-1".to_owned(),
        host: "r2-h1".to_owned(),
        rack: "r2".to_owned(),
        memory_bytes: GIB,
        generation: 7,
        ownership: v1::Ownership::Stable.into(),
        condition: v1::VmCondition::Running.into(),
        qemu_version: "7.2.22".to_owned(),
        machine_type: "pc-q35-7.2".to_owned(),
        migration_id: String::new(),
    };
    let moving = v1::Vm {
        name: "db-3".to_owned(),
        ownership: v1::Ownership::Committed.into(),
        condition: v1::VmCondition::Unknown.into(),
        migration_id: "mig-9".to_owned(),
        ..vm.clone()
    };
    vec![moving, vm]
}

fn hosts() -> Vec<v1::Host> {
    let host = v1::Host {
        name: "r1-h1".to_owned(),
        rack: "r1".to_owned(),
        host_id: 1,
        page_addr: "10.0.0.1:7401".to_owned(),
        memory_bytes: 64 * GIB,
        memory_free_bytes: 12 * GIB,
        connected: true,
        agent_version: "0.1.0".to_owned(),
        vms: 24,
        outgoing: 2,
        incoming: 0,
        cordoned: false,
        declared_dead: false,
        installation_id: String::new(),
        listed: v1::Listed::Unspecified.into(),
        listed_rack: String::new(),
    };
    let away = v1::Host {
        name: "r1-h2".to_owned(),
        connected: false,
        declared_dead: true,
        ..host.clone()
    };
    let cordoned = v1::Host {
        name: "r1-h3".to_owned(),
        cordoned: true,
        listed: v1::Listed::No.into(),
        ..host.clone()
    };
    let elsewhere = v1::Host {
        name: "r1-h4".to_owned(),
        listed: v1::Listed::Elsewhere.into(),
        listed_rack: "r2".to_owned(),
        ..host.clone()
    };
    vec![host, away, cordoned, elsewhere]
}

fn coordinators() -> v1::Cluster {
    let node = |id: u64, role: v1::NodeRole, matched_index| v1::ClusterNode {
        id,
        addr: format!("10.0.0.{id}:7400"),
        role: role.into(),
        matched_index,
    };
    v1::Cluster {
        node_id: 1,
        leader_id: 1,
        leader_addr: "10.0.0.1:7400".to_owned(),
        term: 4,
        last_log_index: 1200,
        applied_index: 1200,
        snapshot_index: 1000,
        purged_index: 0,
        nodes: vec![
            node(1, v1::NodeRole::Leader, Some(1200)),
            node(2, v1::NodeRole::Follower, Some(1198)),
            node(3, v1::NodeRole::Learner, None),
        ],
    }
}

#[test]
fn the_coordinators() {
    assert_snapshot!("cluster", cluster::status(&coordinators()));
    assert_snapshot!("json_cluster", json::cluster(&coordinators()));
    let leaderless = v1::Cluster { leader_id: 0, ..coordinators() };
    assert!(cluster::status(&leaderless).starts_with("No coordinator leads"));
}

#[test]
fn lists() {
    assert_snapshot!("vms", inventory::vms(&vms()));
    assert_snapshot!("hosts", inventory::hosts(&hosts()));
}

#[test]
fn json_answers() {
    assert_snapshot!("json_evacuation", json::evacuation(&running(), &[], Code::StillRunning));
    assert_snapshot!("json_migration", json::migration(&moved(), Code::Done));
    assert_snapshot!("json_vms", json::vms(&vms()));
    assert_snapshot!("json_hosts", json::hosts(&hosts()));
    let refused = rackferry_proto::refuse(rackferry_proto::Reason::DoesNotFit, "does not fit");
    assert_snapshot!("json_failure", json::failure(&Failure::from(refused)));
}

fn links() -> Vec<v1::LinkStatus> {
    use v1::link_limit::Limit;
    let limit = |limit| Some(v1::LinkLimit { link: "core0".to_owned(), limit: Some(limit) });
    let core = v1::LinkStatus {
        name: "core0".to_owned(),
        a: "r1".to_owned(),
        b: "r2".to_owned(),
        bytes_per_second: 125_000_000,
        cost: 1,
        limit: limit(Limit::Percent(40)),
        forth: Some(v1::LaneStatus { moves: 3, allotted_bytes_per_second: 49_999_998 }),
        back: Some(v1::LaneStatus::default()),
    };
    let free = v1::LinkStatus { name: "core1".to_owned(), limit: None, ..core.clone() };
    let gone = v1::LinkStatus {
        name: "old".to_owned(),
        limit: limit(Limit::BytesPerSecond(25_000_000)),
        ..v1::LinkStatus::default()
    };
    vec![core, free, gone]
}

#[test]
fn links_and_limits() {
    assert_snapshot!("links", site::links(&links()));
    assert_snapshot!("json_links", json::links(&links()));
    assert_eq!(site::links(&[]), "No links. Import an inventory first.");
    let limited =
        v1::Evacuation { link_limits: vec![links()[0].limit.clone().unwrap()], ..running() };
    assert!(evacuation::summary(&limited).contains("limits  core0 40 %"));
}

#[test]
fn the_inventory() {
    let summary =
        v1::InventorySummary { racks: 2, hosts: 3, spines: 0, links: 1, policies: 2, vms: 9 };
    let rack = |name: &str, hosts: &[&str], away: &[&str]| v1::InventoryRack {
        name: name.to_owned(),
        hosts: hosts.iter().map(ToString::to_string).collect(),
        away: away.iter().map(ToString::to_string).collect(),
    };
    let inventory = v1::GetInventoryResponse {
        text: "version: 1".to_owned(),
        imported_unix_ms: 1_000_000,
        summary: Some(summary),
        racks: vec![rack("r1", &["r1-h1", "r1-h2"], &["r1-h2"]), rack("r2", &["r2-h1"], &[])],
        links: links(),
        strangers: vec![hosts()[2].clone(), hosts()[3].clone()],
    };
    assert_snapshot!("inventory", site::inventory(&inventory));
    assert_snapshot!("json_inventory", json::inventory(&inventory));
    let none = v1::GetInventoryResponse::default();
    assert_eq!(
        site::inventory(&none),
        "No inventory. Import one with: rackferry inventory import FILE"
    );
    assert_snapshot!("imported", site::imported(true, &summary));
    assert_snapshot!("json_imported", json::imported(true, &summary));
    assert!(site::imported(false, &summary).starts_with("unchanged"));
    assert!(site::checked("f.yaml", &summary).starts_with("f.yaml: no mistakes"));
}

#[test]
fn held_back() {
    let paused = v1::Evacuation { state: v1::EvacuationState::Paused.into(), ..running() };
    assert_snapshot!("paused", evacuation::held(&paused));
    assert_snapshot!("resumed", evacuation::held(&running()));
    assert_eq!(site::cordoned(&hosts()[..2], true), "cordoned: r1-h1, r1-h2");
    assert_eq!(site::cordoned(&hosts()[..1], false), "open: r1-h1");
}

#[test]
fn json_results() {
    let result = |text: String| -> u64 {
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        value["result_code"].as_u64().expect("every answer has a result")
    };
    assert_eq!(result(json::evacuation(&incomplete(), &[], Code::Incomplete)), 4);
    assert_eq!(result(json::evacuations(&[running()])), 0);
    assert_eq!(result(json::failure(&Failure::Declined)), 5);
}

#[test]
fn every_reason_to_wait_has_words() {
    for number in 1..=14 {
        let code = v1::WaitCode::try_from(number).expect("these are all");
        let reason =
            v1::WaitReason { code: code.into(), detail: "h1".to_owned(), limit: 4, used: 4 };
        let words = evacuation::wait(&reason);
        // It is about no single host.
        let everywhere = code == v1::WaitCode::FleetBusy;
        assert!(everywhere || words.contains("h1"), "{code:?}");
        assert!(words.len() > 10, "{code:?}: {words}");
    }
    assert!(v1::WaitCode::try_from(15).is_err(), "a new one needs words");
}

fn checks() -> Vec<v1::VmCheck> {
    let finding =
        |severity: v1::Severity, code: v1::FindingCode, cause: &str, fix: &str| v1::Finding {
            severity: severity.into(),
            code: code.into(),
            cause: cause.to_owned(),
            fix: fix.to_owned(),
        };
    let target = |host: &str, findings| v1::TargetCheck { host: host.to_owned(), findings };
    let older = finding(
        v1::Severity::Warns,
        v1::FindingCode::QemuOlder,
        "QEMU 7.2.22 of this host is older than the VM's 10.0.2",
        "take a target that is not older, if there is one",
    );
    let blocked = finding(
        v1::Severity::Blocks,
        v1::FindingCode::QemuBlocks,
        "VFIO device doesn't support migration",
        "take that away from the VM, or stop the VM",
    );
    let memory = finding(
        v1::Severity::Blocks,
        v1::FindingCode::Memory,
        "needs 4096 MiB, 1024 MiB are free",
        "take another target, or move VMs away",
    );
    vec![
        v1::VmCheck {
            vm: "web-1".to_owned(),
            host: "r1-h1".to_owned(),
            targets: vec![target("r2-h1", vec![memory]), target("r2-h2", vec![older])],
            can_move: true,
            ..v1::VmCheck::default()
        },
        v1::VmCheck {
            vm: "gpu-1".to_owned(),
            host: "r1-h2".to_owned(),
            findings: vec![blocked],
            ..v1::VmCheck::default()
        },
    ]
}

#[test]
fn what_keeps_vms_from_moving() {
    assert_snapshot!("checks", check::vms(&checks()));
    assert_snapshot!("json_checks", json::checks(&checks()));
    assert_snapshot!("no_checks", check::vms(&[]));
}

fn way_back() -> (v1::Evacuation, Vec<v1::StayingVm>) {
    let plan = v1::Evacuation {
        restores: "evac-1".to_owned(),
        sources: vec!["r2-h1".to_owned()],
        targets: vec!["r1-h1".to_owned()],
        migrations: vec![one("web-1", v1::Phase::Queued)],
        ..v1::Evacuation::default()
    };
    let stays = |vm: &str, host: &str, reason: &str| v1::StayingVm {
        vm: vm.to_owned(),
        host: host.to_owned(),
        reason: reason.to_owned(),
    };
    let staying = vec![
        stays("db-3", "r2-h1", "the agent of r1-h2 is not connected"),
        stays("ci-88", "", "it is gone"),
    ];
    (plan, staying)
}

#[test]
fn plans() {
    assert_snapshot!("plan", plan::screen(&running(), &[], &[]));
    let gpu = one("gpu-1", v1::Phase::Queued);
    let with_gpu =
        v1::Evacuation { migrations: vec![gpu, one("web-1", v1::Phase::Queued)], ..running() };
    let checks = checks();
    let blocked = &checks[1..];
    assert_snapshot!("plan_blocked", plan::screen(&with_gpu, blocked, &[]));
    let nothing = v1::Evacuation { migrations: vec![], ..running() };
    assert!(plan::screen(&nothing, blocked, &[]).starts_with("Plan: evacuate r1 -> r2, r3  NOT"));
    let (way, staying) = way_back();
    let left_out = v1::Evacuation { left_out: staying.clone(), ..running() };
    assert_snapshot!("plan_left_out", plan::screen(&left_out, &[], &[]));
    assert_snapshot!("plan_restore", plan::screen(&way, &[], &staying));
    assert_snapshot!("staying", plan::staying(&staying));
    let file = Some("plan-7f3a.json");
    assert_snapshot!("json_plan", json::plan(&running(), &[], file, Code::Done));
    assert_snapshot!("json_plan_blocked", json::plan(&with_gpu, blocked, None, Code::NotFeasible));
    assert_snapshot!("json_restore", json::evacuation(&way, &staying, Code::Done));
}

#[test]
fn a_line_is_the_same_value() {
    let mut strange = running();
    strange.migrations[0].reason = "a\nb  \"c\" {\n   d".to_owned();
    let text = json::evacuation(&strange, &[], Code::StillRunning);
    let line = json::line(&text);
    assert!(!line.contains('\n'));
    let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!(value(&line), value(&text));
}

#[test]
fn what_is_not_as_it_should_be() {
    let problem =
        |code: v1::ProblemCode, host: &str, vm: &str, cause: &str, fix: &str| v1::Problem {
            code: code.into(),
            host: host.to_owned(),
            vm: vm.to_owned(),
            cause: cause.to_owned(),
            fix: fix.to_owned(),
            repairable: code == v1::ProblemCode::Leftover,
        };
    let all = [
        problem(
            v1::ProblemCode::Astray,
            "r2-h1",
            "web-1",
            "it runs here, and r1-h1 owns it",
            "look at both hosts",
        ),
        problem(
            v1::ProblemCode::Leftover,
            "r2-h2",
            "db-3",
            "a copy is left that is loaded and stopped; r1-h1 owns the VM",
            "rackferry doctor --repair",
        ),
        problem(
            v1::ProblemCode::Clock,
            "r1-h2",
            "",
            "its clock and the coordinator's are 7.0 s apart",
            "synchronise both with NTP",
        ),
        problem(
            v1::ProblemCode::Certificate,
            "",
            "",
            "the coordinator's certificate ends in 3 days",
            "make it a new one",
        ),
    ];
    assert_snapshot!("doctor", doctor::problems(&all, &[]));
    assert_snapshot!("doctor_repaired", doctor::problems(&[], &all[1..2]));
    assert_snapshot!("json_doctor", json::problems(&all, &all[1..2]));
    assert_eq!(doctor::problems(&[], &[]), "No problems.");
}

/// A VM in the middle of its migration, with a problem.
fn vm_detail() -> v1::GetVmResponse {
    let copy = |host: &str, role: v1::CopyRole, state: v1::RunState| v1::VmCopy {
        host: host.to_owned(),
        rack: "r1".to_owned(),
        role: role.into(),
        connected: true,
        run_state: state.into(),
        since_unix_ms: 1_000_000,
        generation: 6,
        migration_id: "mig-db-3".to_owned(),
        memory_bytes: GIB,
        qemu_version: "10.0.2".to_owned(),
        machine_type: "pc-q35-10.0".to_owned(),
        may_have_run: true,
    };
    let away = v1::VmCopy {
        connected: false,
        generation: 7,
        ..v1::VmCopy { host: "r2-h1".to_owned(), rack: "r2".to_owned(), ..v1::VmCopy::default() }
    };
    v1::GetVmResponse {
        vm: Some(v1::Vm {
            name: "db-3".to_owned(),
            host: "r1-h1".to_owned(),
            rack: "r1".to_owned(),
            memory_bytes: GIB,
            generation: 6,
            ownership: v1::Ownership::Moving.into(),
            condition: v1::VmCondition::Running.into(),
            migration_id: "mig-db-3".to_owned(),
            qemu_version: "10.0.2".to_owned(),
            machine_type: "pc-q35-10.0".to_owned(),
        }),
        copies: vec![
            copy("r1-h1", v1::CopyRole::Source, v1::RunState::Running),
            v1::VmCopy { role: v1::CopyRole::Target.into(), since_unix_ms: 1_060_000, ..away },
            v1::VmCopy {
                run_state: v1::RunState::Unspecified.into(),
                generation: 0,
                memory_bytes: 0,
                qemu_version: String::new(),
                ..copy("r1-h2", v1::CopyRole::Other, v1::RunState::Unspecified)
            },
        ],
        migration: Some(copying()),
        problems: vec![v1::Problem {
            code: v1::ProblemCode::AgentAway.into(),
            host: "r2-h1".to_owned(),
            vm: String::new(),
            cause: "its agent is not connected, for 4 s at least; it owns 0 VMs".to_owned(),
            fix: "on r2-h1: systemctl start rackferry-agent".to_owned(),
            repairable: false,
        }],
        specs: Some(v1::VmSpecs {
            registered_toml: "name = \"db-3\"\ncpus = 1\n".to_owned(),
            reported_toml: "name = \"db-3\"\ncpus = 2\n".to_owned(),
        }),
    }
}

#[test]
fn one_vm() {
    let text = vm::detail(&vm_detail(), 1_064_000);
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let row = |host: &str| {
        let row = text.lines().find(|line| line.starts_with(host));
        words(row.unwrap_or_else(|| panic!("no {host} in\n{text}")))
    };
    assert!(text.starts_with("VM db-3  owned by r1-h1 (r1), moving  running\n"), "{text}");
    assert_eq!(row("r1-h1 ")[..4], ["r1-h1", "r1", "source", "running"]);
    assert_eq!(row("r2-h1 ")[..5], ["r2-h1", "r2", "target", "agent", "away"]);
    assert_eq!(row("r1-h2 ")[..4], ["r1-h2", "r1", "other", "none"]);
    assert!(text.contains("mig-db-3  VM db-3"), "{text}");
    let specs = "\n\nregistered spec:\n  name = \"db-3\"\n  cpus = 1\n\n\
                 r1-h1 reports another spec (- registered, + reported):\n    name = \"db-3\"\n  \
                 - cpus = 1\n  + cpus = 2\n\n";
    assert!(text.contains(specs), "{text}");
    assert!(text.ends_with("fix: on r2-h1: systemctl start rackferry-agent"), "{text}");

    let value: serde_json::Value = serde_json::from_str(&json::vm(&vm_detail())).unwrap();
    assert_eq!(value["result_code"], 4);
    assert_eq!(value["copies"][0]["role"], "source");
    assert_eq!(value["copies"][1]["run_state"], serde_json::Value::Null);
    assert_eq!(value["copies"][1]["generation"], 7);
    assert_eq!(value["migration"]["id"], "mig-db-3");
    assert_eq!(value["problems"][0]["code"], "agent_away");
    assert_eq!(value["specs"]["registered_toml"], "name = \"db-3\"\ncpus = 1\n");
    assert_eq!(value["specs"]["differ"], true);
}

fn events() -> Vec<v1::Event> {
    let of = |id: u64, role: &str, name: &str, action: &str, subject: &str| v1::Event {
        id: format!("event-{id}"),
        first_unix_ms: 1_790_000_000_000 + id * 61_000,
        last_unix_ms: 1_790_000_000_000 + id * 61_000,
        count: 1,
        name: name.to_owned(),
        role: role.to_owned(),
        action: action.to_owned(),
        subject: subject.to_owned(),
        ..v1::Event::default()
    };
    let evacuated = v1::Event {
        address: "10.0.0.9".to_owned(),
        outcome: v1::EventOutcome::Accepted.into(),
        detail: "as evac-3".to_owned(),
        ..of(1, "operator", "anna", "evacuate", "r1 to r2, r3")
    };
    let ended = v1::Event {
        outcome: v1::EventOutcome::Happened.into(),
        detail: "incomplete: 40 of 41 VMs moved".to_owned(),
        ..of(2, "coordinator", "", "evacuation-ended", "evac-3")
    };
    let denied = v1::Event {
        address: "10.0.0.7".to_owned(),
        outcome: v1::EventOutcome::Refused.into(),
        reason: "NOT_PERMITTED".to_owned(),
        detail: "this is for operator, admin; the certificate is one of viewer eve".to_owned(),
        count: 17,
        last_unix_ms: 1_790_000_500_000,
        ..of(3, "viewer", "eve", "call", "InventoryService/CordonHosts")
    };
    let mistaken = v1::Event {
        outcome: v1::EventOutcome::Refused.into(),
        reason: "INVALID_INVENTORY".to_owned(),
        detail: "dc1.yaml:7: \u{1b}[31mno rack\ndc1.yaml:9: no host".to_owned(),
        ..of(9, "admin", "root", "inventory-import", "dc1.yaml")
    };
    let cordoned = v1::Event {
        outcome: v1::EventOutcome::Accepted.into(),
        ..of(10, "none", "", "cordon", "r1-h1")
    };
    vec![evacuated, ended, denied, mistaken, cordoned]
}

#[test]
fn the_record_of_who_did_what() {
    assert_snapshot!("events", event::list(&events()));
    assert_snapshot!("events_none", event::list(&[]));
    assert_snapshot!("event_line", event::line(&events()[2]));
    assert_snapshot!("json_events", json::events(&events()[..3]));
    assert_snapshot!("json_event", json::line(&json::event(&events()[0])));
}
