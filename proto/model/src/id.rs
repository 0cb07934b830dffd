//! Numbers that must not be mixed up; each has one written form.

use std::{error::Error, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident($inner:ty) written $prefix:literal;)*) => {$(
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
    /// A migration: one attempt to move one VM. Its number is the session's in page frames and index entries. Never used
    /// again.
    MigrationId(u64) written "mig-";
    /// An evacuation. Never used again.
    EvacuationId(u64) written "evac-";
    /// An event: what was done, or has happened, and what became of it. A later event has a greater number.
    EventId(u64) written "event-";
    /// Source rack to target rack within one evacuation: what claims are kept for.
    Crossing(u64) written "";
    /// Number of a VM's ownership: rises with every change.
    Generation(u64) written "";
    /// Small stable number of a host, used in page frames.
    HostId(u32) written "";
    /// A connection of an agent; only the latest connection of a host counts.
    Connection(u64) written "connection ";
}

/// The text is no id of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnId;

impl fmt::Display for NotAnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an id")
    }
}

impl Error for NotAnId {}

macro_rules! parsed {
    ($($name:ident $prefix:literal,)*) => {$(
        impl FromStr for $name {
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

parsed! { MigrationId "mig-", EvacuationId "evac-", EventId "event-", }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_back() {
        assert_eq!(MigrationId(7).to_string(), "mig-7");
        assert_eq!(MigrationId(7).to_string().parse(), Ok(MigrationId(7)));
        assert_eq!(EvacuationId(42).to_string().parse(), Ok(EvacuationId(42)));
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in ["", "mig-", "mig-+1", "evac-1", "mig-1x", "mig-99999999999999999999"] {
            assert_eq!(text.parse::<MigrationId>(), Err(NotAnId), "{text}");
        }
    }

    #[test]
    fn logs_hold_the_number() {
        assert_eq!(serde_json::to_string(&MigrationId(7)).unwrap(), "7");
    }
}
