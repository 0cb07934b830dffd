//! Settings.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use figment::{
    Figment,
    providers::{Env, Format, Serialized, Toml},
};
use rackferry_fleet::Limits;
use serde::{Deserialize, Serialize};

/// Everything that can be set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where it listens.
    pub server: Server,
    /// Where it keeps its log.
    pub storage: Storage,
    /// How much may happen at once.
    pub limits: LimitSettings,
}

/// Where it listens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Address and port for agents and clients.
    pub listen: SocketAddr,
}

impl Default for Server {
    fn default() -> Self {
        Self { listen: (Ipv4Addr::UNSPECIFIED, 7400).into() }
    }
}

/// Where it keeps its log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Storage {
    /// The folder.
    pub dir: PathBuf,
}

impl Default for Storage {
    fn default() -> Self {
        Self { dir: "/var/lib/rackferry/coordinator".into() }
    }
}

/// How much may happen at once; see [`Limits`].
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
    /// How often an evacuation tries to move a VM.
    pub attempts: u32,
    /// Seconds after which a move that cannot have begun looks for another target.
    pub patience_seconds: u64,
    /// Finished evacuations kept for asking.
    pub history: usize,
}

const NANOSECONDS: u64 = 1_000_000_000;

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
            patience_seconds: limits.patience_ns / NANOSECONDS,
            history: limits.history,
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
            patience_ns: settings.patience_seconds.saturating_mul(NANOSECONDS),
            history: settings.history,
        }
    }
}

impl Config {
    /// Defaults, then the file, then `RACKFERRY_SECTION__KEY` of the environment.
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
        figment.merge(sections.split("__")).extract().map_err(Box::new)
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
        let config = load("[limits]\nattempts = 3\n[server]\nlisten = '127.0.0.1:1'").unwrap();
        assert_eq!(config.limits.attempts, 3);
        assert_eq!(config.server.listen.port(), 1);
        assert_eq!(config.limits.outgoing_per_host, Limits::default().outgoing_per_host);
    }

    #[test]
    fn a_misspelt_key_is_refused() {
        assert!(load("[limits]\nattempt = 3").is_err());
        assert!(load("[limit]").is_err());
    }

    #[test]
    fn a_missing_file_is_refused() {
        assert!(Config::load(Some(Path::new("/nonexistent.toml"))).is_err());
    }

    #[test]
    fn defaults_are_the_fleets() {
        assert_eq!(Limits::from(LimitSettings::default()), Limits::default());
    }
}
