//! Names and numbers that must not be mixed up.

use std::fmt;

use serde::{Deserialize, Serialize};

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
}

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident($inner:ty) shown $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    )*};
}

numbers! {
    /// A migration: one attempt to move one VM. Never used again.
    MigrationId(u64) shown "mig-";
    /// An evacuation. Never used again.
    EvacuationId(u64) shown "evac-";
    /// Source rack to target rack of one evacuation: what claims of content are kept for.
    Crossing(u64) shown "";
    /// Fencing number of a VM's ownership: it only rises.
    Generation(u64) shown "";
    /// Small stable number of a host, used in page frames.
    HostId(u32) shown "";
    /// A connection of an agent; only the latest of a host counts.
    Connection(u64) shown "connection ";
}

/// The text is no id of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id")]
pub struct NotAnId;

macro_rules! parsed {
    ($($name:ident $prefix:literal,)*) => {$(
        impl std::str::FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, NotAnId> {
                let digits = text.strip_prefix($prefix).ok_or(NotAnId)?;
                if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Err(NotAnId);
                }
                digits.parse().map(Self).map_err(|_| NotAnId)
            }
        }
    )*};
}

parsed! { MigrationId "mig-", EvacuationId "evac-", }

/// Nanoseconds since the Unix epoch, handed in: the fleet has no clock.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Moment(pub u64);

impl Moment {
    /// Milliseconds since the Unix epoch.
    pub const fn unix_ms(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Nanoseconds since an earlier moment; 0 if it is not earlier.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_back() {
        assert_eq!(MigrationId(7).to_string().parse(), Ok(MigrationId(7)));
        assert_eq!(EvacuationId(42).to_string().parse(), Ok(EvacuationId(42)));
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in ["", "mig-", "mig-+1", "evac-1", "mig-1x", "mig-99999999999999999999"] {
            assert_eq!(text.parse::<MigrationId>(), Err(NotAnId), "{text}");
        }
    }
}
