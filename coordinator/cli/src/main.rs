//! The rackferry command line.
mod args;
mod client;
mod command;
mod ending;
mod exit;
mod limit;
mod plan_file;
mod progress;
mod render;
mod units;

use std::process::ExitCode;

use args::{Args, Output};
use clap::Parser;
use exit::{Code, Failure};

fn main() -> ExitCode {
    let args = Args::parse();
    let output = args.output;
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit(report(&Failure::Io(error), output)),
    };
    match runtime.block_on(command::run(args)) {
        Ok(code) => exit(code),
        Err(failure) => exit(report(&failure, output)),
    }
}

fn exit(code: Code) -> ExitCode {
    ExitCode::from(code as u8)
}

/// Says what went wrong, the way the output is read.
fn report(failure: &Failure, output: Output) -> Code {
    match output {
        Output::Json => println!("{}", render::json::failure(failure)),
        Output::Ndjson => println!("{}", render::json::line(&render::json::failure(failure))),
        Output::Table => eprintln!("rackferry: {}", failure.text()),
    }
    failure.code()
}
