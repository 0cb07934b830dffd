//! What runs the guests' instructions.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, bail};

/// What stands before the number of entries, in QEMU's own words.
const RING: &str = "kvm,dirty-ring-size=";

/// QEMU's accelerator. Its text is QEMU's `-accel` argument.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Accel {
    /// Emulation.
    #[default]
    Tcg,
    /// KVM, which notes written pages in a bitmap (the dirty log).
    Kvm,
    /// KVM, which notes written pages in a ring of this many entries per virtual CPU.
    KvmRing(u32),
}

impl Accel {
    /// Its name in a spec file.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcg => "tcg",
            Self::Kvm | Self::KvmRing(_) => "kvm",
        }
    }

    /// Entries of the dirty ring, if there is one.
    pub(crate) fn dirty_ring(self) -> Option<u32> {
        match self {
            Self::Tcg | Self::Kvm => None,
            Self::KvmRing(entries) => Some(entries),
        }
    }
}

impl fmt::Display for Accel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcg | Self::Kvm => f.write_str(self.name()),
            Self::KvmRing(entries) => write!(f, "{RING}{entries}"),
        }
    }
}

impl FromStr for Accel {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text.strip_prefix(RING) {
            Some(entries) => {
                Self::KvmRing(entries.parse().with_context(|| format!("{entries} is no number"))?)
            }
            None if text == "tcg" => Self::Tcg,
            None if text == "kvm" => Self::Kvm,
            None => bail!("unknown accelerator {text}: take tcg, kvm or {RING}ENTRIES"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accelerator_is_written_as_qemu_takes_it() {
        for accel in [Accel::Tcg, Accel::Kvm, Accel::KvmRing(4096)] {
            assert_eq!(accel.to_string().parse::<Accel>().unwrap(), accel);
        }
        assert_eq!(Accel::KvmRing(4096).to_string(), "kvm,dirty-ring-size=4096");
        for text in ["hvf", "kvm,dirty-ring-size=", "kvm:tcg", ""] {
            assert!(text.parse::<Accel>().is_err(), "{text}");
        }
    }
}
