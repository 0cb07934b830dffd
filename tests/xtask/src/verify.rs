//! `cargo xtask verify`: every check that only reads.

use anyhow::Result;
use clap::Args;

use crate::run::{cargo, run as run_command};

#[derive(Args)]
pub struct Arguments {
    /// Check licences and advisories too; needs cargo-deny and the network.
    #[arg(long)]
    deny: bool,
}

/// Format, lints, documentation and, if asked for, dependencies.
pub fn run(arguments: &Arguments) -> Result<()> {
    run_command(&mut cargo(["fmt", "--all", "--check"]))?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--all-features", "--quiet"];
    run_command(cargo(clippy).args(["--", "-D", "warnings"]))?;
    let doc = ["doc", "--workspace", "--no-deps", "--document-private-items", "--quiet"];
    run_command(cargo(doc).env("RUSTDOCFLAGS", "-D warnings"))?;
    if arguments.deny {
        run_command(&mut cargo(["deny", "--workspace", "check"]))?;
    }
    Ok(())
}
