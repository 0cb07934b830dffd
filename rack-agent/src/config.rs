//! Settings of the agent: a TOML file, each value overridable by `RACKFERRY_AGENT__KEY` in the environment.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Env, Format, Toml};
use serde::Deserialize;

use crate::vm::Qemu;

/// `/etc/rackferry/agent.toml`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of this host, unique in the site.
    pub host: String,
    /// Name of its rack.
    pub rack: String,
    /// The coordinator, `http://host:port`.
    pub coordinator: String,
    /// Where the page server listens; the port is also what others connect to.
    pub listen: SocketAddr,
    /// Address others reach the page server by, if it is not `listen`.
    pub advertise: Option<SocketAddr>,
    /// What must survive a restart: one folder a VM.
    pub state_dir: PathBuf,
    /// Memory that all guests of this host may have together, MiB.
    pub guest_memory_mib: u64,
    /// Ceiling of this host's shard of the content index, MiB.
    #[serde(default = "default_index_mib")]
    pub index_mib: usize,
    /// Ceiling of the map of contents in this host's guests, MiB.
    #[serde(default = "default_index_mib")]
    pub content_mib: usize,
    /// Reserve an arriving VM's memory before its pages come: running out shows before the copy, not in it.
    #[serde(default)]
    pub reserve_memory: bool,
    /// QEMU for VMs whose spec names none: the host's own, so that VMs move to hosts with another version.
    #[serde(default)]
    pub qemu: Qemu,
    /// Where `/metrics` is served; nowhere if absent.
    pub metrics_listen: Option<SocketAddr>,
}

fn default_index_mib() -> usize {
    256
}

impl Config {
    /// Reads the file and the environment.
    ///
    /// # Errors
    /// What is wrong and where, by figment.
    pub fn load(path: &Path) -> Result<Self, Box<figment::Error>> {
        Figment::new()
            .merge(Toml::file_exact(path))
            .merge(Env::prefixed("RACKFERRY_AGENT__"))
            .extract()
            .map_err(Box::new)
    }

    /// Where others reach the page server.
    pub fn page_addr(&self) -> SocketAddr {
        self.advertise.unwrap_or(self.listen)
    }
}
