//! Settings of the agent: a TOML file, each value overridable by `RACKFERRY_AGENT__KEY` in the environment.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Env, Format, Toml};
use rackferry_tls::{Setting, admission};
use serde::{Deserialize, Deserializer, de};

use crate::vm::{Qemu, QemuUids};

/// The settings of an agent: `/etc/rackferry/agent.toml`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of this host, unique in the site.
    pub host: String,
    /// Name of the host's rack.
    pub rack: String,
    /// The coordinators: one `host:port`, several with commas between them, or a list. Any one leads to
    /// the leader.
    #[serde(deserialize_with = "one_or_more")]
    pub coordinator: Vec<String>,
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
    /// The users that QEMUs run as: each as another one of a range of uids, or all as root.
    #[serde(default)]
    pub qemu_uids: QemuUids,
    /// VMs whose QEMU loses writes of its guest during a migration may leave without verify mode: for sites of tests.
    #[serde(default)]
    pub allow_lost_writes: bool,
    /// Where `/metrics` is served; nowhere if absent.
    pub metrics_listen: Option<SocketAddr>,
    /// How many connections the page server takes.
    #[serde(default)]
    pub admission: admission::Limits,
    /// Where the agent's certificate is, or that there is no TLS. One of both must be set.
    pub tls: Option<Setting>,
}

/// A text of addresses with commas between them, or a list of them.
fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "an address, or a list of them")]
    enum Addresses {
        One(String),
        More(Vec<String>),
    }
    let addresses = match Addresses::deserialize(deserializer)? {
        Addresses::One(text) => text.split(',').map(|one| one.trim().to_owned()).collect(),
        Addresses::More(list) => list,
    };
    if addresses.iter().any(String::is_empty) || addresses.is_empty() {
        return Err(de::Error::custom("an address of a coordinator is empty"));
    }
    Ok(addresses)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn coordinators(setting: &str) -> Result<Vec<String>, Box<figment::Error>> {
        let text = format!(
            "host = 'h'\nrack = 'r'\nlisten = '127.0.0.1:1'\nstate_dir = '/s'\nguest_memory_mib = 1\n\
             coordinator = {setting}"
        );
        let config: Result<Config, _> =
            Figment::new().merge(Toml::string(&text)).extract().map_err(Box::new);
        config.map(|config| config.coordinator)
    }

    #[test]
    fn there_is_one_coordinator_or_more() {
        assert_eq!(coordinators("'http://a:1'").unwrap(), ["http://a:1"]);
        assert_eq!(coordinators("'http://a:1, http://b:1'").unwrap(), ["http://a:1", "http://b:1"]);
        assert_eq!(coordinators("['http://a:1']").unwrap(), ["http://a:1"]);
        for wrong in ["''", "'a,,b'", "[]", "7"] {
            assert!(coordinators(wrong).is_err(), "{wrong}");
        }
    }
}
