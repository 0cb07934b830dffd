//! A rolling upgrade while real guests move: every daemon is ended in order and started again from another folder of
//! programs, one after the other, as docs/operations.md says it.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::lab::rate::Rate;
use crate::lab::site::{Settings, Site};
use crate::lab::topology::{RACKS, Topology};
use crate::lab::vm::VmDef;
use crate::procs::Process;
use crate::trials::faults::check::{check, vm_list};
use crate::trials::faults::view::Evacuation;
use crate::{Host, Lab, leak};

const BOOT: Duration = Duration::from_secs(240);
/// All moves have come to an end by then.
const QUIET: Duration = Duration::from_secs(300);

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Hosts in each rack.
    pub hosts: u8,
    /// Coordinators.
    pub coordinators: u8,
    /// VMs on each host of the first rack.
    pub vms_per_host: usize,
    /// MiB of each.
    pub memory_mib: u32,
    /// The link between the racks: slow enough that VMs still move when the last daemon's turn comes.
    pub core: Rate,
    /// The folder of the programs to begin with.
    pub old: PathBuf,
    /// The folder of those to end with.
    pub new: PathBuf,
}

/// What it came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// Every daemon, and how many VMs were on their way (not queued, not done) when its turn came.
    pub restarts: Vec<(String, usize)>,
    /// VMs, all of which have moved.
    pub vms: usize,
    /// Of them, those that needed more than one attempt.
    pub again: usize,
    /// From the order to the last VM.
    pub whole: Duration,
}

/// Coordinators first, the leader last; then the agents that receive, then those that send.
pub fn run(options: &Options, say: &mut dyn FnMut(String)) -> Result<Report> {
    let lab =
        Lab::up(&Topology { hosts_per_rack: options.hosts, coordinators: options.coordinators })?;
    lab.core().shape(options.core)?;
    let settings = Settings { programs: options.old.clone(), ..Settings::default() };
    let mut site = Site::up(&lab, settings)?;
    let vms = boot(&site, options)?;
    let start = Instant::now();
    let started =
        site.cli_json(&["evacuate", RACKS[0], "--to", RACKS[1], "--verify", "--yes", "--detach"])?;
    let id = started["id"].as_str().context("an evacuation has no id")?.to_owned();
    Evacuation::watch(&site, &id, QUIET, |now| now.moves.iter().any(|m| m.phase == "copying"))?;
    site.use_programs(&options.new);
    let mut restarts = Vec::new();
    let mut turn = |site: &Site<'_>, what: String| -> Result<()> {
        let now = Evacuation::watch(site, &id, QUIET, |_| true)?;
        let under_way = now.moves.iter().filter(|m| m.is_under_way()).count();
        say(format!("{what}, {under_way} VMs on their way"));
        restarts.push((what, under_way));
        Ok(())
    };
    let leader = site.leader()?;
    let mut coordinators = site.coordinators().ids();
    coordinators.sort_by_key(|&coordinator| coordinator == leader);
    for coordinator in coordinators {
        turn(&site, format!("coordinator {coordinator}"))?;
        site.restart_coordinator(coordinator)?;
        site.leader()?;
        site.wait_connected(lab.hosts().len())?;
    }
    for rack in [RACKS[1], RACKS[0]] {
        for host in lab.rack(rack) {
            turn(&site, format!("agent of {}", host.name()))?;
            site.restart_agent(&host.name())?;
            site.wait_connected(lab.hosts().len())?;
        }
    }
    let processes = site.coordinators().processes().chain(site.agents().map(|(_, agent)| agent));
    processes.into_iter().try_for_each(|process| runs_from(process, options))?;
    let end = Evacuation::watch(&site, &id, QUIET, Evacuation::is_over)?;
    ensure!(end.state == "done", "the evacuation has not gone on: {}", end.describe());
    let whole = start.elapsed();
    check(&site, &vms)?;
    let stayed = vm_list(&site)?.into_values().find(|vm| !vm.host.starts_with(RACKS[1]));
    ensure!(stayed.is_none(), "not in rack {}: {stayed:?}", RACKS[1]);
    let again = end.moves.iter().filter(|m| m.attempt > 1).count();
    let (prefix, folder) = (lab.prefix().to_string(), lab.folder().to_path_buf());
    drop(site);
    drop(lab);
    leak::assert_nothing_left(&prefix, &folder)?;
    Ok(Report { restarts, vms: vms.len(), again, whole })
}

fn boot(site: &Site<'_>, options: &Options) -> Result<BTreeSet<String>> {
    let hosts = site.lab().rack(RACKS[0]).cloned();
    let places: Vec<(Host, VmDef)> = hosts
        .flat_map(|host| (1..=options.vms_per_host).map(move |n| (host.clone(), n)))
        .map(|(host, n)| {
            let def = VmDef::named(&format!("vm-{}-{n}", host.number));
            (host, def.memory_mib(options.memory_mib))
        })
        .collect();
    site.boot(&places, 4, BOOT)?;
    Ok(places.into_iter().map(|(_, vm)| vm.name).collect())
}

fn runs_from(process: &Process, options: &Options) -> Result<()> {
    let program = fs::read_link(format!("/proc/{}/exe", process.id()))?;
    ensure!(program.starts_with(options.new.canonicalize()?), "{} still runs", program.display());
    Ok(())
}
