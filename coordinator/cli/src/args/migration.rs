//! migrate, force-switchover and migration, as they are written.

use clap::Subcommand;

use super::{How, WaitFor};

/// Single migrations.
#[derive(Debug, Subcommand)]
pub enum Migration {
    /// List migrations under way.
    List {
        /// List migrations that have ended, too.
        #[arg(long)]
        all: bool,
    },
    /// Show a migration (exit code 6 while it goes on).
    Show {
        /// The migration: mig-N.
        #[arg(value_name = "MIGRATION")]
        id: String,
        /// Show snapshots until the migration has ended.
        #[arg(long, short)]
        watch: bool,
    },
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

/// Stop the VM of a migration for as long as the switchover takes.
#[derive(Debug, clap::Args)]
pub struct ForceSwitchover {
    /// The migration: mig-N.
    pub migration: String,
}
