//! The fault itself: which process it hits, and its end.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::plan::{Kind, Plan};
use super::quiet;
use super::view::{Evacuation, Move};
use crate::Lab;
use crate::lab::site::Site;
use crate::procs;

/// Leaders killed one after the other, at most.
const LEADERS: usize = 20;
/// How long each of them stays down.
const DOWN: Duration = Duration::from_secs(1);

/// What was hit.
#[derive(Clone, Debug)]
pub struct Struck {
    /// For people.
    pub what: String,
    /// The VM whose QEMU was killed, and where.
    pub killed: Option<(String, String)>,
}

/// A QEMU of the lab.
#[derive(Clone, Debug)]
pub struct QemuOf {
    /// Its process.
    pub pid: Pid,
    /// Its VM.
    pub vm: String,
    /// The host whose agent started it.
    pub host: String,
}

/// Every QEMU that an agent of the lab started and that lives.
pub fn qemus(lab: &Lab) -> Result<Vec<QemuOf>> {
    let folder = format!("{}/", lab.folder().display());
    let mut found = Vec::new();
    for (pid, name) in procs::marked(lab.prefix())? {
        if !name.starts_with("qemu") {
            continue;
        }
        let path = format!("/proc/{}/cmdline", pid.as_raw_nonzero());
        let line = std::fs::read(path).unwrap_or_default();
        let words: Vec<_> = line.split(|&b| b == 0).map(String::from_utf8_lossy).collect();
        let vm = words.iter().skip_while(|word| *word != "-name").nth(1);
        let host = words.iter().find_map(|word| {
            let (_, rest) = word.split_once(&folder)?;
            Some(rest.split_once('/')?.0.to_owned())
        });
        if let (Some(vm), Some(host)) = (vm, host) {
            let vm = vm.split(',').next().unwrap_or_default().to_owned();
            found.push(QemuOf { pid, vm, host });
        }
    }
    Ok(found)
}

/// Breaks what the plan says, and repairs it as an operator's machine would. `hit` is the VM that came to the
/// plan's step.
pub fn strike(
    site: &mut Site<'_>,
    plan: &mut Plan,
    id: &str,
    now: &Evacuation,
    hit: Option<&Move>,
) -> Result<Option<Struck>> {
    let done = |what: String| Ok(Some(Struck { what, killed: None }));
    match plan.kind {
        Kind::Coordinator => {
            let leader = site.kill_leader()?;
            thread::sleep(plan.outage);
            site.start_coordinators()?;
            done(format!("coordinator {leader}"))
        }
        Kind::Coordinators => {
            site.kill_coordinators();
            thread::sleep(plan.outage);
            site.start_coordinators()?;
            done("every coordinator".into())
        }
        Kind::Leaders => {
            kill_leaders(site, plan, id).map(|what| Some(Struck { what, killed: None }))
        }
        Kind::LeaderApart => {
            let Some(host) = agent_of(site.lab(), plan, now, hit) else { return Ok(None) };
            let leader = site.leader()?;
            let what = format!("the line to coordinator {leader} and the agent of {host}");
            let ports = ports(site.lab(), leader, &host);
            site.lab().management().part(&ports)?;
            thread::sleep(plan.outage);
            site.lab().management().join(&ports)?;
            done(what)
        }
        Kind::CoreCut => {
            site.lab().core().cut()?;
            thread::sleep(plan.outage);
            site.lab().core().heal()?;
            done("the core link".into())
        }
        Kind::FrozenCoordinator => done(quiet::freeze_leader(site, plan)?),
        Kind::BlackHole => {
            let what = quiet::black_hole(site, plan, now, hit)?;
            Ok(what.map(|what| Struck { what, killed: None }))
        }
        Kind::Cancel => {
            let output = site.cli(&["cancel", id])?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.code().is_some_and(|c| c != 1), "cancel {id}: {said}");
            done("the operator's mind".into())
        }
        Kind::SourceQemu | Kind::TargetQemu => kill_qemu(site, plan, now, hit),
        _ => {
            let Some(host) = agent_of(site.lab(), plan, now, hit) else { return Ok(None) };
            if quiet::freezes(plan.kind) {
                return done(quiet::freeze_agent(site, plan, &host)?);
            }
            site.kill_agent(&host)?;
            thread::sleep(plan.outage);
            site.start_agent(&host)?;
            done(format!("the agent of {host}"))
        }
    }
}

/// Kills the leader, again and again.
fn kill_leaders(site: &mut Site<'_>, plan: &Plan, id: &str) -> Result<String> {
    let mut killed = Vec::new();
    while killed.len() < LEADERS {
        killed.push(site.kill_leader()?.to_string());
        thread::sleep(DOWN);
        site.start_coordinators()?;
        thread::sleep(plan.outage.saturating_sub(DOWN));
        if Evacuation::ask(site, id).is_ok_and(|now| now.is_over()) {
            break;
        }
    }
    Ok(format!("coordinators {}", killed.join(", ")))
}

/// The ports of a coordinator and of a host's agent in the management network.
fn ports(lab: &Lab, leader: u8, host: &str) -> Vec<String> {
    let seats =
        lab.seats().iter().filter(|seat| seat.id == leader).map(crate::lab::topology::Seat::port);
    let hosts = lab.hosts().iter().filter(|h| h.name() == host).map(crate::Host::port);
    seats.chain(hosts).collect()
}

/// The agent that the plan means.
fn agent_of(lab: &Lab, plan: &mut Plan, now: &Evacuation, hit: Option<&Move>) -> Option<String> {
    let under_way: Vec<&Move> = now.moves.iter().filter(|m| m.is_under_way()).collect();
    match plan.kind {
        Kind::SourceAgent | Kind::FrozenSource => match hit {
            Some(hit) => Some(hit.source.clone()),
            None => plan.dice.pick(&under_way).map(|m| m.source.clone()),
        },
        Kind::TargetAgent | Kind::FrozenTarget => match hit {
            Some(hit) => Some(hit.target.clone()),
            None => plan.dice.pick(&under_way).map(|m| m.target.clone()),
        },
        Kind::FrozenNeighbour => {
            let away = |host: &crate::Host| {
                hit.is_none_or(|m| ![&m.source, &m.target].contains(&&host.name()))
            };
            let hosts: Vec<String> =
                lab.hosts().iter().filter(|h| away(h)).map(crate::Host::name).collect();
            plan.dice.pick(&hosts)
        }
        Kind::HolderAgent => {
            let mut received: BTreeMap<&str, usize> = BTreeMap::new();
            for one in now.moves.iter().filter(|m| m.is_done()) {
                *received.entry(&one.target).or_default() += 1;
            }
            let most = received.into_iter().max_by_key(|(_, count)| *count);
            most.map(|(host, _)| host.to_owned()).or_else(|| hit.map(|m| m.target.clone()))
        }
        _ => {
            let from = &now.moves.first()?.source;
            let rack = lab.hosts().iter().find(|host| host.name() == *from)?.rack;
            let hosts: Vec<String> = lab.rack(rack).map(crate::Host::name).collect();
            let moves = |host: &&String| under_way.iter().any(|m| m.source == **host);
            let idle: Vec<&String> = hosts.iter().filter(|host| !moves(host)).collect();
            let other: Vec<&String> =
                hosts.iter().filter(|host| hit.is_none_or(|m| m.source != **host)).collect();
            plan.dice.pick(if idle.is_empty() { &other } else { &idle }).cloned()
        }
    }
}

fn kill_qemu(
    site: &Site<'_>,
    plan: &mut Plan,
    now: &Evacuation,
    hit: Option<&Move>,
) -> Result<Option<Struck>> {
    let under_way: Vec<Move> = now.moves.iter().filter(|m| m.is_under_way()).cloned().collect();
    let Some(one) = hit.cloned().or_else(|| plan.dice.pick(&under_way)) else { return Ok(None) };
    let host = if plan.kind == Kind::SourceQemu { one.source } else { one.target };
    let found = qemus(site.lab())?.into_iter().find(|q| q.vm == one.vm && q.host == host);
    let Some(qemu) = found else { return Ok(None) };
    kill_process(qemu.pid, Signal::KILL).context("the QEMU cannot be killed")?;
    let what = format!("the QEMU of {} on {host}", one.vm);
    Ok(Some(Struck { what, killed: Some((one.vm, host)) }))
}
