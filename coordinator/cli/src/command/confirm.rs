//! The question before work starts.

use std::io::{BufRead, IsTerminal, Write};

use crate::{
    args::{Certificate, Command, Host, Output, Vm},
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
        Command::Host(Host::DeclareDead { yes, .. }) => ("host declare-dead", *yes),
        Command::Certificate(Certificate::Expel { yes, .. }) => ("certificate expel", *yes),
        Command::Vm(Vm::AcceptSpec { yes, .. }) => ("vm accept-spec", *yes),
        _ => return Ok(()),
    };
    if yes || can_ask(output) { Ok(()) } else { Err(Failure::NotConfirmed(name)) }
}

/// Programs read JSON, and do not answer.
fn can_ask(output: Output) -> bool {
    output == Output::Table && std::io::stderr().is_terminal() && std::io::stdin().is_terminal()
}

/// Asks for a name, for what cannot be taken back.
///
/// # Errors
/// [`Failure::Declined`] if another one is typed.
pub fn type_name(name: &str) -> Result<(), Failure> {
    answered(&format!("Type {name} to go on: "), |answer| answer == name)
}

/// Asks whether to start.
///
/// # Errors
/// [`Failure::Declined`] if not.
pub fn agree() -> Result<(), Failure> {
    answered("Start? [y/N] ", |answer| matches!(answer, "y" | "Y" | "yes"))
}

/// Asks whether what was shown is right.
///
/// # Errors
/// [`Failure::Declined`] if not.
pub fn accept() -> Result<(), Failure> {
    answered("Accept? [y/N] ", |answer| matches!(answer, "y" | "Y" | "yes"))
}

fn answered(prompt: &str, agrees: impl FnOnce(&str) -> bool) -> Result<(), Failure> {
    eprint!("{prompt}");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if agrees(answer.trim()) { Ok(()) } else { Err(Failure::Declined) }
}
