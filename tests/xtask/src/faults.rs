//! `cargo xtask faults`.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use clap::Args;
use rackferry_tests::lab::rate::Rate;
use rackferry_tests::runs_here;
use rackferry_tests::trials::faults::{self, Failed, Kind, Options, Step};

use crate::run::target;
use crate::test::build_daemons;

#[derive(Args)]
pub struct Arguments {
    /// Runs in which something breaks.
    #[arg(long, default_value_t = 100)]
    runs: usize,
    /// Where the runs' seeds come from; another one each time unless it is given.
    #[arg(long)]
    seed: Option<u64>,
    /// One run with this seed, as a failed run has printed it.
    #[arg(long, value_name = "SEED")]
    replay: Option<u64>,
    /// Break only this (may be repeated).
    #[arg(long, value_name = "KIND")]
    only: Vec<Kind>,
    /// Break it only at this step of a move.
    #[arg(long, value_name = "STEP")]
    at: Option<Step>,
    /// Break each kind of thing at each step of a move once, instead of RUNS at random.
    #[arg(long, conflicts_with_all = ["runs", "at", "replay"])]
    matrix: bool,
    /// Hosts in each rack.
    #[arg(long, default_value_t = 3)]
    hosts: u8,
    /// Coordinators.
    #[arg(long, default_value_t = 1)]
    coordinators: u8,
    /// VMs on each host.
    #[arg(long, default_value_t = 2)]
    vms_per_host: usize,
    /// Memory of each VM, MiB.
    #[arg(long, default_value_t = 128)]
    memory: u32,
    /// The link between the racks.
    #[arg(long, default_value = "300mbit")]
    core: Rate,
}

impl Arguments {
    /// What of them a replay needs beside its seed.
    fn again(&self) -> String {
        let Self { hosts, coordinators, vms_per_host, memory, core, .. } = self;
        let at = self.at.map_or(String::new(), |step| format!(" --at {step}"));
        // Each cell of a matrix is named by itself.
        let only: String = match self.matrix {
            true => String::new(),
            false => self.only.iter().map(|kind| format!(" --only {kind}")).collect(),
        };
        format!(
            "--hosts {hosts} --coordinators {coordinators} --vms-per-host {vms_per_host} --memory {memory} --core {core}{only}{at}"
        )
    }
}

/// Runs them all; an error if something did not hold after one of them.
pub fn run(arguments: Arguments) -> Result<()> {
    ensure!(runs_here("faults"), "this machine cannot run the lab");
    if std::env::var_os("RACKFERRY_BIN").is_none() {
        build_daemons()?;
    }
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let seed = arguments.seed.unwrap_or_else(now);
    let all = if arguments.only.is_empty() { Kind::ALL.to_vec() } else { arguments.only.clone() };
    let options = Options {
        runs: arguments.runs,
        seed,
        replay: arguments.replay,
        kinds: all,
        at: arguments.at,
        matrix: arguments.matrix,
        hosts: arguments.hosts,
        coordinators: arguments.coordinators,
        vms_per_host: arguments.vms_per_host,
        memory_mib: arguments.memory,
        core: arguments.core,
        logs: target().join("faults"),
    };
    match arguments.replay {
        Some(seed) => println!("replaying seed {seed}"),
        None => println!("{} runs from seed {seed}", options.runs),
    }
    let start = Instant::now();
    let mut number = 0;
    let summary = faults::run(&options, &mut |line| {
        number += 1;
        println!("{number:>4} [{:>4} s] {line}", start.elapsed().as_secs());
    })?;
    print!("\n{}", summary.table());
    for Failed { seed, cell } in &summary.failed {
        let cell = cell.map_or(String::new(), |(kind, at)| format!(" --only {kind} --at {at}"));
        println!("again: cargo xtask faults --replay {seed} {}{cell}", arguments.again());
    }
    ensure!(summary.failed.is_empty(), "{} runs failed", summary.failed.len());
    Ok(())
}
