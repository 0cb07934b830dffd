//! How fast one VM of unique content moves over a link without limit, and what it costs: stock QEMU beside Rackferry.
//!
//! The guest has no system: its firmware waits for a disk for ever, and its memory is filled from outside. So all CPU
//! time that is measured is the move's.

mod figures;
mod fill;
mod watch;

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::json;

use crate::image::Qemu;
use crate::lab::Lab;
use crate::lab::qmp::Qmp;
use crate::lab::site::{Settings, Site};
use crate::lab::topology::{Host, Topology};
use crate::lab::vm::MACHINE;
use crate::procs::Process;
use watch::Watch;

const VM: &str = "stream";
/// The firmware has given up looking for a disk by then.
const FIRMWARE: Duration = Duration::from_secs(4);
const MONITOR_WAIT: Duration = Duration::from_secs(30);
const MOVE_WAIT: Duration = Duration::from_secs(300);
const PORT: u16 = 20_100;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// MiB of guest memory.
    pub memory_mib: u32,
    /// Which QEMU.
    pub qemu: Qemu,
}

/// One move.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// The program that moved the VM, and how.
    pub name: String,
    /// Guest memory, GiB.
    pub gib: f64,
    /// From order to end, seconds; with Rackferry the start of the target QEMU is in it.
    pub whole_s: f64,
    /// GiB per second on the core link while the middle 90 % of the bytes crossed it.
    pub gib_per_s: f64,
    /// CPU seconds per GiB of each process.
    pub cpu_s_per_gib: Vec<(String, f64)>,
    /// CPU seconds per GiB of each stage, as the agents count them; empty for stock QEMU.
    pub stages: Vec<(String, f64)>,
}

impl Run {
    /// CPU seconds per GiB of all processes.
    pub fn cpu(&self) -> f64 {
        self.cpu_s_per_gib.iter().map(|(_, seconds)| seconds).sum()
    }
}

/// Moves the VM by stock QEMU and by Rackferry in each of its ways, over TLS and without; stock is the first.
pub fn run(options: Options) -> Result<Vec<Run>> {
    let lab = Lab::up(&Topology::of(1))?;
    lab.core().unshape()?;
    let mut runs = vec![stock(&lab, options)?];
    runs.extend(ours(&lab, options)?);
    Ok(runs)
}

/// Two pages more than whole MiB, as all VMs of the lab have ([`crate::lab::vm::VmDef::spec`] says why).
fn bytes(options: Options) -> u64 {
    (u64::from(options.memory_mib) << 20) + 8192
}

fn stock(lab: &Lab, options: Options) -> Result<Run> {
    let (from, to) = (lab.host("a", 1), lab.host("b", 1));
    let memory = format!("memory-backend-memfd,id=pc.ram,share=on,size={}", bytes(options));
    let (source, mut source_qmp) = qemu(lab, from, options, &["-object", &memory])?;
    std::thread::sleep(FIRMWARE);
    fill::fill(source.id(), bytes(options))?;
    // The target's memory is as plain as QEMU makes it, which is the fastest to fill.
    let plain = "memory-backend-ram,id=pc.ram,size=".to_owned() + &bytes(options).to_string();
    let (target, mut target_qmp) =
        qemu(lab, to, options, &["-object", &plain, "-incoming", "defer"])?;
    for qmp in [&mut source_qmp, &mut target_qmp] {
        qmp.capabilities(&["events"])?;
        qmp.execute("migrate-set-parameters", json!({ "max-bandwidth": 0 }))?;
    }
    let uri = format!("tcp:{}:{PORT}", to.address);
    target_qmp.execute("migrate-incoming", json!({ "uri": uri }))?;
    let watch = Watch::start(lab, &[("source QEMU", source.id()), ("target QEMU", target.id())])?;
    let start = Instant::now();
    source_qmp.execute("migrate", json!({ "uri": uri }))?;
    let end = source_qmp.event(MOVE_WAIT, |event| {
        let status = event["data"]["status"].as_str().unwrap_or("");
        event["event"] == "MIGRATION" && ["completed", "failed"].contains(&status)
    })?;
    ensure!(end["data"]["status"] == "completed", "stock QEMU: {end}");
    let whole = start.elapsed();
    Ok(watch.end()?.run("stock QEMU, precopy", whole, bytes(options), Vec::new()))
}

fn qemu(lab: &Lab, host: &Host, options: Options, further: &[&str]) -> Result<(Process, Qmp)> {
    let name = format!("{}-{VM}", host.name());
    let monitor = lab.folder().join(format!("{name}.qmp"));
    let mut command = Command::new(options.qemu.binary());
    for folder in options.qemu.firmware() {
        command.arg("-L").arg(folder);
    }
    command
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        .args(["-machine", &format!("{MACHINE},accel=tcg,memory-backend=pc.ram")])
        .args(["-m", &format!("{}K", bytes(options) >> 10)])
        .args(["-qmp", &format!("unix:{},server=on,wait=off", monitor.display())])
        .args(further);
    let process = lab.spawn(host, &name, &mut command)?;
    let qmp = Qmp::connect(&monitor, MONITOR_WAIT)
        .with_context(|| format!("QEMU of {name} said: {}", lab.printed(&name)))?;
    Ok((process, qmp))
}

/// In each way over TLS, then again without it: the same VM, to and fro.
fn ours(lab: &Lab, options: Options) -> Result<Vec<Run>> {
    let mut ends = [lab.host("a", 1), lab.host("b", 1)];
    let mut runs = Vec::new();
    for tls in [true, false] {
        let settings = Settings {
            guest_memory_mib: u64::from(options.memory_mib) + 64,
            qemu: [options.qemu; 2],
            tls,
            ..Settings::default()
        };
        let site = Site::up(lab, settings)?;
        if tls {
            site.start_spec(ends[0], VM, &spec(options))?;
            std::thread::sleep(FIRMWARE);
            let (pid, _) = watch::qemus(lab)?.pop().context("the agent started no QEMU")?;
            fill::fill(pid, bytes(options))?;
        }
        site.wait_listed(&[VM])?;
        // To and fro: each move starts with all content at one side only.
        for (dedup, compress) in [("off", "off"), ("rack", "zstd"), ("rack", "off")] {
            runs.push(one(&site, options, ends, (dedup, compress, tls))?);
            ends.reverse();
        }
    }
    Ok(runs)
}

fn one(
    site: &Site<'_>,
    options: Options,
    [from, to]: [&Host; 2],
    (dedup, compress, tls): (&str, &str, bool),
) -> Result<Run> {
    let lab = site.lab();
    let agents: Vec<(&str, u32)> = site
        .agents()
        .map(|(host, process)| {
            let side = if host.name() == from.name() { "source agent" } else { "target agent" };
            (side, process.id())
        })
        .collect();
    let watch = Watch::start(lab, &agents)?;
    let start = Instant::now();
    let (to_name, how) = (to.name(), ["--dedup", dedup, "--compress", compress]);
    site.cli_json(&[&["migrate", VM, "--to", &to_name][..], &how].concat())?;
    let whole = start.elapsed();
    let watched = watch.end()?;
    let mut stages = figures::stages(&lab.printed(&format!("agent-{}", from.name())), "source")?;
    stages.extend(figures::stages(&lab.printed(&format!("agent-{}", to.name())), "target")?);
    let link = if tls { "TLS" } else { "plain TCP" };
    let name = format!("rackferry, dedup {dedup}, compress {compress}, {link}");
    Ok(watched.run(&name, whole, bytes(options), stages))
}

fn spec(options: Options) -> String {
    let kib = bytes(options) >> 10;
    format!(
        "name = \"{VM}\"\nmemory = \"{kib}KiB\"\nmachine = \"{MACHINE}\"\naccel = \"tcg\"\nserial = \"none\"\n"
    )
}

/// The figures as a table for people.
pub fn table(runs: &[Run]) -> String {
    let stock = runs.first().map_or(f64::NAN, |run| run.gib_per_s);
    let mut out = String::from("GiB/s  of stock  CPU s/GiB  whole s\n");
    for run in runs {
        let (rate, ratio, cpu) = (run.gib_per_s, run.gib_per_s / stock, run.cpu());
        out += &format!("{rate:5.2}  {ratio:8.2}  {cpu:9.2}  {:7.1}  {}\n", run.whole_s, run.name);
        for (process, seconds) in &run.cpu_s_per_gib {
            out += &format!("{:17}{seconds:9.2}           {process}\n", "");
        }
        let stages: Vec<String> =
            run.stages.iter().map(|(stage, s)| format!("{stage} {s:.2}")).collect();
        if !stages.is_empty() {
            out += &format!("{:37}of these {}\n", "", stages.join(", "));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_names_every_run_and_compares_it_with_the_first() {
        let run = |name: &str, rate| Run {
            name: name.into(),
            gib: 4.0,
            whole_s: 4.0,
            gib_per_s: rate,
            cpu_s_per_gib: vec![("agent".into(), 0.5)],
            stages: vec![("hash".into(), 0.1)],
        };
        let table = table(&[run("stock", 2.0), run("ours", 1.0)]);
        assert!(table.contains(" 1.00      0.50       0.50      4.0  ours"), "{table}");
    }
}
