//! One VM for people.

use rackferry_proto::v1::{GetVmResponse, Ownership, Vm, VmCopy};

use super::{dash, doctor, migration, spec, table, word};
use crate::units::{bytes, millis};

/// A VM, its copies, its migration, its spec, its problems.
pub fn detail(detail: &GetVmResponse, now_unix_ms: u64) -> String {
    let vm = detail.vm.clone().unwrap_or_default();
    let mut text = format!("VM {}  {}  {}", vm.name, owner(&vm), word::condition(vm.condition()));
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            text += &format!("\n  {name:<11} {value}");
        }
    };
    line("memory", bytes(vm.memory_bytes));
    line("machine", vm.machine_type.clone());
    line("generation", vm.generation.to_string());
    let rows = detail.copies.iter().map(|copy| row(copy, now_unix_ms));
    let header = ["copy on", "rack", "role", "state", "for", "generation", "memory", "qemu"];
    text += &format!("\n\n{}", table(&header, &["for", "generation", "memory"], rows));
    if let Some(moves) = &detail.migration {
        text += &format!("\n\n{}", migration::detail(moves, now_unix_ms));
    }
    let spec = spec::part(detail);
    if !spec.is_empty() {
        text += &format!("\n\n{spec}");
    }
    if !detail.problems.is_empty() {
        text += &format!("\n\n{}", doctor::list(&detail.problems).trim_end());
    }
    text
}

fn owner(vm: &Vm) -> String {
    let owner = format!("owned by {} ({})", vm.host, vm.rack);
    match vm.ownership() {
        Ownership::Stable => owner,
        ownership => format!("{owner}, {}", word::ownership(ownership)),
    }
}

fn row(copy: &VmCopy, now_unix_ms: u64) -> Vec<String> {
    let state = match (copy.connected, copy.run_state()) {
        (false, _) => "agent away".to_owned(),
        (true, rackferry_proto::v1::RunState::Unspecified) => "none".to_owned(),
        (true, state) => word::run_state(state),
    };
    vec![
        copy.host.clone(),
        copy.rack.clone(),
        word::copy_role(copy.role()),
        state,
        // Clocks differ.
        millis(now_unix_ms.saturating_sub(copy.since_unix_ms)),
        dash(copy.generation, copy.generation.to_string()),
        dash(copy.memory_bytes, bytes(copy.memory_bytes)),
        dash(copy.qemu_version.as_str(), copy.qemu_version.clone()),
    ]
}
