//! `cargo xtask demo`.

use anyhow::Result;
use rackferry_tests::bench::evacuate::demo;

use crate::{setup, test};

/// Sets up, builds, and shows one evacuation beside what stock QEMU does.
pub fn run() -> Result<()> {
    setup::run()?;
    test::build_daemons()?;
    println!("{}", demo::run(|what| println!("\n== {what}"))?);
    Ok(())
}
