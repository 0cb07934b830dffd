//! `cargo xtask verify`: every check that only reads.

mod diagram;
mod limits;
mod metadata;
mod unused;
mod watching;

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use clap::Args;

use crate::run::{cargo, quiet, root, run as run_command};
use crate::setup::{libraries, promtool};

#[derive(Args)]
pub struct Arguments {
    /// Check licences and advisories too; needs cargo-deny and the network.
    #[arg(long)]
    deny: bool,
    /// Only what needs no compiler: docs against code, and unused dependencies.
    #[arg(long)]
    docs: bool,
}

/// Docs against code, format, lints, documentation and, if asked for, dependencies.
pub fn run(arguments: &Arguments) -> Result<()> {
    consistency()?;
    let promtool = promtool::ready()?;
    quiet(Command::new(&promtool).args(["check", "rules"]).arg(root().join(watching::RULES)))?;
    quiet(Command::new(&promtool).args(["test", "rules"]).arg(root().join(watching::TESTS)))?;
    if arguments.docs {
        return Ok(());
    }
    run_command(&mut cargo(["fmt", "--all", "--check"]))?;
    libraries()?;
    let clippy = ["clippy", "--workspace", "--all-targets", "--all-features", "--quiet"];
    run_command(cargo(clippy).args(["--", "-D", "warnings"]))?;
    let doc = ["doc", "--workspace", "--no-deps", "--document-private-items", "--quiet"];
    run_command(cargo(doc).env("RUSTDOCFLAGS", "-D warnings"))?;
    if arguments.deny {
        run_command(&mut cargo(["deny", "--workspace", "check"]))?;
    }
    Ok(())
}

/// What the docs say of crates, limits and metrics, and what crates depend on.
fn consistency() -> Result<()> {
    let packages = metadata::packages()?;
    let page = |name: &str| fs::read_to_string(root().join("docs").join(name));
    let mut found = diagram::differences(&page("ARCHITECTURE.md")?, &packages);
    found.extend(unused::found(&packages)?);
    found.extend(limits::differences(&page("operations.md")?, root()));
    let read = |path: &str| fs::read_to_string(root().join(path));
    let (dashboard, rules) = (read(watching::DASHBOARD)?, read(watching::RULES)?);
    found.extend(watching::differences(&page("operations.md")?, &dashboard, &rules));
    ensure!(found.is_empty(), "docs and code differ:\n  {}", found.join("\n  "));
    Ok(())
}
