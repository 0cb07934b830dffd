//! How a VM is moved.
//!
//! The serde forms are those of the log: logs of every version have the names of the values.

use serde::{Deserialize, Deserializer, Serialize};

use crate::word::words;

/// The longest pause a VM accepts if its user names none, milliseconds.
pub const DEFAULT_MAX_DOWNTIME_MS: u32 = 300;

words! {
    /// Where a migration looks for content that need not be sent again.
    #[derive(Default)]
    Dedup {
        /// Nowhere: every page is sent.
        Off = "off",
        /// Among the VMs of the host.
        Host = "host",
        /// Among the VMs of the whole rack.
        #[default]
        Rack = "rack",
    }

    /// How a migration compresses content.
    #[derive(Default)]
    Compress {
        /// Content is not compressed.
        Off = "off",
        /// Content is compressed by zstd.
        #[default]
        Zstd = "zstd",
    }

    /// What a VM that does not converge to its limit may be subjected to.
    #[derive(Default)]
    Disruption {
        /// Nothing: the migration is given up, the VM stays where it is.
        None = "none",
        /// A stop of up to a second, and a slower guest; then the migration is given up.
        #[default]
        Brief = "brief",
        /// The same as brief; then a stop for as long as it takes.
        Allow = "allow",
    }
}

/// How a VM is moved: everything its user may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveOptions {
    /// Where the migration looks for content that need not be sent again.
    pub dedup: Dedup,
    /// How the migration compresses content.
    pub compress: Compress,
    /// The longest pause the VM accepts, milliseconds.
    #[serde(deserialize_with = "named_or_default")]
    pub max_downtime_ms: u32,
    /// Both sides hash the whole guest memory before the commit.
    pub verify: bool,
    /// What a VM that does not converge may be subjected to.
    #[serde(default)]
    pub disruption: Disruption,
}

impl Default for MoveOptions {
    fn default() -> Self {
        Self {
            dedup: Dedup::default(),
            compress: Compress::default(),
            max_downtime_ms: DEFAULT_MAX_DOWNTIME_MS,
            verify: false,
            disruption: Disruption::default(),
        }
    }
}

/// The limit that a message or a log names; 0 stands for the default there.
pub const fn max_downtime_or_default(ms: u32) -> u32 {
    if ms == 0 { DEFAULT_MAX_DOWNTIME_MS } else { ms }
}

fn named_or_default<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    u32::deserialize(from).map(max_downtime_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_before_the_default_was_written_are_read() {
        let text = r#"{"dedup":"Rack","compress":"Zstd","max_downtime_ms":0,"verify":false}"#;
        assert_eq!(serde_json::from_str::<MoveOptions>(text).unwrap(), MoveOptions::default());
    }

    #[test]
    fn logs_keep_their_form() {
        let options = MoveOptions {
            dedup: Dedup::Host,
            compress: Compress::Off,
            max_downtime_ms: 250,
            verify: true,
            disruption: Disruption::Allow,
        };
        let text = r#"{"dedup":"Host","compress":"Off","max_downtime_ms":250,"verify":true,"disruption":"Allow"}"#;
        assert_eq!(serde_json::to_string(&options).unwrap(), text);
        assert_eq!(serde_json::from_str::<MoveOptions>(text).unwrap(), options);
    }
}
