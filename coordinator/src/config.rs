//! The coordinator's settings.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use figment::{
    Figment,
    providers::{Env, Format, Serialized, Toml},
};
use rackferry_fleet::Limits;
use rackferry_tls::admission;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::raft::NodeId;

/// Every setting of a coordinator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the coordinator listens.
    pub server: Server,
    /// Where the coordinator keeps its log.
    pub storage: Storage,
    /// How many migrations and switchovers may be under way at once.
    pub limits: LimitSettings,
    /// Which coordinator this is, and which others there are.
    pub cluster: Cluster,
    /// How many callers the coordinator takes.
    pub admission: admission::Limits,
    /// Where the coordinator's certificates are, or that there is no TLS. One of both must be set.
    pub tls: Option<rackferry_tls::Setting>,
}

/// Where the coordinator listens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Address and port for agents and clients.
    pub listen: SocketAddr,
    /// Where `/metrics` is served; nowhere if absent.
    pub metrics_listen: Option<SocketAddr>,
}

impl Default for Server {
    fn default() -> Self {
        Self { listen: (Ipv4Addr::UNSPECIFIED, 7400).into(), metrics_listen: None }
    }
}

/// Where the coordinator keeps its log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Storage {
    /// The folder.
    pub dir: PathBuf,
    /// Entries of the log after which a snapshot replaces them.
    pub snapshot_entries: u64,
}

impl Default for Storage {
    fn default() -> Self {
        Self { dir: "/var/lib/rackferry/coordinator".into(), snapshot_entries: 10_000 }
    }
}

/// Which coordinator this is, and which others there are. Without any of it: one, by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cluster {
    /// The coordinator's number; no other one has it, and it never changes.
    pub id: NodeId,
    /// The first members, this one among them; of one that joins only itself.
    pub peers: Vec<Peer>,
    /// Wait to be added to a cluster that exists.
    pub join: bool,
}

/// A coordinator of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// The coordinator's number.
    pub id: NodeId,
    /// Where agents, clients and the other coordinators reach it: `host:port`.
    pub addr: String,
}

impl Default for Cluster {
    fn default() -> Self {
        Self { id: 1, peers: Vec::new(), join: false }
    }
}

/// [`Cluster`], checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    /// Which coordinator this is.
    pub id: NodeId,
    /// Where the other coordinators reach this one.
    pub addr: String,
    /// The first members.
    pub peers: BTreeMap<NodeId, String>,
    /// Whether the coordinator waits to be added.
    pub join: bool,
}

/// The settings of [`Cluster`] contradict each other.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MembersError {
    /// The peers do not say where this coordinator is reached.
    #[error("cluster.peers has no entry for this coordinator, {0}")]
    NotAmongPeers(NodeId),
    /// The peers have a number or an address twice.
    #[error("coordinator {0} has a number or an address of another one in cluster.peers")]
    Twice(NodeId),
    /// A coordinator has the number 0, which stands for none.
    #[error("0 is no number for a coordinator")]
    Zero,
}

/// How many migrations and switchovers may be under way at once; see [`Limits`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitSettings {
    /// Moves leaving a host.
    pub outgoing_per_host: u32,
    /// Moves reaching a host.
    pub incoming_per_host: u32,
    /// Moves under way, in all.
    pub moves_total: u32,
    /// VMs paused for a switchover, by host.
    pub switchovers_per_host: u32,
    /// VMs paused for a switchover, in all.
    pub switchovers_total: u32,
    /// Attempts of an evacuation to move a VM.
    pub attempts: u32,
    /// Seconds before an evacuation tries a VM again; doubled with every attempt.
    pub retry_pause_seconds: u64,
    /// Seconds before an evacuation tries a VM again that did not converge; doubled with every attempt.
    pub non_converged_retry_seconds: u64,
    /// Seconds without an agent after which a host is silent: a move to it that cannot have begun looks for another target.
    pub host_silence_timeout_seconds: u64,
    /// Finished evacuations kept for asking.
    pub history: usize,
    /// Events kept for asking; a quarter of them may be refusals.
    pub events: usize,
    /// Days for which an event is kept.
    pub events_days: u64,
    /// What a move should have at least on a link with a limit, Mbit/s.
    pub link_share_min_mbit: u64,
}

/// Settings of earlier versions, and what they are called now.
const RENAMED: [(&str, &str); 2] = [
    ("limits.calm_pause_seconds", "limits.non_converged_retry_seconds"),
    ("limits.patience_seconds", "limits.host_silence_timeout_seconds"),
];

/// Bytes per second.
const MBIT: u64 = 125_000;
const NANOSECONDS: u64 = 1_000_000_000;
/// A day, in nanoseconds.
const DAY: u64 = 24 * 3600 * NANOSECONDS;

impl Default for LimitSettings {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            outgoing_per_host: limits.outgoing_per_host,
            incoming_per_host: limits.incoming_per_host,
            moves_total: limits.moves_total,
            switchovers_per_host: limits.switchovers_per_host,
            switchovers_total: limits.switchovers_total,
            attempts: limits.attempts,
            retry_pause_seconds: limits.retry_pause_ns / NANOSECONDS,
            non_converged_retry_seconds: limits.non_converged_retry_ns / NANOSECONDS,
            host_silence_timeout_seconds: limits.host_silence_timeout_ns / NANOSECONDS,
            history: limits.history,
            events: limits.events,
            events_days: limits.events_age_ns / DAY,
            link_share_min_mbit: limits.link_share_min / MBIT,
        }
    }
}

impl From<LimitSettings> for Limits {
    /// Zero would mean that nothing ever moves: at least one of each.
    fn from(settings: LimitSettings) -> Self {
        Self {
            outgoing_per_host: settings.outgoing_per_host.max(1),
            incoming_per_host: settings.incoming_per_host.max(1),
            moves_total: settings.moves_total.max(1),
            switchovers_per_host: settings.switchovers_per_host.max(1),
            switchovers_total: settings.switchovers_total.max(1),
            attempts: settings.attempts.max(1),
            retry_pause_ns: settings.retry_pause_seconds.saturating_mul(NANOSECONDS),
            non_converged_retry_ns: settings
                .non_converged_retry_seconds
                .saturating_mul(NANOSECONDS),
            host_silence_timeout_ns: settings
                .host_silence_timeout_seconds
                .saturating_mul(NANOSECONDS),
            history: settings.history,
            events: settings.events.max(4),
            events_age_ns: settings.events_days.max(1).saturating_mul(DAY),
            link_share_min: settings.link_share_min_mbit.max(1).saturating_mul(MBIT),
        }
    }
}

impl Config {
    /// The coordinators that take part in the log.
    ///
    /// # Errors
    /// If the settings contradict each other.
    pub fn members(&self) -> Result<Members, MembersError> {
        let Cluster { id, peers, join } = &self.cluster;
        if *id == 0 || peers.iter().any(|peer| peer.id == 0) {
            return Err(MembersError::Zero);
        }
        let mut members = BTreeMap::new();
        for Peer { id, addr } in peers {
            let twice = members.values().any(|known| known == addr);
            if twice || members.insert(*id, addr.clone()).is_some() {
                return Err(MembersError::Twice(*id));
            }
        }
        if members.is_empty() && !join {
            members.insert(*id, self.server.listen.to_string());
        }
        let addr = members.get(id).cloned().ok_or(MembersError::NotAmongPeers(*id))?;
        Ok(Members { id: *id, addr, peers: members, join: *join })
    }

    /// Loads the defaults, then the file, then `RACKFERRY_SECTION__KEY` of the environment.
    ///
    /// # Errors
    /// If the file cannot be read, or something in it is unknown or malformed.
    pub fn load(file: Option<&Path>) -> Result<Self, Box<figment::Error>> {
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        if let Some(file) = file {
            figment = figment.merge(Toml::file_exact(file));
        }
        // Variables without a section belong to other programs of the family.
        let sections = Env::prefixed("RACKFERRY_").filter(|key| key.as_str().contains("__"));
        let figment = figment.merge(sections.split("__"));
        for (old, new) in RENAMED {
            if figment.contains(old) {
                return Err(Box::new(figment::Error::from(format!("{old} is called {new} now"))));
            }
        }
        figment.extract().map_err(Box::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, Box<figment::Error>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Config::load(Some(file.path()))
    }

    #[test]
    fn the_file_overrides_defaults() {
        let config = load("[limits]\nattempts = 7\n[server]\nlisten = '127.0.0.1:1'").unwrap();
        assert_eq!(config.limits.attempts, 7);
        assert_eq!(config.server.listen.port(), 1);
        assert_eq!(config.limits.outgoing_per_host, Limits::default().outgoing_per_host);
    }

    #[test]
    fn tls_is_a_folder_or_off() {
        use rackferry_tls::{
            Setting,
            setting::{Files, Off},
        };
        assert_eq!(load("").unwrap().tls, None);
        assert_eq!(load("tls = 'off'").unwrap().tls, Some(Setting::Word(Off::Off)));
        let files = load("[tls]\ndir = '/d'").unwrap().tls;
        assert_eq!(files, Some(Setting::Files(Files { dir: "/d".into() })));
        for wrong in ["tls = 'on'", "tls = false", "[tls]", "[tls]\ndir = 'd'\nca = 'c'"] {
            assert!(load(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_misspelt_key_is_refused() {
        assert!(load("[limits]\nattempt = 3").is_err());
        assert!(load("[limit]").is_err());
    }

    #[test]
    fn an_old_name_is_refused_with_the_new_one() {
        let error = load("[limits]\ncalm_pause_seconds = 9").unwrap_err().to_string();
        assert!(error.contains("limits.non_converged_retry_seconds"), "{error}");
        let error = load("[limits]\npatience_seconds = 9").unwrap_err().to_string();
        assert!(error.contains("limits.host_silence_timeout_seconds"), "{error}");
    }

    #[test]
    fn a_missing_file_is_refused() {
        assert!(Config::load(Some(Path::new("/nonexistent.toml"))).is_err());
    }

    #[test]
    fn one_by_itself_needs_no_settings() {
        let members = Config::default().members().unwrap();
        assert_eq!((members.id, members.join), (1, false));
        assert_eq!(members.peers, BTreeMap::from([(1, "0.0.0.0:7400".to_owned())]));
    }

    #[test]
    fn three_know_each_other() {
        let text = "[cluster]\nid = 2\npeers = [{ id = 1, addr = 'a:1' }, { id = 2, addr = 'b:1' }, \
                    { id = 3, addr = 'c:1' }]";
        let members = load(text).unwrap().members().unwrap();
        assert_eq!((members.id, members.addr.as_str(), members.peers.len()), (2, "b:1", 3));
    }

    #[test]
    fn members_that_make_no_sense_are_refused() {
        for (text, error) in [
            ("id = 2\npeers = [{ id = 1, addr = 'a:1' }]", MembersError::NotAmongPeers(2)),
            ("join = true", MembersError::NotAmongPeers(1)),
            ("peers = [{ id = 1, addr = 'a' }, { id = 1, addr = 'b' }]", MembersError::Twice(1)),
            ("peers = [{ id = 1, addr = 'a' }, { id = 2, addr = 'a' }]", MembersError::Twice(2)),
            ("id = 0", MembersError::Zero),
        ] {
            let config = load(&format!("[cluster]\n{text}")).unwrap();
            assert_eq!(config.members(), Err(error), "{text}");
        }
    }

    #[test]
    fn defaults_are_the_fleets() {
        assert_eq!(Limits::from(LimitSettings::default()), Limits::default());
    }
}
