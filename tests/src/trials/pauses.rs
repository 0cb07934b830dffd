//! Stops beside frozen neighbours: an agent of each rack stands still again and again while the VMs of other hosts
//! move, and each of their stops is held against the VM's limit.
//!
//! The frozen agents have shards of the index and hold contents that others refer to. Their own VMs move too, when
//! they can, and do not count.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::lab::rate::Rate;
use crate::lab::site::{Settings, Site};
use crate::lab::topology::RACKS;
use crate::lab::vm::{Profile, VmDef};
use crate::procs::Frozen;
use crate::trials::faults::check::check;
use crate::trials::faults::view::Evacuation;
use crate::{Host, Lab, Topology, leak};

const BOOT: Duration = Duration::from_secs(300);
/// An evacuation beside frozen agents is over within this, or is stuck.
const LIMIT: Duration = Duration::from_secs(300);
/// KiB per second that each guest rewrites.
const RATE_KIB: u32 = 512;

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Evacuations, to and fro.
    pub runs: usize,
    /// Hosts in each rack; the last one of each is frozen.
    pub hosts: u8,
    /// VMs on each host of the first rack.
    pub vms_per_host: usize,
    /// MiB of each.
    pub memory_mib: u32,
    /// How long a VM may be stopped, milliseconds.
    pub max_downtime_ms: u32,
    /// How long the agents stand still, and how long they work in between.
    pub freeze: Duration,
    /// The link between the racks.
    pub core: Rate,
}

/// What it came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Stops of VMs that have nothing to do with the frozen hosts, milliseconds, and whose they are.
    pub stops_ms: Vec<(u64, String)>,
    /// Times that the agents stood still.
    pub freezes: usize,
}

impl Report {
    /// The longest stop, milliseconds.
    pub fn longest_ms(&self) -> u64 {
        self.stops_ms.iter().map(|(ms, _)| *ms).max().unwrap_or(0)
    }
}

/// Evacuates to and fro. `say` gets a line per evacuation.
///
/// # Errors
/// The lab does not come up, or not every VM moved and is whole.
pub fn run(options: &Options, say: &mut dyn FnMut(String)) -> Result<Report> {
    ensure!(options.hosts > 1, "one host of each rack is frozen: it takes two at least");
    let lab = Lab::up(&Topology::of(options.hosts))?;
    lab.core().shape(options.core)?;
    let settings = Settings { log: "info,rackferry_migrator=debug".into(), ..Settings::default() };
    let site = Site::up(&lab, settings)?;
    let vms = boot(&site, options)?;
    let mut report = Report::default();
    for run in 0..options.runs {
        let ends = [RACKS[run % 2], RACKS[1 - run % 2]];
        let line = evacuate(&site, ends, options, &mut report)?;
        say(line);
        check(&site, &vms)?;
    }
    let (prefix, folder) = (lab.prefix().to_string(), lab.folder().to_path_buf());
    drop(site);
    drop(lab);
    leak::assert_nothing_left(&prefix, &folder)?;
    Ok(report)
}

fn evacuate(
    site: &Site<'_>,
    [from, to]: [&str; 2],
    options: &Options,
    report: &mut Report,
) -> Result<String> {
    let limit = format!("{}ms", options.max_downtime_ms);
    let order = ["evacuate", from, "--to", to, "--no-cordon", "--yes", "--detach"];
    let started = site.cli_json(&[&order[..], &["--max-downtime", &limit]].concat())?;
    let id = started["id"].as_str().context("an evacuation has no id")?.to_owned();
    let frozen = RACKS.map(|rack| format!("{rack}-{}", options.hosts));
    Evacuation::watch(site, &id, LIMIT, |now| {
        now.is_over() || now.moves.iter().any(|m| m.phase == "copying")
    })?;
    let freezes = report.freezes;
    let start = Instant::now();
    while !Evacuation::ask(site, &id)?.is_over() {
        ensure!(start.elapsed() < LIMIT, "{id} is not over after {LIMIT:?}");
        let still = [Frozen::new(site.agent(&frozen[0])?)?, Frozen::new(site.agent(&frozen[1])?)?];
        thread::sleep(options.freeze);
        drop(still);
        report.freezes += 1;
        thread::sleep(options.freeze);
    }
    let end: Value = site.cli_outcome(&["status", &id])?;
    if end["state"] != "done" {
        // VMs of the frozen hosts may have used up their attempts.
        let again = ["evacuate", from, "--to", to, "--no-cordon", "--yes"];
        site.cli_json(&again).context("the second try")?;
    }
    let mut worst = 0;
    for vm in end["vms"].as_array().context("an evacuation without VMs")? {
        let ends = ["source_host", "target_host"].map(|key| vm[key].as_str().unwrap_or_default());
        if vm["phase"] != "done" || ends.iter().any(|end| frozen.iter().any(|host| host == end)) {
            continue;
        }
        let stop = vm["blackout_ms"].as_u64().context("a move without its blackout")?;
        worst = worst.max(stop);
        report.stops_ms.push((stop, format!("{id} {}", vm["vm"].as_str().unwrap_or_default())));
    }
    let freezes = report.freezes - freezes;
    Ok(format!("{from} -> {to}: {freezes} freezes, longest stop beside them {worst} ms"))
}

fn boot(site: &Site<'_>, options: &Options) -> Result<BTreeSet<String>> {
    let hosts = site.lab().rack(RACKS[0]).cloned();
    let places: Vec<(Host, VmDef)> = hosts
        .flat_map(|host| (1..=options.vms_per_host).map(move |n| (host.clone(), n)))
        .map(|(host, n)| {
            let name = format!("vm-{}-{n}", host.number);
            let mut def = VmDef::named(&name).memory_mib(options.memory_mib).profile(Profile::Hot);
            def.guest.rate_kib = RATE_KIB;
            (host, def)
        })
        .collect();
    site.boot(&places, 4, BOOT)?;
    Ok(places.into_iter().map(|(_, vm)| vm.name).collect())
}
