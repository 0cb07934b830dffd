//! `cargo xtask tracking`.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use clap::Args;
use rackferry_tests::image::Qemu;
use rackferry_tests::runs_here;

use crate::run::{cargo, run as run_command, target};

const PACKAGE: &str = "rackferry-migrator";
/// Where cargo puts it beside the daemons.
const EXAMPLE: &str = "examples/tracking";

#[derive(Args)]
pub struct Arguments {
    /// Ways to hold QEMU: estimate, converge, page; the example `tracking` of the migrator has what they are.
    #[arg(long, value_delimiter = ',', default_value = "estimate,converge,page")]
    hold: Vec<String>,
    /// Migrations per way.
    #[arg(long, default_value_t = 40)]
    rounds: u32,
    /// How long each is held, seconds.
    #[arg(long, default_value_t = 6)]
    seconds: u32,
    /// Rate at which QEMU's stream is read after the first pass, KiB per second.
    #[arg(long, default_value_t = 400)]
    read: u32,
    /// Memory of the VM, MiB.
    #[arg(long, default_value_t = 64)]
    memory: u32,
    /// QEMU's accelerator, as its `-accel` takes it.
    #[arg(long, default_value = "tcg")]
    accel: String,
    /// Which QEMU: 10.0, as 7.2 cannot be held.
    #[arg(long, default_value = "10.0")]
    qemu: Qemu,
}

/// The example; in Lab B the one that was built outside, as the compiler would be emulated.
fn example() -> Command {
    let built = std::env::var_os("RACKFERRY_BIN").map(|bin| Path::new(&bin).join(EXAMPLE));
    built.filter(|path| path.exists()).map_or_else(
        || {
            let mut command = cargo(["run", "-q", "-p", PACKAGE, "--example", "tracking"]);
            command.arg("--");
            command
        },
        Command::new,
    )
}

/// Builds the example for Lab B.
pub fn build() -> Result<()> {
    run_command(&mut cargo(["build", "--release", "-q", "-p", PACKAGE, "--example", "tracking"]))
}

/// Runs the example once per way; fails only if a way could not be tried.
pub fn run(arguments: &Arguments) -> Result<()> {
    ensure!(runs_here("tracking"), "this machine cannot run the lab");
    let Arguments { rounds, seconds, read, memory, accel, qemu, .. } = arguments;
    let folder = target().join("tracking");
    for hold in &arguments.hold {
        let mut command = example();
        command.arg(hold);
        command.args([rounds, seconds, read, memory].map(u32::to_string)).arg(&folder);
        command.arg(qemu.binary()).args(["-machine", "q35", "-accel", accel, "-smp", "1"]);
        for firmware in qemu.firmware() {
            command.arg("-L").arg(firmware);
        }
        run_command(&mut command)?;
    }
    Ok(())
}
