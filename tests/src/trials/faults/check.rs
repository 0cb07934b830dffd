//! What must hold after a fault, however it went.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::strike::qemus;
use crate::lab::site::Site;
use crate::leak::memfds_of;

/// A VM that runs beats within this, also on a machine that is short of CPU.
const BEAT: Duration = Duration::from_secs(60);
/// Guests check all of their memory within this.
const CHECK: Duration = Duration::from_secs(60);
/// What ends a little after the evacuation: old QEMUs, their folders, their memory.
const TIDY: Duration = Duration::from_secs(15);

/// A VM as `vm list` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its owner.
    pub host: String,
    /// How it stands.
    pub ownership: String,
    /// What its owner says of it.
    pub condition: String,
}

/// `vm list`, by name.
pub fn vm_list(site: &Site<'_>) -> Result<BTreeMap<String, Listed>> {
    let list = site.cli_json(&["vm", "list"])?;
    let vms = list["vms"].as_array().context("vm list has no VMs")?;
    let text = |vm: &Value, key: &str| vm[key].as_str().unwrap_or_default().to_owned();
    let mut listed = BTreeMap::new();
    for vm in vms {
        let name = text(vm, "name");
        let one = Listed {
            host: text(vm, "host"),
            ownership: text(vm, "ownership"),
            condition: text(vm, "condition"),
        };
        ensure!(listed.insert(name.clone(), one).is_none(), "{name} is listed twice");
    }
    Ok(listed)
}

/// Waits until each VM stands with one owner, and is not about to change; then returns where each is.
pub fn settled(site: &Site<'_>, limit: Duration) -> Result<BTreeMap<String, Listed>> {
    let start = Instant::now();
    loop {
        let listed = vm_list(site);
        let calm = |vm: &Listed| {
            vm.ownership == "stable" && matches!(vm.condition.as_str(), "running" | "dead")
        };
        match listed {
            Ok(listed) if listed.values().all(calm) => return Ok(listed),
            Ok(listed) if start.elapsed() > limit => bail!("VMs do not settle: {listed:?}"),
            Err(error) if start.elapsed() > limit => return Err(error),
            _ => thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// Every VM runs once, where its owner is, and finds its memory right; and nothing else is there.
pub fn check(site: &Site<'_>, vms: &BTreeSet<String>) -> Result<()> {
    let owners = settled(site, BEAT)?;
    let names: Vec<&str> = vms.iter().map(String::as_str).collect();
    ensure!(owners.keys().eq(vms), "VMs are {vms:?}, listed are {owners:?}");
    for (vm, listed) in &owners {
        ensure!(listed.condition == "running", "{vm} does not run: {listed:?}");
        let beat = site.lab().heartbeats().wait_beat(vm, BEAT)?;
        let host = site.lab().heartbeats().host(beat);
        ensure!(host == listed.host, "{vm} runs on {host}, its owner is {}", listed.host);
    }
    let start = Instant::now();
    while let Err(error) = tidy(site, &owners) {
        ensure!(start.elapsed() < TIDY, "left over: {error:#}");
        thread::sleep(Duration::from_millis(100));
    }
    site.lab().heartbeats().check(&names, CHECK)
}

/// Nothing is there but what the VMs need.
fn tidy(site: &Site<'_>, owners: &BTreeMap<String, Listed>) -> Result<()> {
    let expected: BTreeSet<(String, String)> =
        owners.iter().map(|(vm, listed)| (listed.host.clone(), vm.clone())).collect();
    let mut processes: Vec<(String, String)> =
        qemus(site.lab())?.into_iter().map(|qemu| (qemu.host, qemu.vm)).collect();
    processes.sort();
    ensure!(processes.iter().eq(&expected), "VMs {expected:?}, QEMUs {processes:?}");
    for (host, agent) in site.agents() {
        let name = host.name();
        let own = |what: &str| owners.get(what).is_some_and(|vm| vm.host == name);
        let vms = site.lab().folder().join(&name).join("state").join("vms");
        for entry in fs::read_dir(&vms)?.flatten() {
            let vm = entry.file_name().to_string_lossy().into_owned();
            ensure!(own(&vm), "{name} has a folder {vm}");
            for socket in ["migrate.sock", "run/migrate.sock"] {
                let socket = entry.path().join(socket);
                ensure!(!socket.exists(), "{name} has {}", socket.display());
            }
        }
        let mut memories = mapped(agent.id());
        memories.extend(memfds_of(agent.id() as i32).into_iter().map(|(_, memory, _)| memory));
        let foreign =
            memories.iter().find(|m| m.strip_prefix("rackferry-").is_some_and(|vm| !own(vm)));
        ensure!(foreign.is_none(), "the agent of {name} keeps memory {foreign:?}");
    }
    Ok(())
}

/// The memory files that a process has mapped.
fn mapped(pid: u32) -> BTreeSet<String> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let names = maps.lines().filter_map(|line| line.split_once("/memfd:"));
    names.map(|(_, name)| name.trim_end_matches(" (deleted)").to_owned()).collect()
}
