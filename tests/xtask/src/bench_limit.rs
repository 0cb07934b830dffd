//! `cargo xtask bench limit`.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use rackferry_tests::bench::limit::{self, Options};
use rackferry_tests::lab::rate::Rate;

use crate::{setup, test};

#[derive(Args)]
pub struct Arguments {
    /// Hosts of each rack.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=200))]
    hosts: u8,
    /// VMs on each host of the rack that is emptied; all move at the same time.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    vms_per_host: u32,
    /// Guest memory of each VM; half of it is random.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(64..))]
    memory_mib: u32,
    /// Limits, one after the other.
    #[arg(long, value_delimiter = ',', default_value = "200mbit,100mbit,400mbit,200mbit")]
    limits: Vec<Rate>,
    /// Seconds each of them holds.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u64).range(4..))]
    hold_s: u64,
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
    let options = Options {
        hosts: arguments.hosts,
        vms_per_host: arguments.vms_per_host,
        memory_mib: arguments.memory_mib,
        limits: arguments.limits.clone(),
        hold: Duration::from_secs(arguments.hold_s),
    };
    let steps = limit::run(&options, |what| eprintln!("bench: {what}"))?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&steps)?);
    } else {
        print!("{}", limit::table(&steps));
    }
    Ok(())
}
