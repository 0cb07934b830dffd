//! inventory and limit, as they are written.

use std::path::PathBuf;

use clap::Subcommand;

use crate::limit::LinkLimit;

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
