//! What each command does.

mod cancel;
mod certificate;
mod certificates;
mod check;
mod cluster;
mod confirm;
mod doctor;
mod evacuate;
mod events;
mod follow;
mod force;
mod gone;
mod hold;
mod inventory;
mod limit;
mod list;
mod manual;
mod migrate;
mod migration;
mod plan;
mod restore;
mod spec;
mod status;
mod token;
mod vm;
mod watch;
mod watch_one;

use rackferry_proto::{Reason, reason_of};
use tonic::Status;

use crate::{
    args::{Args, Cluster, Command, Host, Inventory, Output, Vm},
    client::{Client, Coordinators},
    exit::{Code, Failure},
    render,
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
    // These need no coordinator; certificates are made before there is one.
    match &command {
        Command::Inventory(Inventory::Check { file }) => return inventory::check(file, output),
        Command::Init(init) => return certificates::init(init),
        Command::Issue(issue) => return certificates::issue(issue),
        Command::Completions { shell } => return manual::completions(*shell),
        Command::Man { out } => return manual::pages(out.as_deref()),
        _ => {}
    }
    confirm::check(&command, output)?;
    let coordinators = Coordinators { addresses, tls: certificates::own(tls.as_deref())? };
    // The cluster can be shown without a leader, too.
    let client = match command {
        Command::Cluster(Cluster::Status) => Client::connect_any(&coordinators).await?,
        _ => Client::connect(&coordinators).await?,
    };
    let context = Context { client, coordinators, output };
    match command {
        Command::Evacuate(evacuate) => evacuate::run(&context, evacuate).await,
        Command::Plan(plan) => plan::plan(&context, plan).await,
        Command::Apply(apply) => plan::apply(&context, apply).await,
        Command::Restore(restore) => restore::run(&context, restore).await,
        Command::Migrate(migrate) => migrate::run(&context, migrate).await,
        Command::Check(check) => check::run(&context, check).await,
        Command::Doctor(doctor) => doctor::run(&context, doctor).await,
        Command::Status(status) => status::run(&context, status).await,
        Command::Migration(migration) => migration::run(&context, migration).await,
        Command::Cancel(cancel) => cancel::run(&context, cancel).await,
        Command::ForceSwitchover(args) => force::run(&context, args.migration).await,
        Command::Pause(args) => hold::pause(&context, args.evacuation, true).await,
        Command::Resume(args) => hold::pause(&context, args.evacuation, false).await,
        Command::Cordon(args) => hold::cordon(&context, args.places, true).await,
        Command::Uncordon(args) => hold::cordon(&context, args.places, false).await,
        Command::Limit(limit) => limit::run(&context, limit).await,
        Command::Inventory(inventory) => inventory::run(&context, inventory).await,
        Command::Vm(Vm::Show { vm }) => vm::show(&context, vm).await,
        Command::Vm(Vm::Forget { vm }) => gone::forget_vm(&context, vm).await,
        Command::Vm(Vm::Spec { vm }) => spec::show(&context, vm).await,
        Command::Vm(Vm::AcceptSpec { vm, yes }) => spec::accept(&context, vm, yes).await,
        Command::Host(Host::DeclareDead { host, yes }) => {
            gone::declare_dead(&context, host, yes).await
        }
        Command::Host(Host::Forget { host }) => gone::forget_host(&context, host).await,
        Command::Vm(Vm::List { rack, host }) => list::vms(&context, rack, host).await,
        Command::Host(Host::List { rack }) => list::hosts(&context, rack).await,
        Command::Events(args) => events::run(&context, args).await,
        Command::Cluster(cluster) => cluster::run(&context, cluster).await,
        Command::Token(token) => token::run(&context, token).await,
        Command::Certificate(args) => certificate::run(&context, args).await,
        Command::Init(_)
        | Command::Issue(_)
        | Command::Completions { .. }
        | Command::Man { .. } => unreachable!("done without a coordinator"),
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

    /// Every row of a list that comes in pages: `call` asks for the page behind a token, and gives its rows and the next
    /// token, empty after the last.
    ///
    /// # Errors
    /// As [`Context::call`].
    pub async fn pages<T>(
        &self,
        call: impl AsyncFn(Client, String) -> Result<(Vec<T>, String), Status>,
    ) -> Result<Vec<T>, Failure> {
        let (mut rows, mut token) = (Vec::new(), String::new());
        loop {
            let page = async |client: Client| call(client, token.clone()).await;
            let (more, next) = self.call(page).await?;
            rows.extend(more);
            if next.is_empty() {
                return Ok(rows);
            }
            token = next;
        }
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
        print(self.output, table, json);
    }

    /// Prints one of several snapshots, if each shall be printed.
    pub fn print_snapshot(&self, json: impl FnOnce() -> String) {
        if self.output == Output::Ndjson {
            println!("{}", render::json::line(&json()));
        }
    }

    /// Whether people look at it while it goes on.
    pub fn is_interactive(&self) -> bool {
        use std::io::IsTerminal;
        self.output == Output::Table && std::io::stderr().is_terminal()
    }
}

fn print(output: Output, table: impl FnOnce() -> String, json: impl FnOnce() -> String) {
    match output {
        Output::Table => println!("{}", table()),
        Output::Json => println!("{}", json()),
        Output::Ndjson => println!("{}", render::json::line(&json())),
    }
}

/// The user's id, or a new one.
fn request_id(given: Option<String>) -> String {
    given.unwrap_or_else(|| uuid::Uuid::new_v4().to_string())
}
