//! `cargo xtask`: everything a developer or a build machine asks of the repository.

mod bench;
mod bench_limit;
mod bench_stream;
mod demo;
mod faults;
mod lab_b;
mod pauses;
mod run;
mod setup;
mod simulate;
mod test;
mod tracking;
mod trial;
mod upgrade;
mod verify;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about, bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install packages, fetch QEMU 10.0 and a kernel, build the lab's images. Needs root and Debian 12.
    Setup(setup::Arguments),
    /// Set up, build the daemons and run every test, the end-to-end ones included.
    Test(test::Arguments),
    /// Two racks on this machine, real guests, one evacuation, and what crossed the core link.
    Demo,
    /// Measure Rackferry beside stock QEMU.
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Break things while real guests move, and check what was promised. Needs root.
    Faults(faults::Arguments),
    /// Run a command in an emulated machine that has KVM; `lab-b -- COMMAND ARGS...`. Needs root.
    LabB(lab_b::Arguments),
    /// Freeze an agent of each rack again and again while VMs of others move, and print the longest stop. Needs root.
    Pauses(pauses::Arguments),
    /// Move guests to and fro with `--verify` and count memories that differ. Needs root.
    Trial(trial::Arguments),
    /// Hold migrations of one VM in several ways, without Rackferry, and count the writes that QEMU loses.
    Tracking(tracking::Arguments),
    /// Replace every daemon by a newer one while real guests move. Needs root.
    Upgrade(upgrade::Arguments),
    /// Simulate the control plane in worlds with faults; `-- --help` says how.
    Simulate(simulate::Arguments),
    /// Docs against code, unused dependencies, format, lints and documentation; changes nothing.
    Verify(verify::Arguments),
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Setup(arguments) => setup::set_up(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Demo => demo::run(),
        Command::Bench(bench) => bench::run(&bench),
        Command::Faults(arguments) => faults::run(arguments),
        Command::LabB(arguments) => lab_b::run(&arguments),
        Command::Pauses(arguments) => pauses::run(&arguments),
        Command::Trial(arguments) => trial::run(arguments),
        Command::Tracking(arguments) => tracking::run(&arguments),
        Command::Upgrade(arguments) => upgrade::run(&arguments),
        Command::Simulate(arguments) => simulate::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
    }
}
