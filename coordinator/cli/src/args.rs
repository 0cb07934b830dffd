//! The command line as it is written.

mod certificate;
mod check;
mod cluster;
mod evacuation;
mod events;
mod host;
mod how;
mod inventory;
mod migration;
mod vm;

use std::path::PathBuf;

pub use certificate::{Certificate, Init, Issue, IssuedRole, Token};
pub use check::{Check, Doctor};
use clap::{Parser, Subcommand, ValueEnum};
pub use cluster::Cluster;
pub use evacuation::{Apply, Cancel, Evacuate, Evacuation, Plan, Restore, Status};
pub use events::{Events, Since};
pub use host::{Host, Places};
pub use how::{Follow, How, WaitFor};
pub use inventory::{Inventory, Limit};
pub use migration::{ForceSwitchover, Migrate, Migration};
pub use vm::Vm;

/// Rackferry empties racks: it moves their VMs to other racks while they run.
#[derive(Debug, Parser)]
#[command(name = "rackferry", version)]
pub struct Args {
    /// Addresses of coordinators; each coordinator names the leader.
    #[arg(
        long,
        global = true,
        env = "RACKFERRY_COORDINATOR",
        value_name = "ADDR,...",
        value_delimiter = ',',
        default_value = "127.0.0.1:7400"
    )]
    pub coordinator: Vec<String>,
    /// Folder of the caller's certificate, default `~/.config/rackferry`; `off` at a site without TLS.
    #[arg(long, global = true, env = "RACKFERRY_TLS", value_name = "DIR|off")]
    pub tls: Option<String>,
    /// Form of the output.
    #[arg(long, short, global = true, value_enum, default_value_t)]
    pub output: Output,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Tables, for people.
    #[default]
    Table,
    /// JSON, for programs.
    Json,
    /// JSON, one line per answer and per snapshot of what the command waits for.
    Ndjson,
}

/// The command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Move every VM off racks or hosts.
    #[command(visible_alias = "drain")]
    Evacuate(Evacuate),
    /// Show what evacuate would do, and write a plan file for apply (exit code 3 if a VM cannot move, 4 if VMs are left
    /// out).
    Plan(Plan),
    /// Start exactly the migrations of a plan file, or none if the site has changed since.
    Apply(Apply),
    /// Move the VMs of an ended evacuation back to the hosts they came from.
    Restore(Restore),
    /// Move one VM.
    Migrate(Migrate),
    /// Check what would keep VMs from moving, and move nothing (exit code 3 if a VM cannot move).
    Check(Check),
    /// List problems of the site: leftovers, uncertain owners, agents, clocks, certificates.
    Doctor(Doctor),
    /// Show evacuations.
    Status(Status),
    /// List or show migrations.
    #[command(subcommand)]
    Migration(Migration),
    /// Cancel an evacuation or a migration; VMs before their switchover stay where they run.
    Cancel(Cancel),
    /// Stop the VM of a migration once its first pass is complete, for as long as the switchover takes.
    ForceSwitchover(ForceSwitchover),
    /// Pause an evacuation: no further migration starts, migrations under way finish.
    Pause(Evacuation),
    /// Resume a paused evacuation.
    Resume(Evacuation),
    /// Set or show how much migrations may send over links.
    #[command(subcommand)]
    Limit(Limit),
    /// Cordon hosts: they take no further VMs.
    Cordon(Places),
    /// Uncordon hosts: they take VMs again.
    Uncordon(Places),
    /// Import, show or check the inventory of racks, hosts and links.
    #[command(subcommand)]
    Inventory(Inventory),
    /// List VMs, or forget dead ones.
    #[command(subcommand)]
    Vm(Vm),
    /// List hosts, declare them dead, or forget them.
    #[command(subcommand)]
    Host(Host),
    /// Show who did what, what became of it, and what has happened without a request.
    Events(Events),
    /// Show or change the cluster of coordinators.
    #[command(subcommand)]
    Cluster(Cluster),
    /// Create the CA of a new site and its first certificates.
    Init(Init),
    /// Issue a certificate to a person or a coordinator; runs where the CA is.
    Issue(Issue),
    /// Create tokens that admit hosts to the site.
    #[command(subcommand)]
    Token(Token),
    /// Expel certificates before they expire, readmit them, or list them.
    #[command(subcommand)]
    Certificate(Certificate),
    /// Print the completion script of a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the man page, or write the pages of all commands.
    Man {
        /// Existing folder for the pages, such as /usr/local/share/man/man1.
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use rackferry_proto::v1;

    use super::*;

    #[test]
    fn the_definition_holds() {
        Args::command().debug_assert();
    }

    #[test]
    fn drain_is_evacuate() {
        let args = Args::try_parse_from([
            "rackferry",
            "drain",
            "r1",
            "h9",
            "--to",
            "r2,r3",
            "--dedup",
            "off",
            "--max-downtime",
            "1s",
        ])
        .unwrap();
        let Command::Evacuate(evacuate) = args.command else { panic!("not evacuate") };
        let request = evacuate.what.request("7".to_owned());
        assert!(request.link_limits.is_empty());
        assert_eq!(request.sources, ["r1", "h9"]);
        assert_eq!(request.targets, ["r2", "r3"]);
        let options = request.options.expect("they are given");
        assert_eq!(options.dedup(), v1::DedupMode::Off);
        assert_eq!(options.max_downtime_ms, 1000);
        assert_eq!(options.disruption(), v1::Disruption::Brief);
    }

    #[test]
    fn there_may_be_more_than_one_coordinator() {
        let args = ["rackferry", "cluster", "status", "--coordinator", "a:1,b:1"];
        assert_eq!(Args::try_parse_from(args).unwrap().coordinator, ["a:1", "b:1"]);
    }

    #[test]
    fn wrong_usage_is_code_2() {
        let wrong = Args::try_parse_from(["rackferry", "evacuate"]).unwrap_err();
        assert_eq!(wrong.exit_code(), 2);
    }
}
