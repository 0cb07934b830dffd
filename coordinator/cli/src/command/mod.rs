//! What each command does.

mod cancel;
mod certificates;
mod cluster;
mod evacuate;
mod list;
mod migrate;
mod status;
mod token;
mod watch;

use rackferry_proto::{Reason, reason_of};
use tonic::Status;

use crate::{
    args::{Args, Cluster, Command, Host, Output, Vm},
    client::{Client, Coordinators},
    exit::{Code, Failure},
};

/// What every command needs.
pub struct Context {
    /// The coordinator.
    pub client: Client,
    /// Where coordinators are.
    pub coordinators: Coordinators,
    /// How to print.
    pub output: Output,
}

/// Runs a command to its end. Not cancel safe: it owns the terminal.
///
/// # Errors
/// Why it could not be done.
pub async fn run(args: Args) -> Result<Code, Failure> {
    let Args { coordinator: addresses, tls, output, command } = args;
    match &command {
        Command::Init(init) => return certificates::init(init),
        Command::Issue(issue) => return certificates::issue(issue),
        _ => {}
    }
    let coordinators = Coordinators { addresses, tls: certificates::own(tls.as_deref())? };
    // Who leads is worth asking also when nobody does.
    let client = match command {
        Command::Cluster(Cluster::Status) => Client::connect_any(&coordinators).await?,
        _ => Client::connect(&coordinators).await?,
    };
    let context = Context { client, coordinators, output };
    match command {
        Command::Evacuate(evacuate) => evacuate::run(&context, evacuate).await,
        Command::Migrate(migrate) => migrate::run(&context, migrate).await,
        Command::Status(status) => status::run(&context, status).await,
        Command::Cancel(cancel) => cancel::run(&context, cancel).await,
        Command::Vm(Vm::List { rack, host }) => list::vms(&context, rack, host).await,
        Command::Host(Host::List { rack }) => list::hosts(&context, rack).await,
        Command::Cluster(cluster) => cluster::run(&context, cluster).await,
        Command::Token(token) => token::run(&context, token).await,
        Command::Init(_) | Command::Issue(_) => unreachable!("done without a coordinator"),
    }
}

/// How often a call is made again at another leader.
const LEADERS: u32 = 3;

impl Context {
    /// Calls the leader; if it leads no more, the next one. What is called says the same when it is called
    /// again.
    pub async fn call<T>(
        &self,
        call: impl AsyncFn(Client) -> Result<T, Status>,
    ) -> Result<T, Failure> {
        let mut client = self.client.clone();
        for _ in 0..LEADERS {
            match call(client).await {
                Err(status) if self.leads_no_more(&status) => {}
                answer => return Ok(answer?),
            }
            client = Client::connect(&self.coordinators).await?;
        }
        Ok(call(client).await?)
    }

    /// A coordinator that says so, or that is gone while there are others.
    fn leads_no_more(&self, status: &Status) -> bool {
        match reason_of(status) {
            Some(reason) => reason == Reason::NotLeader,
            None => {
                self.coordinators.addresses.len() > 1 && status.code() == tonic::Code::Unavailable
            }
        }
    }

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
