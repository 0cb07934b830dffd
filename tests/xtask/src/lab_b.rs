//! `cargo xtask lab-b`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use rackferry_tests::lab_b::{self, Job, Options};

use crate::run::target;
use crate::test::build_daemons;
use crate::{setup, tracking};

#[derive(Args)]
pub struct Arguments {
    /// Memory of the emulated machine, MiB; it holds all files that are written there, too.
    #[arg(long, default_value_t = 4096)]
    memory: u32,
    /// Its CPUs.
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// Seconds after which it is ended.
    #[arg(long, default_value_t = 1800, value_name = "SECONDS")]
    limit: u64,
    /// The folder that it writes through to; `target/lab-b` by default. Also its logs if it fails.
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,
    /// Kernel module to load, beside KVM's (may be repeated).
    #[arg(long = "module", value_name = "NAME")]
    modules: Vec<String>,
    /// Give it an RDMA device, `rxe0`: Soft-RoCE, which packets of other machines do not reach.
    #[arg(long)]
    soft_roce: bool,
    /// What it runs. `xtask` is this program.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Sets up, builds, runs the command inside and ends with its exit code.
pub fn run(arguments: &Arguments) -> Result<()> {
    setup::run_lab_b()?;
    if std::env::var_os("RACKFERRY_BIN").is_none() {
        build_daemons()?;
        tracking::build()?;
    }
    let results = arguments.results.clone().unwrap_or_else(|| target().join("lab-b"));
    let options = Options {
        memory_mib: arguments.memory,
        cpus: arguments.cpus,
        modules: arguments.modules.clone(),
        soft_roce: arguments.soft_roce,
        ..Options::of(results, Duration::from_secs(arguments.limit))
    };
    let code = lab_b::run(&options, &job(&arguments.command)?)?;
    if code != 0 {
        std::process::exit(code);
    }
    Ok(())
}

/// The command with our own programs in its path, and nothing to build: the compiler would be emulated.
fn job(command: &[OsString]) -> Result<Job> {
    let own = std::env::current_exe()?;
    let mut path = own.parent().context("xtask lies in no folder")?.as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let programs =
        std::env::var_os("RACKFERRY_BIN").unwrap_or_else(|| target().join("release").into());
    Ok(Job::here(command)?.variable("PATH", path).variable("RACKFERRY_BIN", programs))
}
