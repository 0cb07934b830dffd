//! `cargo xtask upgrade`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use clap::Args;
use rackferry_tests::lab::rate::Rate;
use rackferry_tests::runs_here;
use rackferry_tests::trials::upgrade::{self, Options};

use crate::run::{cargo, quiet, root, run as run_command, target};
use crate::test::{build_daemons, daemons};

#[derive(Args)]
pub struct Arguments {
    /// The commit whose daemons run at first; those of the working tree replace them.
    #[arg(long, value_name = "COMMIT")]
    from: String,
    /// Hosts in each rack.
    #[arg(long, default_value_t = 6)]
    hosts: u8,
    /// Coordinators.
    #[arg(long, default_value_t = 3)]
    coordinators: u8,
    /// VMs on each host.
    #[arg(long, default_value_t = 4)]
    vms_per_host: usize,
    /// Memory of each VM, MiB.
    #[arg(long, default_value_t = 128)]
    memory: u32,
    /// The link between the racks.
    #[arg(long, default_value = "60mbit")]
    core: Rate,
}

/// Builds both, boots guests under the old daemons, and replaces one daemon after the other while the guests move.
pub fn run(arguments: &Arguments) -> Result<()> {
    ensure!(runs_here("upgrade"), "this machine cannot run the lab");
    let old = build(&arguments.from)?;
    build_daemons()?;
    let options = Options {
        hosts: arguments.hosts,
        coordinators: arguments.coordinators,
        vms_per_host: arguments.vms_per_host,
        memory_mib: arguments.memory,
        core: arguments.core,
        old,
        new: target().join("release"),
    };
    let report = upgrade::run(&options, &mut |line| println!("{line}"))?;
    let during = report.restarts.iter().filter(|(_, under_way)| *under_way > 0).count();
    println!(
        "{} of {} restarts while VMs were on their way; all {} VMs moved, {} of them not at the first attempt, in {:.1} s",
        during,
        report.restarts.len(),
        report.vms,
        report.again,
        report.whole.as_secs_f64()
    );
    Ok(())
}

/// Builds the daemons of a commit, in a working tree of their own.
fn build(commit: &str) -> Result<PathBuf> {
    let folder = target().join("upgrade");
    let (tree, built) = (folder.join("tree"), folder.join("target"));
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.current_dir(root()).args(arguments);
        command
    };
    remove(&tree, &git)?;
    let path = tree.to_string_lossy();
    quiet(&mut git(&["worktree", "add", "--detach", "--force", &path, commit]))?;
    let mut command = cargo(["build", "--release", "--quiet"]);
    command.args(daemons()).current_dir(&tree).env("CARGO_TARGET_DIR", &built);
    let outcome = run_command(&mut command);
    remove(&tree, &git)?;
    outcome.map(|()| built.join("release"))
}

fn remove(tree: &Path, git: &dyn Fn(&[&str]) -> Command) -> Result<()> {
    if tree.exists() {
        quiet(&mut git(&["worktree", "remove", "--force", &tree.to_string_lossy()]))?;
    }
    Ok(())
}
