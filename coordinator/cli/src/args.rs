//! The command line as it is written.

mod events;
mod migration;

use std::{path::PathBuf, time::Duration};

use clap::{
    ArgAction, Parser, Subcommand, ValueEnum,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
pub use events::{Events, Since};
pub use migration::Migration;
use rackferry_model::{Compress, DEFAULT_MAX_DOWNTIME_MS, Dedup, Disruption, MoveOptions, Word};
use rackferry_proto::v1;

use crate::{
    limit::LinkLimit,
    units::{self, Millis},
};

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

/// Move every VM off racks or hosts.
#[derive(Debug, clap::Args)]
pub struct Evacuate {
    /// What to move.
    #[command(flatten)]
    pub what: What,
    /// Start without asking; needed without a terminal, and with JSON.
    #[arg(long, short)]
    pub yes: bool,
    /// How to wait.
    #[command(flatten)]
    pub wait: WaitFor,
}

/// Show what evacuate would do.
#[derive(Debug, clap::Args)]
pub struct Plan {
    /// What to move.
    #[command(flatten)]
    pub what: What,
    /// The plan file; default: a new plan-ID.json in this folder.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Start exactly the migrations of a plan file.
#[derive(Debug, clap::Args)]
pub struct Apply {
    /// The plan file, as `rackferry plan` wrote it.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// How to wait.
    #[command(flatten)]
    pub follow: Follow,
}

/// Move VMs back.
#[derive(Debug, clap::Args)]
pub struct Restore {
    /// The evacuation: evac-N.
    pub evacuation: String,
    /// How to move.
    #[command(flatten)]
    pub how: How,
    /// Start without asking; needed without a terminal, and with JSON.
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
    /// How much the evacuation's migrations together may send over links, beside the limits of the links.
    #[arg(long, value_delimiter = ',', value_name = "LINK=RATE|PERCENT,...")]
    pub link_limit: Vec<LinkLimit>,
    /// When the evacuation should have ended. It goes on after that, and the command stops waiting (exit code 6); with
    /// --disruption allow, VMs that still copy are then stopped.
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration)]
    pub deadline: Option<Duration>,
    /// VM of the sources that stays where it is; repeatable. The command then ends with exit code 4.
    #[arg(long, value_name = "VM")]
    pub exclude: Vec<String>,
    /// Leave out VMs that cannot move instead of moving none; they are named at the end (exit code 4).
    #[arg(long)]
    pub skip_blocked: bool,
    /// Do not cordon the sources; without it they take no further VMs until `rackferry uncordon`.
    #[arg(long)]
    pub no_cordon: bool,
    /// How to move.
    #[command(flatten)]
    pub how: How,
}

/// Move one VM.
#[derive(Debug, clap::Args)]
pub struct Migrate {
    /// The VM.
    pub vm: String,
    /// The target host.
    #[arg(long, value_name = "HOST")]
    pub to: String,
    /// How to move.
    #[command(flatten)]
    pub how: How,
    /// How to wait.
    #[command(flatten)]
    pub wait: WaitFor,
}

/// Check what would keep VMs from moving.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// VMs, or hosts and racks with all their VMs.
    #[arg(required = true, value_name = "VM|HOST|RACK")]
    pub places: Vec<String>,
    /// Racks or hosts to move to; without it, the check covers the sources alone.
    #[arg(long, value_delimiter = ',', value_name = "RACK|HOST,...")]
    pub to: Vec<String>,
    /// Check as if the VMs moved with `--verify`.
    #[arg(long)]
    pub verify: bool,
}

/// List problems of the site.
#[derive(Debug, clap::Args)]
pub struct Doctor {
    /// Remove leftovers first, if their VM certainly runs elsewhere.
    #[arg(long)]
    pub repair: bool,
}

/// How to move.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct How {
    /// Where to look for content that need not be sent again.
    #[arg(long, value_parser = word::<Dedup>(), default_value_t)]
    pub dedup: Dedup,
    /// How to compress content.
    #[arg(long, value_parser = word::<Compress>(), default_value_t)]
    pub compress: Compress,
    /// Compare the whole memory of each VM before it runs at its target.
    #[arg(long)]
    pub verify: bool,
    /// The longest pause of a VM.
    #[arg(long, value_name = "DURATION", default_value_t = Millis(DEFAULT_MAX_DOWNTIME_MS))]
    pub max_downtime: Millis,
    /// What a VM that does not converge may be subjected to.
    #[arg(long, value_parser = word::<Disruption>(), default_value_t)]
    pub disruption: Disruption,
}

/// One of the words of the model, with what each means.
fn word<T: Word + Send + Sync>() -> impl TypedValueParser<Value = T> {
    let words = T::ALL
        .iter()
        .map(|word| PossibleValue::new(word.as_str()).help(word.about().trim_end_matches('.')));
    PossibleValuesParser::new(words).try_map(|text| T::from_word(&text))
}

/// How to wait.
#[derive(Clone, Debug, clap::Args)]
pub struct WaitFor {
    /// How long.
    #[command(flatten)]
    pub follow: Follow,
    /// Id of the request: the same id starts the same work only once.
    #[arg(long, value_name = "ID")]
    pub request_id: Option<String>,
}

/// How long to wait.
#[derive(Clone, Debug, clap::Args)]
pub struct Follow {
    /// Start the work and do not wait.
    #[arg(long)]
    pub detach: bool,
    /// Wait at most this long; the work goes on (exit code 6).
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration)]
    pub timeout: Option<Duration>,
}

impl What {
    /// As the coordinator takes it.
    pub fn request(self, request_id: String) -> v1::CreateEvacuationRequest {
        v1::CreateEvacuationRequest {
            sources: self.sources,
            targets: self.to,
            options: Some(self.how.options().into()),
            request_id,
            validate_only: false,
            link_limits: self.link_limit.into_iter().map(Into::into).collect(),
            deadline_ms: self
                .deadline
                .map_or(0, |after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
            moves: Vec::new(),
            exclude: self.exclude,
            skip_blocked: self.skip_blocked,
            left_out: Vec::new(),
            no_cordon: self.no_cordon,
        }
    }
}

impl How {
    /// As the model has it.
    pub fn options(self) -> MoveOptions {
        let Self { dedup, compress, verify, max_downtime: Millis(max_downtime_ms), disruption } =
            self;
        MoveOptions { dedup, compress, max_downtime_ms, verify, disruption }
    }
}

/// Show evacuations.
#[derive(Debug, clap::Args)]
pub struct Status {
    /// The evacuation; default: all evacuations.
    pub evacuation: Option<String>,
    /// Show snapshots until the evacuation has ended.
    #[arg(long, short, action = ArgAction::SetTrue)]
    pub watch: bool,
}

/// Cancel an evacuation or a migration.
#[derive(Debug, clap::Args)]
pub struct Cancel {
    /// The evacuation (evac-N) or the migration (mig-N).
    #[arg(value_name = "EVACUATION|MIGRATION")]
    pub id: String,
}

/// Stop the VM of a migration for as long as the switchover takes.
#[derive(Debug, clap::Args)]
pub struct ForceSwitchover {
    /// The migration: mig-N.
    pub migration: String,
}

/// An evacuation.
#[derive(Debug, clap::Args)]
pub struct Evacuation {
    /// The evacuation: evac-N.
    pub evacuation: String,
}

/// Racks or hosts.
#[derive(Debug, clap::Args)]
pub struct Places {
    /// Racks or hosts.
    #[arg(required = true, value_name = "RACK|HOST")]
    pub places: Vec<String>,
}

/// How much migrations may send over links.
#[derive(Debug, Subcommand)]
pub enum Limit {
    /// Set limits; migrations under way follow at once.
    Set {
        /// Limits such as core0=200Mbit, core0=40% (of the link's rate) or core0=off.
        #[arg(required = true, value_delimiter = ',', value_name = "LINK=RATE|PERCENT|off")]
        limits: Vec<LinkLimit>,
    },
    /// Show links, their limits and the migrations that cross them.
    Show,
}

/// The inventory of racks, hosts and links.
#[derive(Debug, Subcommand)]
pub enum Inventory {
    /// Replace the inventory by a file.
    Import {
        /// The file: YAML as in docs/inventory.md.
        file: PathBuf,
    },
    /// Show the inventory, and hosts that differ from it.
    Show,
    /// Check a file for mistakes; needs no coordinator.
    Check {
        /// The file: YAML as in docs/inventory.md.
        file: PathBuf,
    },
}

/// VMs.
#[derive(Debug, Subcommand)]
pub enum Vm {
    /// List VMs and their owners.
    List {
        /// Rack to list; default: all racks.
        #[arg(long, default_value = "")]
        rack: String,
        /// Host to list; default: all hosts.
        #[arg(long, default_value = "")]
        host: String,
    },
    /// Show one VM: every copy of it, its migration, its registered spec and its problems.
    Show {
        /// The VM.
        vm: String,
    },
    /// Forget a VM whose QEMU is gone; its host removes what is left of it.
    Forget {
        /// The VM.
        vm: String,
    },
    /// Show the registered spec of a VM, and what its agent reports if that differs.
    Spec {
        /// The VM.
        vm: String,
    },
    /// Register the spec that the VM's agent reports in place of the registered one.
    AcceptSpec {
        /// The VM.
        vm: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// Hosts.
#[derive(Debug, Subcommand)]
pub enum Host {
    /// List hosts and whether their agents are connected.
    List {
        /// Rack to list; default: all racks.
        #[arg(long, default_value = "")]
        rack: String,
    },
    /// Declare a host dead for good: VMs that ran there have ended, and no older copy of them goes on.
    ///
    /// Only for a host that is powered off: a VM that still runs there would run twice. The host's installation is not let
    /// in again; a new one with its name is.
    DeclareDead {
        /// The host.
        host: String,
        /// Do not ask; needed without a terminal, and with JSON.
        #[arg(long, short)]
        yes: bool,
    },
    /// Forget a host that was declared dead and owns no VM.
    Forget {
        /// The host.
        host: String,
    },
}

/// The cluster of coordinators.
#[derive(Debug, Subcommand)]
pub enum Cluster {
    /// Show the coordinators, the leader, and how far the others are behind.
    Status,
    /// Add a coordinator that runs with `cluster.join`.
    Add {
        /// Number of the coordinator; a number is never used twice.
        id: u64,
        /// Address of the coordinator.
        #[arg(value_name = "HOST:PORT")]
        addr: String,
    },
    /// Write a backup of the running cluster, for `rackferry-coordinator restore`. It holds the key of the dedup domain.
    Backup {
        /// File to write; it must not exist, and only its owner may read it.
        file: PathBuf,
    },
    /// Remove a coordinator, also one that is lost for good.
    Remove {
        /// Number of the coordinator.
        id: u64,
    },
}

/// Create the CA of a new site and its first certificates.
#[derive(Debug, clap::Args)]
pub struct Init {
    /// Folder to create, or an empty one. It holds the CA's key: only admins should reach it.
    pub dir: PathBuf,
}

/// Issue a certificate to a person or a coordinator.
#[derive(Debug, clap::Args)]
pub struct Issue {
    /// Role of the certificate.
    #[arg(value_enum)]
    pub role: IssuedRole,
    /// Name of the holder.
    pub name: String,
    /// Folder of the CA, as `rackferry init` created it.
    #[arg(long, value_name = "DIR")]
    pub ca: PathBuf,
    /// Folder for the certificate; default: `NAME` beside the CA.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Days until the certificate expires.
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub days: u32,
}

/// Role of a certificate that `rackferry issue` makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum IssuedRole {
    /// May look.
    Viewer,
    /// May move VMs, too.
    Operator,
    /// May change the site, too.
    Admin,
    /// Is a coordinator.
    Coordinator,
}

/// Certificates that are expelled from the site.
#[derive(Debug, Subcommand)]
pub enum Certificate {
    /// Expel a name with all its certificates, or one certificate: its connections end, and no new ones are made.
    ///
    /// The name is that of a host, a coordinator or a person. The VMs of a host that is expelled run on, and none of them
    /// can move.
    Expel {
        /// Name in the certificate.
        name: String,
        /// Serial number of one certificate, as `openssl x509 -noout -serial` shows it; default: all of the name.
        #[arg(long)]
        serial: Option<String>,
        /// Also if the name is your own, or if no majority of coordinators would be left.
        #[arg(long)]
        force: bool,
        /// Do not ask; needed without a terminal, and with JSON.
        #[arg(long, short)]
        yes: bool,
    },
    /// Take a name, or one certificate, off the list.
    Readmit {
        /// Name in the certificate.
        name: String,
        /// Serial number, if it was expelled by its serial number.
        #[arg(long)]
        serial: Option<String>,
    },
    /// List the certificates that are expelled, by whom, and since when.
    List,
}

/// Tokens that admit hosts to the site.
#[derive(Debug, Subcommand)]
pub enum Token {
    /// Create a token; `rackferry-agent join` on that host exchanges it for a certificate, once.
    Create {
        /// The host, as named in its agent's settings.
        host: String,
        /// Time until the token expires.
        #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = units::parse_duration)]
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
