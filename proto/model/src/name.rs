//! Names of hosts, racks, VMs and links, and what a name may be.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest name that a program takes from another one, in bytes.
pub const RECEIVED_NAME_LIMIT: usize = 255;

/// The longest name in a file that people write (inventory, VM spec), in bytes.
pub const WRITTEN_NAME_LIMIT: usize = 63;

/// Whether a name is taken from another program: 1 to 255 bytes, no control characters.
pub fn is_received_name(text: &str) -> bool {
    (1..=RECEIVED_NAME_LIMIT).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// Whether a name may stand in a file: 1 to 63 of `a-z A-Z 0-9 - _ . :`, the first of them a letter or a digit.
pub fn is_written_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    (1..=WRITTEN_NAME_LIMIT).contains(&text.len())
        && text.chars().all(inner)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Takes the name as it is.
            pub fn new(name: impl Into<String>) -> Self {
                Self(name.into())
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self::new(name)
            }
        }
    )*};
}

names! {
    /// A host; each runs one agent.
    HostName;
    /// A rack.
    RackName;
    /// A VM, unique in the fleet.
    VmName;
    /// A link of the topology.
    LinkName;
    /// A start of an agent process: another one means that its sessions are gone.
    BootId;
    /// An installation of an agent: made with its state directory, and another one on each host.
    Installation;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn received_names_have_limits() {
        assert!(is_received_name(&"x".repeat(RECEIVED_NAME_LIMIT)));
        for bad in ["", "a\nb", &"x".repeat(RECEIVED_NAME_LIMIT + 1)] {
            assert!(!is_received_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn written_names_are_plain() {
        for good in ["r1-h01", "7", "db.eu:1", &"x".repeat(WRITTEN_NAME_LIMIT)] {
            assert!(is_written_name(good), "{good}");
            assert!(is_received_name(good), "{good}");
        }
        for bad in ["", "-a", ".a", "a b", "a/b", "\u{e4}", &"x".repeat(WRITTEN_NAME_LIMIT + 1)] {
            assert!(!is_written_name(bad), "{bad}");
        }
    }
}
