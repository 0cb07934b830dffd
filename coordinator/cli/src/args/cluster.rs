//! cluster, as it is written.

use std::path::PathBuf;

use clap::Subcommand;

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
