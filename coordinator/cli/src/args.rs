//! The command line as it is written.

use std::{path::PathBuf, time::Duration};

use clap::{ArgAction, Parser, Subcommand, ValueEnum};
use rackferry_proto::v1;

use crate::{limit::LinkLimit, units};

/// Empties racks: moves their VMs elsewhere while they run.
#[derive(Debug, Parser)]
#[command(name = "rackferry", version)]
pub struct Args {
    /// Addresses of coordinators; any one leads to the leader.
    #[arg(
        long,
        global = true,
        env = "RACKFERRY_COORDINATOR",
        value_name = "ADDR,...",
        value_delimiter = ',',
        default_value = "127.0.0.1:7400"
    )]
    pub coordinator: Vec<String>,
    /// The folder of the own certificate, or `off` at a site without TLS; without it `~/.config/rackferry`.
    #[arg(long, global = true, env = "RACKFERRY_TLS", value_name = "DIR|off")]
    pub tls: Option<String>,
    /// How to print.
    #[arg(long, short, global = true, value_enum, default_value_t)]
    pub output: Output,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
    /// The same, each answer and each snapshot of what is waited for in a line of its own.
    Ndjson,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Move every VM off racks or hosts.
    #[command(visible_alias = "drain")]
    Evacuate(Evacuate),
    /// Say what evacuate would do, and write it to a file for apply (exit code 3 if it cannot be done).
    Plan(Plan),
    /// Start exactly what a plan file says; nothing, if anything has changed since.
    Apply(Apply),
    /// Bring the VMs that an ended evacuation has moved back to the hosts they came from.
    Restore(Restore),
    /// Move one VM.
    Migrate(Migrate),
    /// Say what would keep VMs from moving; moves nothing (exit code 3 if something would).
    Check(Check),
    /// Show what is not as it should be: leftovers, doubtful owners, agents, clocks, certificates.
    Doctor(Doctor),
    /// Show evacuations.
    Status(Status),
    /// Stop an evacuation or a migration; what is not switched over stays where it runs.
    Cancel(Cancel),
    /// Stop the VM of a migration as soon as its first pass is over, for as long as it takes.
    ForceSwitchover(ForceSwitchover),
    /// Start no more moves of an evacuation for a while; those under way finish.
    Pause(Evacuation),
    /// Let a paused evacuation go on.
    Resume(Evacuation),
    /// What moves may put on links.
    #[command(subcommand)]
    Limit(Limit),
    /// Let no more VMs come to hosts.
    Cordon(Places),
    /// Let VMs come to hosts again.
    Uncordon(Places),
    /// Racks, hosts and links, as a file says.
    #[command(subcommand)]
    Inventory(Inventory),
    /// VMs.
    #[command(subcommand)]
    Vm(Vm),
    /// Hosts.
    #[command(subcommand)]
    Host(Host),
    /// The coordinators themselves.
    #[command(subcommand)]
    Cluster(Cluster),
    /// Make the CA of a new site, and the certificates to begin with.
    Init(Init),
    /// Make a certificate for a person or a coordinator, where the CA is.
    Issue(Issue),
    /// What lets hosts in.
    #[command(subcommand)]
    Token(Token),
    /// Print what makes a shell complete this command.
    Completions {
        /// Your shell.
        shell: clap_complete::Shell,
    },
    /// Print the man page, or write it and those of all commands.
    Man {
        /// A folder that exists, such as /usr/local/share/man/man1.
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

/// Move every VM off racks or hosts.
#[derive(Debug, clap::Args)]
pub struct Evacuate {
    /// What to move.
    #[command(flatten)]
    pub what: What,
    /// Do not ask.
    #[arg(long, short)]
    pub yes: bool,
    /// How to wait.
    #[command(flatten)]
    pub wait: WaitFor,
}

/// Say what evacuate would do.
#[derive(Debug, clap::Args)]
pub struct Plan {
    /// What to move.
    #[command(flatten)]
    pub what: What,
    /// The plan file; a new plan-ID.json in this folder without it.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Start exactly what a plan file says.
#[derive(Debug, clap::Args)]
pub struct Apply {
    /// As `rackferry plan` wrote it.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// How to wait.
    #[command(flatten)]
    pub patience: Patience,
}

/// Bring VMs back.
#[derive(Debug, clap::Args)]
pub struct Restore {
    /// evac-N.
    pub evacuation: String,
    /// How to move.
    #[command(flatten)]
    pub how: How,
    /// Do not ask.
    #[arg(long, short)]
    pub yes: bool,
    /// How to wait.
    #[command(flatten)]
    pub wait: WaitFor,
}

/// What to move, and how.
#[derive(Debug, clap::Args)]
pub struct What {
    /// Racks or hosts to empty.
    #[arg(required = true, value_name = "RACK|HOST")]
    pub sources: Vec<String>,
    /// Racks or hosts to move to.
    #[arg(long, required = true, value_delimiter = ',', value_name = "RACK|HOST,...")]
    pub to: Vec<String>,
    /// What its moves may put on links, all together, beside the limits of the links.
    #[arg(long, value_delimiter = ',', value_name = "LINK=RATE|PERCENT,...")]
    pub link_limit: Vec<LinkLimit>,
    /// When it should be over. After that it goes on, and nobody waits for it (exit code 6); with --disruption allow VMs
    /// that still copy are then stopped.
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration)]
    pub deadline: Option<Duration>,
    /// How to move.
    #[command(flatten)]
    pub how: How,
}

/// Move one VM.
#[derive(Debug, clap::Args)]
pub struct Migrate {
    /// The VM.
    pub vm: String,
    /// Host to move to.
    #[arg(long, value_name = "HOST")]
    pub to: String,
    /// How to move.
    #[command(flatten)]
    pub how: How,
    /// How to wait.
    #[command(flatten)]
    pub wait: WaitFor,
}

/// Say what would keep VMs from moving.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// VMs, or hosts and racks with all theirs.
    #[arg(required = true, value_name = "VM|HOST|RACK")]
    pub places: Vec<String>,
    /// Racks or hosts they shall move to; without, only whether they could leave.
    #[arg(long, value_delimiter = ',', value_name = "RACK|HOST,...")]
    pub to: Vec<String>,
}

/// Show what is not as it should be.
#[derive(Debug, clap::Args)]
pub struct Doctor {
    /// First remove leftovers of VMs that run elsewhere for certain.
    #[arg(long)]
    pub repair: bool,
}

/// How to move.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct How {
    /// Where to look for content that need not be sent again.
    #[arg(long, value_enum, default_value_t = Dedup::Rack)]
    pub dedup: Dedup,
    /// What to do with unique content.
    #[arg(long, value_enum, default_value_t = Compress::Zstd)]
    pub compress: Compress,
    /// Compare the whole memory of each VM before it runs at its target.
    #[arg(long)]
    pub verify: bool,
    /// The longest pause of a VM.
    #[arg(long, default_value = "300ms", value_parser = units::parse_duration)]
    pub max_downtime: Duration,
    /// What may be done to a VM that writes faster than is sent.
    #[arg(long, value_enum, default_value_t = Disruption::Brief)]
    pub disruption: Disruption,
}

/// How to wait.
#[derive(Clone, Debug, clap::Args)]
pub struct WaitFor {
    /// How long.
    #[command(flatten)]
    pub patience: Patience,
    /// The same id starts the same work only once.
    #[arg(long, value_name = "ID")]
    pub request_id: Option<String>,
}

/// How long to wait.
#[derive(Clone, Debug, clap::Args)]
pub struct Patience {
    /// Start it and do not wait.
    #[arg(long)]
    pub detach: bool,
    /// Wait at most this long; the work goes on (exit code 6).
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration)]
    pub timeout: Option<Duration>,
}

/// Where to look for content that need not be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Dedup {
    /// In the whole rack.
    Rack,
    /// On the host.
    Host,
    /// Nowhere.
    Off,
}

/// What to do with unique content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Compress {
    /// zstd.
    Zstd,
    /// Nothing.
    Off,
}

impl What {
    /// As the coordinator takes it.
    pub fn request(self, request_id: String) -> v1::CreateEvacuationRequest {
        v1::CreateEvacuationRequest {
            sources: self.sources,
            targets: self.to,
            options: Some(self.how.options()),
            request_id,
            validate_only: false,
            link_limits: self.link_limit.into_iter().map(Into::into).collect(),
            deadline_ms: self
                .deadline
                .map_or(0, |after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
            moves: Vec::new(),
        }
    }
}

/// What may be done to a VM that writes faster than is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Disruption {
    /// Nothing: it stays where it is.
    None,
    /// Stop it for up to a second, and slow it down; if that does not help it stays.
    Brief,
    /// The same; if that does not help, stop it for as long as it takes.
    Allow,
}

impl How {
    /// As the coordinator takes it.
    pub fn options(self) -> v1::MigrationOptions {
        let dedup = match self.dedup {
            Dedup::Rack => v1::DedupMode::Rack,
            Dedup::Host => v1::DedupMode::Host,
            Dedup::Off => v1::DedupMode::Off,
        };
        let compress = match self.compress {
            Compress::Zstd => v1::CompressMode::Zstd,
            Compress::Off => v1::CompressMode::Off,
        };
        v1::MigrationOptions {
            dedup: dedup.into(),
            compress: compress.into(),
            max_downtime_ms: u32::try_from(self.max_downtime.as_millis()).unwrap_or(u32::MAX),
            verify: self.verify,
            disruption: match self.disruption {
                Disruption::None => v1::Disruption::None,
                Disruption::Brief => v1::Disruption::Brief,
                Disruption::Allow => v1::Disruption::Allow,
            }
            .into(),
        }
    }
}

/// Show evacuations.
#[derive(Debug, clap::Args)]
pub struct Status {
    /// The evacuation; without it, all of them.
    pub evacuation: Option<String>,
    /// Go on until it has ended.
    #[arg(long, short, action = ArgAction::SetTrue)]
    pub watch: bool,
}

/// Stop an evacuation or a migration.
#[derive(Debug, clap::Args)]
pub struct Cancel {
    /// evac-N or mig-N.
    #[arg(value_name = "EVACUATION|MIGRATION")]
    pub id: String,
}

/// Stop the VM of a migration for as long as it takes.
#[derive(Debug, clap::Args)]
pub struct ForceSwitchover {
    /// mig-N.
    pub migration: String,
}

/// An evacuation.
#[derive(Debug, clap::Args)]
pub struct Evacuation {
    /// evac-N.
    pub evacuation: String,
}

/// Racks or hosts.
#[derive(Debug, clap::Args)]
pub struct Places {
    /// Racks or hosts.
    #[arg(required = true, value_name = "RACK|HOST")]
    pub places: Vec<String>,
}

/// What moves may put on links.
#[derive(Debug, Subcommand)]
pub enum Limit {
    /// Change limits; moves under way follow at once.
    Set {
        /// As in core0=200Mbit, core0=40% (of what it can carry) or core0=off.
        #[arg(required = true, value_delimiter = ',', value_name = "LINK=RATE|PERCENT|off")]
        limits: Vec<LinkLimit>,
    },
    /// Show links, their limits and who crosses them.
    Show,
}

/// Racks, hosts and links, as a file says.
#[derive(Debug, Subcommand)]
pub enum Inventory {
    /// Put a file in the place of the inventory.
    Import {
        /// YAML; see docs/inventory.md.
        file: PathBuf,
    },
    /// Show what there should be, and what is missing.
    Show,
    /// Look for mistakes in a file; needs no coordinator.
    Check {
        /// YAML; see docs/inventory.md.
        file: PathBuf,
    },
}

/// VMs.
#[derive(Debug, Subcommand)]
pub enum Vm {
    /// List VMs and who owns them.
    List {
        /// Only of this rack.
        #[arg(long, default_value = "")]
        rack: String,
        /// Only of this host.
        #[arg(long, default_value = "")]
        host: String,
    },
}

/// Hosts.
#[derive(Debug, Subcommand)]
pub enum Host {
    /// List hosts and whether their agents are connected.
    List {
        /// Only of this rack.
        #[arg(long, default_value = "")]
        rack: String,
    },
}

/// The coordinators themselves.
#[derive(Debug, Subcommand)]
pub enum Cluster {
    /// Who they are, who leads, and how far behind the others are.
    Status,
    /// Take in a coordinator that runs with `cluster.join`.
    Add {
        /// Its number, one that nobody had before.
        id: u64,
        /// Where it is reached.
        #[arg(value_name = "HOST:PORT")]
        addr: String,
    },
    /// Take a coordinator out, also one that is gone for good.
    Remove {
        /// Its number.
        id: u64,
    },
}

/// Make the CA of a new site, and the certificates to begin with.
#[derive(Debug, clap::Args)]
pub struct Init {
    /// An empty folder, or one to make. It holds the CA's key: keep it where only admins get.
    pub dir: PathBuf,
}

/// Make a certificate for a person or a coordinator, where the CA is.
#[derive(Debug, clap::Args)]
pub struct Issue {
    /// What it allows.
    #[arg(value_enum)]
    pub role: IssuedRole,
    /// Who has it.
    pub name: String,
    /// The folder of the CA, as `rackferry init` made it.
    #[arg(long, value_name = "DIR")]
    pub ca: PathBuf,
    /// The folder for the certificate; `NAME` beside the CA without it.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// How long it is good.
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub days: u32,
}

/// What a certificate of `rackferry issue` allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum IssuedRole {
    /// To look.
    Viewer,
    /// To move VMs, too.
    Operator,
    /// To change the site, too.
    Admin,
    /// To be a coordinator.
    Coordinator,
}

/// What lets hosts in.
#[derive(Debug, Subcommand)]
pub enum Token {
    /// Make a token with which `rackferry-agent join` on that host gets its certificate, once.
    Create {
        /// The host, as its agent's settings call it.
        host: String,
        /// How long it is good.
        #[arg(long, default_value = "1h", value_parser = units::parse_duration)]
        ttl: Duration,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

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
