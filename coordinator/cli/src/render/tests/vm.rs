//! VMs.

use insta::assert_snapshot;
use rackferry_proto::v1;

use super::{GIB, copying};
use crate::render::{inventory, json, vm};

pub(super) fn vms() -> Vec<v1::Vm> {
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

#[test]
fn lists() {
    assert_snapshot!("vms", inventory::vms(&vms()));
}
