//! host, cordon and uncordon, as they are written.

use clap::Subcommand;

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

/// Racks or hosts.
#[derive(Debug, clap::Args)]
pub struct Places {
    /// Racks or hosts.
    #[arg(required = true, value_name = "RACK|HOST")]
    pub places: Vec<String>,
}
