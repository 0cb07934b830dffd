//! The VMs of a run and the ways to move them.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Pid;
use serde_json::{Value, json};

use super::figures::{Figures, Pauses, Transfer, VmFigures};
use super::measure::{Cpu, Sampler};
use super::oracle::{self, Bound};
use super::plan::{Method, Plan};
use super::stops::{self, StopPart};
use crate::bench::baseline::{self, Options};
use crate::bench::counters::CoreBytes;
use crate::lab::Lab;
use crate::lab::heartbeat::Handover;
use crate::lab::qmp::Qmp;
use crate::lab::site::Site;
use crate::lab::topology::{Host, RACKS};
use crate::lab::vm::{Vm, VmDef};

/// More at a time would only wait for each other on two cores.
const BOOT_AT_ONCE: usize = 4;
const BOOT_WAIT: Duration = Duration::from_secs(300);
const CHECK_WAIT: Duration = Duration::from_secs(300);
/// Between two methods guests go on with what they do.
const SETTLE: Duration = Duration::from_secs(3);
const BEAT_WAIT: Duration = Duration::from_secs(20);
/// What is left behind is moved after it, unmeasured, so often.
const RETRIES: usize = 2;

/// The VMs of a run.
#[derive(Debug)]
pub struct Fleet<'a> {
    lab: &'a Lab,
    places: Vec<(Host, VmDef)>,
    /// At a time.
    moves: usize,
}

/// How Rackferry is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// For its JSON.
    Json,
    /// For the terminal, with progress; the JSON is asked for afterwards.
    Shown,
}

/// What a method did, before it is put beside the bound.
struct Moved {
    core: CoreBytes,
    seconds: f64,
    seconds_by_coordinator: Option<f64>,
    vms: Vec<VmFigures>,
    cpu: Cpu,
    transfer: Option<Transfer>,
    stops: Vec<StopPart>,
}

impl<'a> Fleet<'a> {
    /// The VMs of a plan, all in rack `a`.
    pub fn new(lab: &'a Lab, plan: &Plan) -> Self {
        let hosts: Vec<&Host> = lab.rack(RACKS[0]).collect();
        let defs = plan.defs().into_iter().enumerate();
        let place =
            |(number, def): (usize, VmDef)| (hosts[number / plan.vms_per_host].clone(), def);
        Self { lab, places: defs.map(place).collect(), moves: plan.moves as usize }
    }

    /// Boots them through their hosts' agents.
    pub fn boot(&self, site: &Site) -> Result<()> {
        site.boot(&self.places, BOOT_AT_ONCE, BOOT_WAIT)
    }

    /// Moves all VMs to the other rack and back, unmeasured.
    pub fn warm_up(&self, site: &Site) -> Result<()> {
        for (from, to) in [(RACKS[0], RACKS[1]), (RACKS[1], RACKS[0])] {
            let outcome =
                site.cli_outcome(&["evacuate", from, "--to", to, "--no-cordon", "--yes"])?;
            ensure!(outcome["totals"]["done"] == self.places.len(), "the first moves: {outcome}");
            self.wait_beats()?;
        }
        Ok(())
    }

    /// Ends the coordinators and all agents; the VMs go on.
    pub fn stop_daemons(&self, site: &mut Site) -> Result<()> {
        site.kill_coordinators();
        self.lab.hosts().iter().try_for_each(|host| site.kill_agent(&host.name()))
    }

    /// Takes over the VMs of agents that have ended.
    pub fn take_over(&self) -> Result<Vec<Vm>> {
        let take = |(_, def): &(Host, VmDef)| self.lab.attach(self.host_of(&def.name)?, def);
        self.places.iter().map(take).collect()
    }

    /// Lets every guest check its whole memory.
    pub fn check(&self) -> Result<()> {
        self.lab.heartbeats().check(&self.names(), CHECK_WAIT)
    }

    /// Moves all VMs to the other rack with Rackferry.
    pub fn rackferry(&self, site: &Site, method: Method, call: Call) -> Result<Figures> {
        let bound = self.bound(self.monitors()?.iter_mut().map(|(pid, qmp)| (*pid, qmp)))?;
        self.settle()?;
        let from = self.host_of(self.names()[0])?.rack;
        let to = other(from);
        let dedup = method.dedup().context("not a method of Rackferry's")?;
        let order = ["evacuate", from, "--to", to, "--no-cordon", "--dedup", dedup, "--yes"];
        let marks = stops::marks(self.lab);
        let sampler = Sampler::start(self.lab.prefix())?;
        let (before, start) = (self.lab.core().bytes()?, Instant::now());
        let mut outcome = match call {
            Call::Json => site.cli_outcome(&order)?,
            Call::Shown => json!(site.cli_shown(&order)?.code()),
        };
        let (seconds, core) = (start.elapsed().as_secs_f64(), self.lab.core().bytes()? - before);
        let cpu = sampler.finish()?;
        // The pause of the last one ends with its first beat.
        self.wait_beats()?;
        if call == Call::Shown {
            outcome = last_evacuation(site)?;
        }
        let vms = self.of_rackferry(&outcome, start);
        let moved = Moved {
            core,
            seconds,
            seconds_by_coordinator: coordinator_seconds(&outcome),
            vms,
            cpu,
            transfer: Some(Transfer::of(&outcome["totals"])),
            stops: stops::since(self.lab, &marks),
        };
        for _ in 0..RETRIES {
            if self.names().iter().all(|vm| self.host_of(vm).is_ok_and(|host| host.rack == to)) {
                break;
            }
            site.cli_outcome(&order)?;
        }
        self.figures(method, from, moved, bound)
    }

    /// Moves VMs to the other rack with stock QEMU.
    pub fn stock(&self, mut vms: Vec<Vm>, method: Method) -> Result<(Vec<Vm>, Figures)> {
        let bound = self.bound(vms.iter_mut().map(|vm| (vm.process.pid(), &mut vm.qmp)))?;
        self.settle()?;
        let from = vms.first().context("no VMs")?.host.rack;
        let place = |vm: Vm| {
            let to = self.lab.host(other(vm.host.rack), vm.host.number).clone();
            (vm, to)
        };
        let vms = vms.into_iter().map(place).collect();
        let stock = method.stock().context("not a method of stock QEMU")?;
        let options = Options { at_once: Some(self.moves), ..Options::new(stock) };
        let sampler = Sampler::start(self.lab.prefix())?;
        let start = Instant::now();
        let (vms, outcome) = baseline::evacuate(self.lab, vms, options)?;
        let cpu = sampler.finish()?;
        self.wait_beats()?;
        let moves = outcome.moves.iter().map(|one| VmFigures {
            seconds: one.total_ms as f64 / 1e3,
            blackout_ms: self.blackout_ms(&one.vm, start),
            qemu_downtime_ms: one.downtime_ms as f64,
            failure: (one.status != "completed").then(|| one.status.clone()),
            vm: one.vm.clone(),
        });
        let moved = Moved {
            core: outcome.core,
            seconds: outcome.seconds,
            seconds_by_coordinator: None,
            vms: moves.collect(),
            cpu,
            transfer: None,
            stops: Vec::new(),
        };
        Ok((vms, self.figures(method, from, moved, bound)?))
    }

    fn figures(&self, method: Method, from: &str, moved: Moved, bound: Bound) -> Result<Figures> {
        self.lab.heartbeats().assert_healthy()?;
        let CoreBytes { forward, backward } = moved.core;
        let (there, back) =
            if from == RACKS[0] { (forward, backward) } else { (backward, forward) };
        Ok(Figures {
            method,
            from: from.into(),
            core_forward_bytes: there,
            core_backward_bytes: back,
            seconds: moved.seconds,
            seconds_by_coordinator: moved.seconds_by_coordinator,
            pauses: Pauses::of(&moved.vms),
            vms: moved.vms,
            cpu: moved.cpu,
            ratio_to_bound: moved.core.total() as f64 / bound.bytes.max(1) as f64,
            bound,
            transfer: moved.transfer,
            stops: moved.stops,
        })
    }

    fn of_rackferry(&self, outcome: &Value, start: Instant) -> Vec<VmFigures> {
        let told: BTreeMap<&str, &Value> = outcome["vms"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|vm| Some((vm["vm"].as_str()?, vm)))
            .collect();
        let figures = |name: &&str| {
            let Some(told) = told.get(name) else {
                return VmFigures {
                    vm: (*name).into(),
                    seconds: 0.0,
                    blackout_ms: None,
                    qemu_downtime_ms: 0.0,
                    failure: Some("not part of the evacuation".into()),
                };
            };
            let ms = |name: &str| told[name].as_u64().unwrap_or(0);
            let why = |phase: &str| format!("{phase}: {}", told["reason"].as_str().unwrap_or(""));
            VmFigures {
                vm: (*name).into(),
                seconds: ms("ended_unix_ms").saturating_sub(ms("started_unix_ms")) as f64 / 1e3,
                blackout_ms: self.blackout_ms(name, start),
                qemu_downtime_ms: ms("qemu_downtime_ms") as f64,
                failure: told["phase"].as_str().filter(|phase| *phase != "done").map(why),
            }
        };
        self.names().iter().map(figures).collect()
    }

    /// The longest pause at a handover since a moment. Beats of the old QEMU that were heard late are no
    /// handover.
    fn blackout_ms(&self, vm: &str, since: Instant) -> Option<f64> {
        let (_, def) = self.places.iter().find(|(_, def)| def.name == vm)?;
        let handovers = self.lab.heartbeats().log(vm).handovers();
        let forward = |one: &&Handover| one.first.at > since && one.first.number > one.last.number;
        let pauses = handovers.iter().filter(forward).map(|one| one.blackout(def.guest.heartbeat));
        pauses.max().map(|pause| pause.as_secs_f64() * 1e3)
    }

    /// Pauses all VMs, computes the bound, lets them go on.
    fn bound<'q>(&self, qemus: impl Iterator<Item = (Pid, &'q mut Qmp)>) -> Result<Bound> {
        let mut qemus: Vec<_> = qemus.collect();
        for (_, qmp) in &mut qemus {
            qmp.execute("stop", json!({}))?;
        }
        let pids: Vec<_> = qemus.iter().map(|(pid, _)| *pid).collect();
        let memory = self.places.first().map_or(0, |(_, def)| u64::from(def.memory_kib()) << 10);
        let bound = oracle::bound(&pids, memory);
        for (_, qmp) in &mut qemus {
            qmp.execute("cont", json!({}))?;
        }
        bound
    }

    fn monitors(&self) -> Result<Vec<(Pid, Qmp)>> {
        self.names().iter().map(|vm| self.lab.monitor(self.host_of(vm)?, vm)).collect()
    }

    fn settle(&self) -> Result<()> {
        thread::sleep(SETTLE);
        self.wait_beats()?;
        self.lab.heartbeats().assert_healthy()
    }

    fn wait_beats(&self) -> Result<()> {
        let beats = |vm: &&str| self.lab.heartbeats().wait_beat(vm, BEAT_WAIT).map(drop);
        self.names().iter().try_for_each(beats)
    }

    /// Where a VM beats.
    fn host_of(&self, vm: &str) -> Result<&'a Host> {
        let name = self.lab.heartbeats().host_of(vm).with_context(|| format!("{vm} is silent"))?;
        let found = self.lab.hosts().iter().find(|host| host.name() == name);
        found.with_context(|| format!("{vm} beats on {name}, which is no host of the lab"))
    }

    fn names(&self) -> Vec<&str> {
        self.places.iter().map(|(_, def)| def.name.as_str()).collect()
    }
}

fn other(rack: &str) -> &'static str {
    if rack == RACKS[0] { RACKS[1] } else { RACKS[0] }
}

fn last_evacuation(site: &Site) -> Result<Value> {
    let mut all = site.cli_json(&["status"])?;
    let list = all["evacuations"].as_array_mut().context("no list of evacuations")?;
    list.sort_by_key(|one| one["created_unix_ms"].as_u64());
    list.pop().context("there was no evacuation")
}

fn coordinator_seconds(outcome: &Value) -> Option<f64> {
    let moments = |name: &str| -> Vec<u64> {
        let vms = outcome["vms"].as_array().into_iter().flatten();
        vms.filter_map(|vm| vm[name].as_u64()).collect()
    };
    let first = moments("started_unix_ms").into_iter().min()?;
    let last = moments("ended_unix_ms").into_iter().max()?;
    Some(last.saturating_sub(first) as f64 / 1e3)
}
