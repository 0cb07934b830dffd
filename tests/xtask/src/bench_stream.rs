//! `cargo xtask bench stream`.

use anyhow::Result;
use clap::Args;
use rackferry_tests::bench::stream::{self, Options};
use rackferry_tests::image::Qemu;

use crate::{setup, test};

#[derive(Args)]
pub struct Arguments {
    /// Guest memory; the machine needs twice as much.
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u32).range(256..))]
    memory_mib: u32,
    /// Which QEMU runs the VM: 7.2 or 10.0.
    #[arg(long, default_value = "10.0")]
    qemu: Qemu,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
    /// Neither set the machine up nor build the daemons.
    #[arg(long)]
    as_is: bool,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    if !arguments.as_is {
        setup::run()?;
        test::build_daemons()?;
    }
    let Arguments { memory_mib, qemu, .. } = *arguments;
    let runs = stream::run(Options { memory_mib, qemu })?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&runs)?);
    } else {
        print!("{}", stream::table(&runs));
    }
    Ok(())
}
