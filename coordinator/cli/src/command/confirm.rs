//! The question before work starts.

use std::io::{BufRead, IsTerminal, Write};

use crate::{
    args::{Command, Output},
    exit::Failure,
};

/// Checks, before a coordinator is called, that a command which asks can ask.
///
/// # Errors
/// [`Failure::NotConfirmed`] if it cannot, and was not told to start without asking.
pub fn check(command: &Command, output: Output) -> Result<(), Failure> {
    let (name, yes) = match command {
        Command::Evacuate(args) => ("evacuate", args.yes),
        Command::Restore(args) => ("restore", args.yes),
        _ => return Ok(()),
    };
    if yes || can_ask(output) { Ok(()) } else { Err(Failure::NotConfirmed(name)) }
}

/// Programs read JSON, and do not answer.
fn can_ask(output: Output) -> bool {
    output == Output::Table && std::io::stderr().is_terminal() && std::io::stdin().is_terminal()
}

/// Asks whether to start.
///
/// # Errors
/// [`Failure::Declined`] if not.
pub fn agree() -> Result<(), Failure> {
    eprint!("Start? [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(Failure::Declined) }
}
