//! `cargo xtask simulate`.

use anyhow::Result;
use clap::Args;

use crate::run::{cargo, run as run_command};

const PACKAGE: &str = "rackferry-simulation";

#[derive(Args)]
pub struct Arguments {
    /// `--seeds N`, `--seed S`, `--trace` and others, passed on to the simulation.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Builds the simulation for speed and runs it; an error if an invariant does not hold.
pub fn run(arguments: &Arguments) -> Result<()> {
    let play = ["run", "--release", "--quiet", "--package", PACKAGE, "--"];
    run_command(cargo(play).args(&arguments.rest))
}

/// What a build must show: 10,000 seeds hold, and planted bugs are found.
pub fn prove() -> Result<()> {
    run(&Arguments { rest: Vec::new() })?;
    let planted = ["test", "--release", "--package", PACKAGE, "--features", "planted-bugs"];
    run_command(cargo(planted).args(["--test", "planted", "--", "--nocapture"]))
}
