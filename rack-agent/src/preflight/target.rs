//! Could a VM run here?

use std::fs::OpenOptions;
use std::path::Path;
use std::sync::Arc;

use futures::future::join_all;
use rackferry_proto::v1::{self, FindingCode, Severity};

use super::host::{self, Program};
use super::{Late, blocks, warns};
use crate::agent::Agent;
use crate::policy::{Breach, Unseen};
use crate::storage::{Storage, StorageError};
use crate::vm::{Needs, Role, VmSpec, kvm_barrier};

/// Names of missing CPU features that are shown.
const SHOWN: usize = 8;
/// How QEMUs get back all rights.
const OPT_OUT: &str = "set qemu_uids = \"root\" in the settings of this host's agent";
const GIVE_MODEL: &str = "give the VM a CPU model that both hosts have";

/// Everything that speaks against it.
pub async fn findings(agent: &Agent, order: &v1::CheckTarget) -> Vec<v1::Finding> {
    let spec = match VmSpec::parse(&order.spec_toml) {
        Ok(spec) => spec,
        Err(error) => {
            let fix = "update this host's agent, or mend the VM's spec";
            return vec![blocks(FindingCode::Spec, error.to_string(), fix)];
        }
    };
    let mut findings = room(agent, &spec);
    let refused = refused(agent, &spec).await;
    if !refused.is_empty() {
        // Nothing of it is tried: not even its QEMU is asked for its version.
        findings.extend(refused);
        return findings;
    }
    let blockers = missing_parts(agent, &spec).await;
    let runs = blockers.is_empty();
    findings.extend(blockers);
    let needs = spec.needs();
    if let Some(older) = older(agent, &needs, &order.qemu_version).await {
        findings.push(older);
    }
    if order.cpu_properties.is_empty() {
        findings.extend(features(order));
    } else if runs {
        findings.extend(properties(agent, &needs, &order.cpu_properties).await);
    }
    findings
}

/// What a CPU has that this one lacks, and the other way round, by QEMU's word.
async fn properties(agent: &Agent, needs: &Needs<'_>, wanted: &[String]) -> Vec<v1::Finding> {
    let own = match agent.cpu_properties(needs).await {
        Ok(own) => own,
        Err(error) => {
            let cause = format!("what the VM's CPU would have here is not known: {error:#}");
            let fix = "install the VM's version of QEMU, or give the VM a CPU model that both have";
            return vec![blocks(FindingCode::CpuFeatures, cause, unless_late(&error, fix))];
        }
    };
    let mut findings = Vec::new();
    let fewer = missing(wanted, &own);
    if !fewer.is_empty() {
        findings.push(blocks(
            FindingCode::CpuFeatures,
            format!("the VM's CPU would lack {} here", listed(&fewer)),
            "take another target, or give the VM a CPU model that both hosts have",
        ));
    }
    let more = missing(&own, wanted);
    if needs.host_cpu && !more.is_empty() {
        findings.push(warns(FindingCode::CpuFeatures, more_here(&more), GIVE_MODEL));
    }
    findings
}

/// What mends it; a QEMU that is only late needs no mending.
fn unless_late<'a>(error: &anyhow::Error, fix: &'a str) -> &'a str {
    if error.is::<Late>() { "ask again in a minute: it is asked on meanwhile" } else { fix }
}

/// Why a VM whose CPU has these properties cannot run here; none if they are not known.
pub async fn cpu_lacks(agent: &Agent, spec: &VmSpec, wanted: &[String]) -> Option<v1::Finding> {
    if wanted.is_empty() {
        return None;
    }
    let found = properties(agent, &spec.needs(), wanted).await;
    found.into_iter().find(|finding| finding.severity() == Severity::Blocks)
}

fn more_here(more: &[&str]) -> String {
    format!(
        "this host's CPU has {}, its present one not: once it was restarted here it cannot go back",
        listed(more)
    )
}

/// The same by the names of the kernel: all that sources of an earlier version tell.
fn features(order: &v1::CheckTarget) -> Vec<v1::Finding> {
    let mut findings = Vec::new();
    let own = host::cpu_features();
    let fewer = missing(&order.cpu_features, &own);
    if !fewer.is_empty() {
        let cause = format!("this host's CPU has no {}", listed(&fewer));
        let fix = "take another target, or give the VM a CPU model that both hosts have";
        findings.push(blocks(FindingCode::CpuFeatures, cause, fix));
    }
    let more = missing(&own, &order.cpu_features);
    if !order.cpu_features.is_empty() && !more.is_empty() {
        findings.push(warns(FindingCode::CpuFeatures, more_here(&more), GIVE_MODEL));
    }
    findings
}

/// A place, a name, and memory.
fn room(agent: &Agent, spec: &VmSpec) -> Vec<v1::Finding> {
    let mut findings = Vec::new();
    if let Ok(vm) = agent.vms().get(spec.name()) {
        let runs = vm.status().standing.role == Role::Run;
        let what = if runs { "VM" } else { "copy that is arriving" };
        let cause = format!("there is a {what} of that name already");
        let force = if runs { "" } else { " --force" };
        let remove = format!("rackferry-agent vm destroy {}{force}", vm.name());
        let fix = format!("wait for it, or remove it if it is not needed: {remove}");
        findings.push(blocks(FindingCode::NameTaken, cause, fix));
    }
    let (need, free) = (spec.memory_bytes(), agent.vms().memory_free_bytes());
    if free < need {
        let cause = format!("needs {} MiB, {} MiB are free", need >> 20, free >> 20);
        findings.push(blocks(FindingCode::Memory, cause, "take another target, or move VMs away"));
    }
    if let Some(page) = spec.huge_pages() {
        let nodes = host::free_huge_pages(page.bytes());
        let free: u64 = nodes.iter().map(|(_, pages)| pages * page.bytes()).sum();
        if free < need {
            let each = nodes.iter().map(|(node, pages)| format!("node {node} has {pages}"));
            let cause = format!(
                "needs {} huge pages of {} MiB: {}",
                need / page.bytes(),
                page.bytes() >> 20,
                each.collect::<Vec<_>>().join(", ")
            );
            let fix = "raise vm.nr_hugepages on this host, or take another target";
            findings.push(blocks(FindingCode::HugePages, cause, fix));
        }
    }
    findings
}

/// What keeps a QEMU of this spec from running on this host.
pub async fn blockers(agent: &Agent, spec: &VmSpec) -> Vec<v1::Finding> {
    let refused = refused(agent, spec).await;
    if refused.is_empty() { missing_parts(agent, spec).await } else { refused }
}

/// What of it the host's policy does not allow.
async fn refused(agent: &Agent, spec: &VmSpec) -> Vec<v1::Finding> {
    let finding = |breach: Breach| blocks(FindingCode::Policy, breach.to_string(), breach.fix());
    match agent.vms().breaches(spec).await {
        Ok(breaches) => breaches.into_iter().map(finding).collect(),
        Err(Unseen { path, error }) => vec![out_of_reach(&path, &error)],
    }
}

/// What a QEMU of this spec would not find on this host.
async fn missing_parts(agent: &Agent, spec: &VmSpec) -> Vec<v1::Finding> {
    let needs = spec.needs();
    let mut findings = Vec::new();
    if agent.config().qemu_uids.in_force().is_some() {
        findings.extend(barriers(agent, &needs).await);
        if !findings.is_empty() {
            // It would not say its version either.
            return findings;
        }
    }
    match program(agent, &needs).await {
        Ok(program) if program.machines.contains(needs.machine) => {}
        Ok(program) => {
            let cause = format!(
                "QEMU {} of this host has no machine type {}",
                program.version, needs.machine
            );
            let fix = "take a target whose QEMU is not older than the VM's, or update this one's";
            findings.push(blocks(FindingCode::MachineType, cause, fix));
        }
        Err(error) => {
            let fix = unless_late(&error, "install it, or set qemu.binary of this host's agent");
            findings.push(blocks(FindingCode::QemuMissing, format!("{error:#}"), fix));
        }
    }
    if needs.kvm
        && let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/kvm")
    {
        let fix = "load kvm_intel or kvm_amd, and switch virtualisation on in the firmware";
        findings.push(blocks(FindingCode::Kvm, format!("/dev/kvm: {error}"), fix));
    }
    let files = needs.files.iter().map(|(path, writable)| file(agent.storage(), path, *writable));
    findings.extend(join_all(files).await.into_iter().flatten());
    for tap in &needs.taps {
        if let Err(error) = device(tap) {
            let cause = format!("network device {tap}: {error}");
            findings.push(blocks(FindingCode::Network, cause, "make it as on the VM's host"));
        }
    }
    findings
}

/// What a QEMU with a uid of its own cannot use, although it is there.
async fn barriers(agent: &Agent, needs: &Needs<'_>) -> Vec<v1::Finding> {
    let qemu = needs.qemu.unwrap_or(&agent.config().qemu);
    let mut findings = Vec::new();
    for path in [&qemu.binary].into_iter().chain(&qemu.firmware) {
        if let Ok(Some(barrier)) = agent.storage().barred(path).await {
            let cause = format!("QEMU runs as a user of its own, which {barrier}");
            let fix = format!("chmod o+rx what leads to {} (or {OPT_OUT})", path.display());
            findings.push(blocks(FindingCode::QemuMissing, cause, fix));
        }
    }
    if let Some(barrier) = kvm_barrier().filter(|_| needs.kvm) {
        let cause = format!("QEMU runs as a user of its own: {barrier}");
        let fix = format!("chgrp kvm /dev/kvm; chmod 660 /dev/kvm, as udev does it (or {OPT_OUT})");
        findings.push(blocks(FindingCode::Kvm, cause, fix));
    }
    findings
}

fn device(name: &str) -> std::io::Result<u32> {
    use rustix::net::{AddressFamily, SocketType, netdevice, socket};
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    Ok(netdevice::name_to_index(any, name)?)
}

async fn file(storage: &Storage, path: &Path, writable: bool) -> Option<v1::Finding> {
    let error = storage.open(path, writable).await.err()?;
    Some(out_of_reach(path, &error))
}

fn out_of_reach(path: &Path, error: &StorageError) -> v1::Finding {
    let cause = format!("{}: {error}", path.display());
    let fix = match error {
        StorageError::Failed(_) => {
            "make it reachable here: disks lie on storage that both hosts share"
        }
        StorageError::Hangs | StorageError::Full => {
            "look at this host's mounts and paths to storage (dmesg, mount, multipath -ll)"
        }
    };
    blocks(FindingCode::File, cause, fix)
}

async fn program(agent: &Agent, needs: &Needs<'_>) -> anyhow::Result<Arc<Program>> {
    let own = &agent.config().qemu;
    agent.programs().get(agent.storage(), &needs.qemu.unwrap_or(own).binary).await
}

/// A QEMU may be able to take a VM of a newer one, if both have the machine type; its developers do not promise it.
async fn older(agent: &Agent, needs: &Needs<'_>, than: &str) -> Option<v1::Finding> {
    let here = program(agent, needs).await.ok()?;
    let here = &here.version;
    if numbers(here) >= numbers(than) {
        return None;
    }
    let cause = format!("QEMU {here} of this host is older than the VM's {than}");
    Some(warns(FindingCode::QemuOlder, cause, "take a target that is not older, if there is one"))
}

/// `10.0.2` as numbers; the third one does not count.
fn numbers(version: &str) -> Vec<u32> {
    version.split('.').take(2).map_while(|part| part.parse().ok()).collect()
}

/// What of `wanted` is not in `there`; both are sorted.
fn missing<'a>(wanted: &'a [String], there: &[String]) -> Vec<&'a str> {
    let absent = |feature: &&String| there.binary_search(feature).is_err();
    wanted.iter().filter(absent).map(String::as_str).collect()
}

fn listed(names: &[&str]) -> String {
    let shown = names[..names.len().min(SHOWN)].join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_compared() {
        let (few, many) = (["aes".to_owned()], ["aes".to_owned(), "avx".to_owned()]);
        assert_eq!(missing(&many, &few), ["avx"]);
        assert!(missing(&few, &many).is_empty());
        let names: Vec<String> = (0..10).map(|n| format!("f{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(listed(&names), "f0, f1, f2, f3, f4, f5, f6, f7 and 2 more");
    }

    #[test]
    fn versions_are_compared_by_number() {
        assert!(numbers("7.2.22") < numbers("10.0.2"));
        assert!(numbers("10.0.2") >= numbers("10.0.9"));
    }

    #[tokio::test]
    async fn files_must_be_there_and_open() {
        let storage = Storage::default();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.img");
        let finding = file(&storage, &path, false).await.unwrap();
        assert_eq!(finding.code(), FindingCode::File);
        assert!(finding.cause.contains("disk.img"), "{}", finding.cause);
        std::fs::write(&path, "").unwrap();
        assert_eq!(file(&storage, &path, true).await, None);
    }
}
