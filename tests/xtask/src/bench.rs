//! `cargo xtask bench`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};
use rackferry_tests::bench::evacuate::{self, BUSY_KIB, MOVES, Method, Plan, Report};
use rackferry_tests::image::Qemu;
use rackferry_tests::lab::rate::Rate;
use rackferry_tests::lab::vm::Profile;

use crate::run::{cargo, run as run_command};
use crate::{setup, test};

#[derive(Subcommand)]
pub enum Bench {
    /// Empty a rack in several ways, one after the other, with the same VMs over the same links.
    Evacuate(Evacuate),
    /// Move one VM of unique content over a link without limit: throughput, and CPU time by stage.
    Stream(crate::bench_stream::Arguments),
    /// Change the limit of the core link while a rack is emptied: how soon and how closely the link follows.
    Limit(crate::bench_limit::Arguments),
    /// Drive the coordinator's fleet alone at 1,000, 10,000 and 50,000 VMs: turns, readmission, memory.
    Fleet(Fleet),
}

#[derive(Args)]
pub struct Fleet {
    /// Seconds that turns are measured at each size.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
}

#[derive(Args)]
pub struct Evacuate {
    /// Racks; the lab has two.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=2))]
    racks: u8,
    /// Hosts of each rack.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u8).range(1..=200))]
    hosts: u8,
    /// VMs on each host of the rack that is emptied.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..))]
    vms_per_host: u8,
    /// Guest memory of each VM.
    #[arg(long, default_value = "256M", value_parser = memory_mib)]
    memory: u32,
    /// Rate of the core link in each direction.
    #[arg(long, default_value = "1gbit")]
    core: Rate,
    /// What the guests do: idle, template, busy, mixed, unique or zero.
    #[arg(long, default_value = "idle")]
    profile: Profile,
    /// What a busy guest rewrites, KiB/s.
    #[arg(long, default_value_t = BUSY_KIB)]
    busy_kib: u32,
    /// Moves at a time, of every method.
    #[arg(long, default_value_t = MOVES, value_parser = clap::value_parser!(u32).range(1..))]
    moves: u32,
    /// Which QEMU runs them: 7.2 or 10.0.
    #[arg(long, default_value = "10.0")]
    qemu: Qemu,
    /// Only some of the methods: rack, host, off (Rackferry by dedup mode), oc, multifd (stock QEMU).
    #[arg(long, value_delimiter = ',')]
    only: Vec<Method>,
    /// Write the figures as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a chart as SVG.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Neither set the machine up nor build the daemons.
    #[arg(long)]
    as_is: bool,
}

pub fn run(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Evacuate(arguments) => evacuate(arguments),
        Bench::Stream(arguments) => crate::bench_stream::run(arguments),
        Bench::Limit(arguments) => crate::bench_limit::run(arguments),
        Bench::Fleet(arguments) => fleet(arguments),
    }
}

/// The fleet has no task, clock or socket, so its bench needs neither lab nor root.
fn fleet(arguments: &Fleet) -> Result<()> {
    let seconds = arguments.seconds.to_string();
    let bench = ["bench", "--quiet", "--package", "rackferry-fleet", "--bench", "scale", "--"];
    run_command(cargo(bench).args(["--seconds", &seconds]))
}

fn evacuate(arguments: &Evacuate) -> Result<()> {
    if !arguments.as_is {
        setup::run()?;
        test::build_daemons()?;
    }
    let plan = Plan {
        hosts: arguments.hosts,
        vms_per_host: arguments.vms_per_host.into(),
        memory_mib: arguments.memory,
        core: arguments.core,
        profile: arguments.profile,
        busy_kib: arguments.busy_kib,
        moves: arguments.moves,
        qemu: arguments.qemu,
        methods: if arguments.only.is_empty() {
            Method::ALL.into()
        } else {
            arguments.only.clone()
        },
    };
    let write = |report: &Report| write(arguments, report);
    let report = evacuate::run(&plan, |what| eprintln!("bench: {what}"), write)?;
    println!("{report}");
    let failures: usize = report.methods.iter().map(evacuate::Figures::failures).sum();
    ensure!(failures == 0, "{failures} moves failed");
    Ok(())
}

fn write(arguments: &Evacuate, report: &Report) -> Result<()> {
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(report)?;
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    arguments.svg.as_ref().map_or(Ok(()), |path| report.chart(path))
}

/// `256M`, `1G`.
fn memory_mib(text: &str) -> Result<u32> {
    let (number, factor) =
        match text.split_at_checked(text.len().saturating_sub(1)).unwrap_or_default() {
            (number, "M") => (number, 1),
            (number, "G") => (number, 1024),
            _ => bail!("write memory as 256M or 1G"),
        };
    let number: u32 = number.parse()?;
    let mib = number.checked_mul(factor).filter(|&mib| mib >= 64);
    mib.context("a guest needs at least 64M")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told_in_mib_or_gib() {
        assert_eq!(memory_mib("256M").unwrap(), 256);
        assert_eq!(memory_mib("2G").unwrap(), 2048);
        for wrong in ["", "M", "256", "1T", "4M", "9999999G"] {
            assert!(memory_mib(wrong).is_err(), "{wrong}");
        }
    }
}
