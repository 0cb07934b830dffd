//! migration list, migration show.

use clap::Subcommand;

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
