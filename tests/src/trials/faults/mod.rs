//! Faults while real guests move: every run hurts one part at one moment, then all promises are checked.
//!
//! A run evacuates one rack into the other, breaks something, waits until nothing happens any more,
//! evacuates again what was left behind, and looks at everything: which VM runs where, how often, with which
//! memory, and what is lying about. The next run goes in the opposite direction with the same guests.

pub(crate) mod check;
mod plan;
mod quiet;
mod strike;
mod summary;
pub(crate) mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

pub use plan::{Dice, Kind, Moment, Plan, Step};
pub use summary::{Failed, Summary, Tally};

use crate::lab::heartbeat::Heartbeats;
use crate::lab::rate::Rate;
use crate::lab::site::{Settings, Site};
use crate::lab::topology::RACKS;
use crate::lab::vm::VmDef;
use crate::trials::silent;
use crate::{Host, Lab, Topology};
use check::{check, settled, vm_list};
use strike::{Struck, strike};
use view::{Evacuation, Move};

const BOOT: Duration = Duration::from_secs(240);
/// After a fault everything comes to an end within this, or is stuck.
const QUIET: Duration = Duration::from_secs(90);
/// An agent that was started again answers for its VMs within this.
const BACK: Duration = Duration::from_secs(30);

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Runs in which something broke.
    pub runs: usize,
    /// Where the seeds of the runs come from.
    pub seed: u64,
    /// One run with exactly this seed instead.
    pub replay: Option<u64>,
    /// Among these.
    pub kinds: Vec<Kind>,
    /// At this step of a move only.
    pub at: Option<Step>,
    /// Each of the kinds at each step once, instead of `runs` at random.
    pub matrix: bool,
    /// Hosts in each rack.
    pub hosts: u8,
    /// Coordinators.
    pub coordinators: u8,
    /// VMs on each host of the first rack.
    pub vms_per_host: usize,
    /// MiB of each.
    pub memory_mib: u32,
    /// The link between the racks.
    pub core: Rate,
    /// Where logs of failed runs go.
    pub logs: PathBuf,
}

impl Options {
    /// Every kind at every step at which it can hit something.
    fn cells(&self) -> Vec<(Kind, Step)> {
        let steps = [Step::Preparing, Step::Copying, Step::Switching, Step::Announcing];
        let all = self.kinds.iter().flat_map(|kind| steps.map(|step| (*kind, step)));
        // The target's QEMU is the VM's only one by then.
        all.filter(|cell| *cell != (Kind::TargetQemu, Step::Announcing)).collect()
    }
}

/// What one run came to.
#[derive(Debug, Default)]
struct Outcome {
    moved: usize,
    stayed: usize,
    lost: usize,
}

/// Runs all of it. `say` gets a line for each run.
///
/// # Errors
/// The lab cannot be brought up. Failed runs are in the summary.
pub fn run(options: &Options, say: &mut dyn FnMut(String)) -> Result<Summary> {
    let mut summary = Summary::default();
    let mut seeds = Dice::new(options.seed);
    let cells = if options.matrix { options.cells() } else { Vec::new() };
    let mut left = match (options.replay, cells.len()) {
        (Some(_), _) => 1,
        (None, 0) => options.runs,
        (None, cells) => cells,
    };
    while left > 0 {
        let lab = Lab::up(&Topology {
            hosts_per_rack: options.hosts,
            coordinators: options.coordinators,
        })?;
        lab.core().shape(options.core)?;
        let mut series = Series::begin(&lab, options)?;
        while left > 0 {
            let seed = options.replay.unwrap_or_else(|| seeds.roll());
            let cell = cells.iter().rev().nth(left - 1).copied();
            let plan = match cell {
                Some((kind, at)) => Plan::new(seed, &[kind], Some(at), series.vms.len()),
                None => Plan::new(seed, &options.kinds, options.at, series.vms.len()),
            };
            let start = Instant::now();
            let logs = series.log_lengths();
            let (said, result) = series.run(plan.clone());
            let tally = summary.kinds.entry(plan.kind).or_default();
            let line = format!(
                "seed {seed}: {} {} ({:.1} s) {said}",
                plan.kind,
                plan.moment,
                start.elapsed().as_secs_f64()
            );
            match result {
                Ok(None) => say(format!("{line}: nothing to hit any more, does not count")),
                Ok(Some(outcome)) => {
                    left -= 1;
                    *tally.runs.entry(plan.moment.step()).or_default() += 1;
                    tally.moved += outcome.moved;
                    tally.stayed += outcome.stayed;
                    tally.lost += outcome.lost;
                    let Outcome { moved, stayed, lost } = outcome;
                    say(format!("{line}: {moved} moved, {stayed} at the second try, {lost} lost"));
                    continue;
                }
                Err(error) => {
                    left -= 1;
                    *tally.runs.entry(plan.moment.step()).or_default() += 1;
                    tally.failed += 1;
                    summary.failed.push(Failed { seed, cell });
                    let folder = series.keep_logs(seed, &logs)?;
                    say(format!("{line}: FAILED: {error:#}\n  logs in {}", folder.display()));
                    break;
                }
            }
            if options.replay.is_some() {
                break;
            }
        }
        if options.replay.is_some() {
            break;
        }
    }
    Ok(summary)
}

/// Runs with the same guests, to and fro, until one fails.
struct Series<'a> {
    site: Site<'a>,
    options: &'a Options,
    /// Those that must live.
    vms: BTreeSet<String>,
    /// Index of the rack they are in.
    rack: usize,
    /// VMs started in place of lost ones so far.
    replaced: usize,
}

impl<'a> Series<'a> {
    fn begin(lab: &'a Lab, options: &'a Options) -> Result<Self> {
        let settings = Settings {
            log: "info,rackferry_agent=debug,rackferry_migrator=debug,rackferry_fleet=debug".into(),
            ..Settings::default()
        };
        let site = Site::up(lab, settings)?;
        let hosts = lab.rack(RACKS[0]).cloned();
        let places: Vec<(Host, VmDef)> = hosts
            .flat_map(|host| (1..=options.vms_per_host).map(move |n| (host.clone(), n)))
            .map(|(host, n)| {
                let name = format!("vm-{}-{n}", host.number);
                (host, VmDef::named(&name).memory_mib(options.memory_mib))
            })
            .collect();
        site.boot(&places, 4, BOOT)?;
        let vms = places.into_iter().map(|(_, vm)| vm.name).collect();
        Ok(Self { site, options, vms, rack: 0, replaced: 0 })
    }

    fn heartbeats(&self) -> &'a Heartbeats {
        self.site.lab().heartbeats()
    }

    /// One run; what was hit, and None if the plan's moment did not come.
    fn run(&mut self, plan: Plan) -> (String, Result<Option<Outcome>>) {
        let mut said = String::new();
        let result = self.try_run(plan, &mut said);
        (said, result)
    }

    fn try_run(&mut self, mut plan: Plan, said: &mut String) -> Result<Option<Outcome>> {
        let (from, to) = (RACKS[self.rack], RACKS[1 - self.rack]);
        let mut order = vec!["evacuate", from, "--to", to, "--no-cordon", "--yes", "--detach"];
        if plan.verify {
            order.push("--verify");
        }
        let started = self.site.cli_json(&order)?;
        let id = started["id"].as_str().context("an evacuation has no id")?.to_owned();
        let owners = |series: &Self| vm_list(&series.site).unwrap_or_default();
        let struck = match self.wait_for(&plan, &id)? {
            None => None,
            Some((now, hit)) => {
                let before = owners(self);
                let struck = strike(&mut self.site, &mut plan, &id, &now, hit.as_ref())?;
                struck.map(|struck| (struck, before))
            }
        };
        if let Some((struck, _)) = &struck {
            *said = format!("{} for {} ms", struck.what, plan.outage.as_millis());
        }
        let all = self.options.hosts as usize * RACKS.len();
        self.site.wait_connected(all)?;
        let first = Evacuation::watch(&self.site, &id, QUIET, Evacuation::is_over)?;
        *said += &format!(" [{}]", first.describe());
        let lost = self.lost(&first, struck.as_ref().map(|(s, before)| (s, before)))?;
        self.bury(&lost)?;
        let stayed = self.second_try(from, to)?;
        check(&self.site, &self.vms)?;
        let strangers = vm_list(&self.site)?.into_values().find(|vm| !vm.host.starts_with(to));
        ensure!(strangers.is_none(), "not in rack {to}: {strangers:?}");
        self.rack = 1 - self.rack;
        let outcome = Outcome { moved: self.vms.len() - stayed, stayed, lost: lost.len() };
        self.replace(lost.len())?;
        Ok(struck.map(|_| outcome))
    }

    /// Waits for the plan's moment; None if it did not come.
    fn wait_for(&self, plan: &Plan, id: &str) -> Result<Option<(Evacuation, Option<Move>)>> {
        let (step, before, later) = match plan.moment {
            Moment::After(time) => {
                thread::sleep(time);
                let now = Evacuation::ask(&self.site, id)?;
                return Ok((!now.is_over()).then_some((now, None)));
            }
            Moment::Step { step, before, later } => (step, before, later),
        };
        let mut arrived: Vec<String> = Vec::new();
        let now = Evacuation::watch(&self.site, id, QUIET, |now| {
            for one in now.moves.iter().filter(|m| m.step() >= step) {
                if !arrived.contains(&one.vm) {
                    arrived.push(one.vm.clone());
                }
            }
            arrived.len() > before || now.is_over()
        })?;
        thread::sleep(later);
        let hit = arrived.get(before);
        let hit = now.moves.iter().find(|m| Some(&m.vm) == hit).cloned();
        Ok(hit.map(|hit| (now, Some(hit))))
    }

    /// VMs that are gone; an error if one of them must not be.
    fn lost(
        &self,
        first: &Evacuation,
        struck: Option<(&Struck, &BTreeMap<String, check::Listed>)>,
    ) -> Result<Vec<String>> {
        let listed = settled(&self.site, BACK)?;
        let alive = |vm: &&String| listed.get(*vm).is_none_or(|vm| vm.condition != "running");
        let lost: Vec<String> = self.vms.iter().filter(alive).cloned().collect();
        for vm in &lost {
            let killed = struck.and_then(|(s, before)| Some((s.killed.as_ref()?, before)));
            let Some(((hit, host), before)) = killed.filter(|((hit, _), _)| hit == vm) else {
                bail!("{vm} is lost: {}", first.describe());
            };
            let owned = before.get(hit).is_none_or(|listed| listed.host == *host);
            let ran = self.heartbeats().host_of(hit).as_ref() == Some(host)
                || first.moves.iter().any(|m| m.vm == *hit && m.target == *host && m.is_done());
            ensure!(owned || ran, "{vm} is lost although another host owned it");
            ensure!(ran, "{vm} is lost with a QEMU in which it did not run");
        }
        Ok(lost)
    }

    /// Removes what is left of dead VMs, as their operator would.
    fn bury(&mut self, lost: &[String]) -> Result<()> {
        let gone = |series: &Self| -> Result<bool> {
            let listed = vm_list(&series.site)?;
            Ok(lost.iter().all(|vm| !listed.contains_key(vm)))
        };
        for vm in lost {
            self.vms.remove(vm);
            if let Some(listed) = vm_list(&self.site)?.get(vm) {
                let host = self.site.lab().hosts().iter().find(|host| host.name() == listed.host);
                self.site.destroy_vm(host.context("a host that is none")?, vm)?;
            }
        }
        let start = Instant::now();
        while !gone(self)? {
            ensure!(start.elapsed() < BACK, "{lost:?} are still listed");
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Moves what was left behind; how many that were.
    fn second_try(&self, from: &str, to: &str) -> Result<usize> {
        let listed = vm_list(&self.site)?;
        let left = listed.values().filter(|vm| vm.host.starts_with(from)).count();
        if left > 0 {
            let limit = format!("{}s", QUIET.as_secs());
            let order = ["evacuate", from, "--to", to, "--no-cordon", "--yes", "--timeout", &limit];
            self.site.cli_json(&order).context("the second try")?;
        }
        Ok(left)
    }

    /// Boots new VMs in place of lost ones, where all are now.
    fn replace(&mut self, count: usize) -> Result<()> {
        let hosts: Vec<Host> = self.site.lab().rack(RACKS[self.rack]).cloned().collect();
        let mut places = Vec::new();
        for _ in 0..count {
            self.replaced += 1;
            let name = format!("vm-new-{}", self.replaced);
            let host = hosts[self.replaced % hosts.len()].clone();
            places.push((host, VmDef::named(&name).memory_mib(self.options.memory_mib)));
            self.vms.insert(name);
        }
        self.site.boot(&places, 4, BOOT)
    }

    fn log_names(&self) -> impl Iterator<Item = String> {
        let agents = self.site.lab().hosts().iter().map(|host| format!("agent-{}", host.name()));
        agents.chain(self.site.coordinators().names())
    }

    fn log_lengths(&self) -> BTreeMap<String, usize> {
        self.log_names().map(|name| (name.clone(), self.site.lab().printed(&name).len())).collect()
    }

    /// Saves what the daemons said since `from`.
    fn keep_logs(&self, seed: u64, from: &BTreeMap<String, usize>) -> Result<PathBuf> {
        let folder = self.options.logs.join(seed.to_string());
        fs::create_dir_all(&folder)?;
        for name in self.log_names() {
            let printed = self.site.lab().printed(&name);
            let start = from.get(&name).copied().unwrap_or_default();
            fs::write(folder.join(format!("{name}.log")), printed.get(start..).unwrap_or(""))?;
        }
        silent::keep(self.site.lab(), self.vms.iter(), &folder)?;
        Ok(folder)
    }
}
