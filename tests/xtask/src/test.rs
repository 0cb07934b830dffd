//! `cargo xtask test`.

use anyhow::Result;
use clap::Args;

use crate::run::{cargo, run as run_command};
use crate::{setup, simulate};

/// The daemons that the end-to-end tests start.
const DAEMONS: [&str; 3] = ["rackferry-agent", "rackferry-coordinator", "rackferry"];

#[derive(Args)]
pub struct Arguments {
    /// Passed on to `cargo test`.
    #[arg(last = true)]
    rest: Vec<String>,
}

/// Sets up, builds the daemons, runs every test of the workspace; then, unless only some tests are asked for, the
/// simulation's many seeds.
pub fn run(arguments: &Arguments) -> Result<()> {
    setup::run()?;
    build_daemons()?;
    let promtool = setup::promtool::ready()?;
    run_command(
        cargo(["test", "--workspace", "--no-fail-fast"])
            .args(&arguments.rest)
            .env(setup::promtool::VARIABLE, promtool),
    )?;
    if arguments.rest.is_empty() {
        simulate::prove()?;
    }
    Ok(())
}

/// Builds the daemons as they are shipped: the end-to-end tests measure them.
pub fn build_daemons() -> Result<()> {
    run_command(cargo(["build", "--release", "--quiet"]).args(daemons()))
}

/// The daemons, as cargo wants them named.
pub fn daemons() -> impl Iterator<Item = &'static str> {
    DAEMONS.iter().flat_map(|name| ["--package", name])
}
