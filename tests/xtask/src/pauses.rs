//! `cargo xtask pauses`.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use rackferry_tests::lab::rate::Rate;
use rackferry_tests::runs_here;
use rackferry_tests::trials::pauses::{self, Options};

use crate::test::build_daemons;

/// What a stop beside frozen neighbours may take more than its limit, milliseconds.
const MORE_MS: u64 = 300;

#[derive(Args)]
pub struct Arguments {
    /// Evacuations, to and fro.
    #[arg(long, default_value_t = 4)]
    runs: usize,
    /// Hosts in each rack; the last one of each is frozen.
    #[arg(long, default_value_t = 3)]
    hosts: u8,
    /// VMs on each host.
    #[arg(long, default_value_t = 3)]
    vms_per_host: usize,
    /// Memory of each VM, MiB.
    #[arg(long, default_value_t = 128)]
    memory: u32,
    /// How long a VM may be stopped, milliseconds.
    #[arg(long, default_value_t = 300)]
    max_downtime: u32,
    /// Seconds for which the agents stand still, and work in between.
    #[arg(long, default_value_t = 4)]
    freeze: u64,
    /// The link between the racks.
    #[arg(long, default_value = "300mbit")]
    core: Rate,
}

/// Runs them all; an error if a stop took too long.
pub fn run(arguments: &Arguments) -> Result<()> {
    ensure!(runs_here("pauses"), "this machine cannot run the lab");
    if std::env::var_os("RACKFERRY_BIN").is_none() {
        build_daemons()?;
    }
    let options = Options {
        runs: arguments.runs,
        hosts: arguments.hosts,
        vms_per_host: arguments.vms_per_host,
        memory_mib: arguments.memory,
        max_downtime_ms: arguments.max_downtime,
        freeze: Duration::from_secs(arguments.freeze),
        core: arguments.core,
    };
    let start = Instant::now();
    let report = pauses::run(&options, &mut |line| {
        println!("[{:>4} s] {line}", start.elapsed().as_secs());
    })?;
    let (longest, limit) = (report.longest_ms(), u64::from(options.max_downtime_ms));
    println!(
        "{} stops beside {} freezes of an agent of each rack; the longest took {longest} ms, the limit is {limit} ms",
        report.stops_ms.len(),
        report.freezes
    );
    let long = report.stops_ms.iter().filter(|(ms, _)| *ms >= limit + MORE_MS);
    let long: Vec<String> = long.map(|(ms, whose)| format!("{whose}: {ms} ms")).collect();
    ensure!(long.is_empty(), "stops of {MORE_MS} ms more than the limit: {}", long.join(", "));
    Ok(())
}
