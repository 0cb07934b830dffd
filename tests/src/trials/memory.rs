//! Whole memory, many times: guests that write all the time move to and fro in verify mode, and every difference between
//! the memories of source and target is counted, with what the recorder says of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::image::Qemu;
use crate::lab::accel::Accel;
use crate::lab::rate::Rate;
use crate::lab::site::{Settings, Site};
use crate::lab::topology::{RACKS, Topology};
use crate::lab::vm::{Profile, VmDef};
use crate::trials::faults::check::check;
use crate::{Host, Lab, leak};

const BOOT: Duration = Duration::from_secs(300);

/// KiB per second that the guests rewrite, one after the other.
const RATES_KIB: [u32; 3] = [64, 512, 2048];

/// The guests look over all of their memory after so many evacuations, and at the end.
const CHECK_EVERY: usize = 10;

/// What verify mode logs at a rolled-back move.
const DIFFERS: &str = "guest memory differs";

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Moves to make.
    pub moves: usize,
    /// Hosts in each rack.
    pub hosts: u8,
    /// VMs on each host of the first rack.
    pub vms_per_host: usize,
    /// MiB of each.
    pub memory_mib: u32,
    /// MiB of each that is rewritten.
    pub wss_mib: u32,
    /// The link between the racks.
    pub core: Rate,
    /// QEMU of all hosts.
    pub qemu: Qemu,
    /// What runs the guests' instructions.
    pub accel: Accel,
    /// Further options of `rackferry evacuate`.
    pub evacuate: Vec<String>,
    /// Where the logs go if a memory differed.
    pub logs: PathBuf,
}

/// What it came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Evacuations.
    pub runs: usize,
    /// VMs that reached their target with their memory verified.
    pub moved: usize,
    /// Of them, those that needed more than one attempt.
    pub again: usize,
    /// VMs that stayed.
    pub stayed: usize,
    /// Pauses by QEMU of the moves, milliseconds, in ascending order.
    pub pauses_ms: Vec<u64>,
    /// Moves rolled back because the memories differed: what was said.
    pub differences: Vec<String>,
    /// All of it, without booting.
    pub whole: Duration,
}

impl Report {
    /// The pause that this part of the moves did not exceed, milliseconds.
    pub fn pause_ms(&self, part: f64) -> u64 {
        let last = self.pauses_ms.len().saturating_sub(1);
        self.pauses_ms.get((last as f64 * part).round() as usize).copied().unwrap_or(0)
    }
}

/// Moves until enough have moved. `say` gets a line per evacuation.
///
/// # Errors
/// The lab does not come up, or a guest finds a wrong byte in its memory.
pub fn run(options: &Options, say: &mut dyn FnMut(String)) -> Result<Report> {
    let lab = Lab::up(&Topology::of(options.hosts))?;
    lab.core().shape(options.core)?;
    let settings = Settings {
        qemu: [options.qemu; 2],
        log: "info,rackferry_migrator=debug".into(),
        ..Settings::default()
    };
    let site = Site::up(&lab, settings)?;
    let vms = boot(&site, options)?;
    let start = Instant::now();
    let mut report = Report::default();
    let ended = moves(&site, &vms, options, &mut report, say);
    report.whole = start.elapsed();
    if ended.is_err() || !report.differences.is_empty() {
        keep_logs(&lab, options)?;
    }
    ended?;
    let (prefix, folder) = (lab.prefix().to_string(), lab.folder().to_path_buf());
    drop(site);
    drop(lab);
    leak::assert_nothing_left(&prefix, &folder)?;
    Ok(report)
}

fn moves(
    site: &Site<'_>,
    vms: &BTreeSet<String>,
    options: &Options,
    report: &mut Report,
    say: &mut dyn FnMut(String),
) -> Result<()> {
    let mut read = vec![0; site.lab().hosts().len()];
    while report.moved < options.moves {
        let (from, to) = match report.runs % 2 {
            0 => (RACKS[0], RACKS[1]),
            _ => (RACKS[1], RACKS[0]),
        };
        let mut order = vec!["evacuate", from, "--to", to, "--no-cordon", "--verify", "--yes"];
        order.extend(options.evacuate.iter().map(String::as_str));
        let start = Instant::now();
        let end = site.cli_outcome(&order)?;
        report.runs += 1;
        report.add(&end)?;
        let differences = said_since(site.lab(), &mut read);
        say(format!(
            "{from} -> {to}: {} of {} moved, {} differences, {:.1} s",
            report.moved,
            options.moves,
            differences.len(),
            start.elapsed().as_secs_f64()
        ));
        differences.iter().for_each(|difference| say(format!("  {difference}")));
        report.differences.extend(differences);
        ensure!(end["state"] == "done", "VMs stayed: {:#}", end["vms"]);
        site.lab().heartbeats().assert_healthy()?;
        if report.runs.is_multiple_of(CHECK_EVERY) {
            check(site, vms)?;
        }
    }
    report.pauses_ms.sort_unstable();
    check(site, vms)
}

impl Report {
    fn add(&mut self, end: &Value) -> Result<()> {
        for vm in end["vms"].as_array().context("an evacuation without VMs")? {
            if vm["phase"] != "done" {
                self.stayed += 1;
                continue;
            }
            let digest = vm["source_memory_digest"].as_str().unwrap_or_default();
            ensure!(digest.len() == 64, "moved without verification: {vm:#}");
            self.moved += 1;
            self.again += usize::from(vm["attempt"].as_u64() > Some(1));
            self.pauses_ms.extend(vm["qemu_downtime_ms"].as_u64());
        }
        Ok(())
    }
}

/// What the agents logged of differences since `read`.
fn said_since(lab: &Lab, read: &mut [usize]) -> Vec<String> {
    let mut said = Vec::new();
    for (host, read) in lab.hosts().iter().zip(read) {
        let printed = lab.printed(&format!("agent-{}", host.name()));
        let new = printed.get(*read..).unwrap_or_default();
        let lines =
            new.lines().filter(|line| line.contains(DIFFERS) && line.contains("session over"));
        said.extend(lines.map(|line| format!("{}: {line}", host.name())));
        *read = printed.len();
    }
    said
}

fn boot(site: &Site<'_>, options: &Options) -> Result<BTreeSet<String>> {
    let hosts = site.lab().rack(RACKS[0]).cloned();
    let mut places: Vec<(Host, VmDef)> = Vec::new();
    for (host, n) in
        hosts.flat_map(|host| (1..=options.vms_per_host).map(move |n| (host.clone(), n)))
    {
        let name = format!("vm-{}-{n}", host.number);
        let mut def = VmDef::named(&name).memory_mib(options.memory_mib).profile(Profile::Hot);
        def.guest.wss_mib = options.wss_mib;
        def.guest.rate_kib = RATES_KIB[places.len() % RATES_KIB.len()];
        (def.qemu, def.accel) = (options.qemu, options.accel);
        places.push((host, def));
    }
    site.boot(&places, 4, BOOT)?;
    Ok(places.into_iter().map(|(_, vm)| vm.name).collect())
}

fn keep_logs(lab: &Lab, options: &Options) -> Result<()> {
    fs::create_dir_all(&options.logs)?;
    for host in lab.hosts() {
        let name = format!("agent-{}", host.name());
        fs::write(options.logs.join(format!("{name}.log")), lab.printed(&name))?;
    }
    Ok(())
}
