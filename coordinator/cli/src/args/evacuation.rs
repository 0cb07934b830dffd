//! evacuate, plan, apply, restore, status, cancel, pause, resume, as they are written.

use std::{path::PathBuf, time::Duration};

use clap::ArgAction;
use rackferry_proto::v1;

use super::{Follow, How, WaitFor};
use crate::{limit::LinkLimit, units};

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

/// An evacuation.
#[derive(Debug, clap::Args)]
pub struct Evacuation {
    /// The evacuation: evac-N.
    pub evacuation: String,
}
