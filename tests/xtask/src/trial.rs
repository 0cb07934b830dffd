//! `cargo xtask trial`.

use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Args;
use rackferry_tests::image::Qemu;
use rackferry_tests::lab::accel::Accel;
use rackferry_tests::lab::rate::Rate;
use rackferry_tests::runs_here;
use rackferry_tests::trials::memory::{self, Options};

use crate::run::target;
use crate::test::build_daemons;

#[derive(Args)]
pub struct Arguments {
    /// Moves to make, all of them verified.
    #[arg(long, default_value_t = 500)]
    moves: usize,
    /// Hosts in each rack.
    #[arg(long, default_value_t = 3)]
    hosts: u8,
    /// VMs on each host.
    #[arg(long, default_value_t = 4)]
    vms_per_host: usize,
    /// Memory of each VM, MiB.
    #[arg(long, default_value_t = 160)]
    memory: u32,
    /// MiB of each VM that it rewrites all the time.
    #[arg(long, default_value_t = 4)]
    wss: u32,
    /// The link between the racks.
    #[arg(long, default_value = "200mbit")]
    core: Rate,
    /// Which QEMU runs them: 7.2 or 10.0.
    #[arg(long, default_value = "10.0")]
    qemu: Qemu,
    /// What runs the guests: tcg, kvm or kvm,dirty-ring-size=ENTRIES.
    #[arg(long, default_value_t)]
    accel: Accel,
    /// Further options of `rackferry evacuate`, after `--`.
    #[arg(last = true)]
    evacuate: Vec<String>,
}

/// Moves them all; an error if a memory differed.
pub fn run(arguments: Arguments) -> Result<()> {
    ensure!(runs_here("trial"), "this machine cannot run the lab");
    if std::env::var_os("RACKFERRY_BIN").is_none() {
        build_daemons()?;
    }
    let options = Options {
        moves: arguments.moves,
        hosts: arguments.hosts,
        vms_per_host: arguments.vms_per_host,
        memory_mib: arguments.memory,
        wss_mib: arguments.wss,
        core: arguments.core,
        qemu: arguments.qemu,
        accel: arguments.accel,
        evacuate: arguments.evacuate,
        logs: target().join("trial"),
    };
    let start = Instant::now();
    let report = memory::run(&options, &mut |line| {
        println!("[{:>5} s] {line}", start.elapsed().as_secs());
    })?;
    let [median, p99, longest] = [0.5, 0.99, 1.0].map(|part| report.pause_ms(part));
    println!(
        "{} moves verified in {} evacuations, {:.0} s; {} needed more than one attempt, {} VMs stayed; pause by QEMU: \
         median {median} ms, p99 {p99} ms, longest {longest} ms; memories that differed: {}",
        report.moved,
        report.runs,
        report.whole.as_secs_f64(),
        report.again,
        report.stayed,
        report.differences.len()
    );
    let logs = options.logs.display();
    ensure!(report.differences.is_empty(), "guest memory was not whole; logs in {logs}");
    Ok(())
}
