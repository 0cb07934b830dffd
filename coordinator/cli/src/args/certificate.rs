//! init, issue, certificate and token, as they are written.

use std::{path::PathBuf, time::Duration};

use clap::{Subcommand, ValueEnum};

use crate::units;

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
