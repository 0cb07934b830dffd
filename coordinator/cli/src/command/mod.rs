//! What each command does.

mod cancel;
mod evacuate;
mod list;
mod migrate;
mod status;
mod watch;

use crate::{
    args::{Args, Command, Host, Output, Vm},
    client::Client,
    exit::{Code, Failure},
};

/// What every command needs.
pub struct Context {
    /// The coordinator.
    pub client: Client,
    /// Where it is.
    pub address: String,
    /// How to print.
    pub output: Output,
}

/// Runs a command to its end. Not cancel safe: it owns the terminal.
///
/// # Errors
/// Why it could not be done.
pub async fn run(args: Args) -> Result<Code, Failure> {
    let client = Client::connect(&args.coordinator).await?;
    let context = Context { client, address: args.coordinator, output: args.output };
    match args.command {
        Command::Evacuate(evacuate) => evacuate::run(&context, evacuate).await,
        Command::Migrate(migrate) => migrate::run(&context, migrate).await,
        Command::Status(status) => status::run(&context, status).await,
        Command::Cancel(cancel) => cancel::run(&context, cancel).await,
        Command::Vm(Vm::List { rack, host }) => list::vms(&context, rack, host).await,
        Command::Host(Host::List { rack }) => list::hosts(&context, rack).await,
    }
}

impl Context {
    /// Prints the one or the other.
    pub fn print(&self, table: impl FnOnce() -> String, json: impl FnOnce() -> String) {
        match self.output {
            Output::Table => println!("{}", table()),
            Output::Json => println!("{}", json()),
        }
    }

    /// Whether people look at it while it goes on.
    pub fn is_interactive(&self) -> bool {
        use std::io::IsTerminal;
        self.output == Output::Table && std::io::stderr().is_terminal()
    }
}

/// An id that nobody had before, unless the user gives one.
fn request_id(given: Option<String>) -> String {
    given.unwrap_or_else(|| uuid::Uuid::new_v4().to_string())
}
