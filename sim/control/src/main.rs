//! `cargo xtask simulate`: many seeds, or one of them with everything that happens.

use std::num::NonZero;
use std::process::ExitCode;
use std::thread;

use clap::Parser;
use rackferry_simulation::sweep::sweep;
use rackferry_simulation::{Report, replay};

/// Simulates the control plane in worlds with faults, and checks that its invariants hold.
#[derive(Parser)]
#[command(bin_name = "cargo xtask simulate")]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Run only the first seed, and print everything that happens.
    #[arg(long)]
    trace: bool,
    /// Threads; as many as there are cores unless it is given.
    #[arg(long)]
    threads: Option<usize>,
    /// Lines of the trace that are shown of a world that failed.
    #[arg(long, default_value_t = 60)]
    lines: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.trace {
        let report = replay(arguments.seed, None);
        println!("{}", report.trace.join("\n"));
        return verdict(&report);
    }
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let threads = arguments.threads.unwrap_or(cores);
    let sum = sweep(arguments.seed, arguments.seeds, threads, 5, None);
    print!("{}", sum.coverage);
    println!(
        "{} seeds in {:.1} s on {threads} threads: {:.0} seeds a minute",
        sum.coverage.worlds,
        sum.took.as_secs_f64(),
        sum.per_minute()
    );
    for failed in &sum.failed {
        let again = replay(failed.seed, None);
        let from = again.trace.len().saturating_sub(arguments.lines);
        println!("\n{}", again.trace[from..].join("\n"));
        verdict(failed);
    }
    if sum.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn verdict(report: &Report) -> ExitCode {
    let Some(violation) = &report.violation else { return ExitCode::SUCCESS };
    println!("seed {}: {} does not hold: {}", report.seed, violation.invariant, violation.what);
    println!("again: cargo xtask simulate --seed {} --trace", report.seed);
    ExitCode::FAILURE
}
