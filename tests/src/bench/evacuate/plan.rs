//! What a run of the bench does.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::bench::baseline::Stock;
use crate::image::{DISKS, Qemu};
use crate::lab::rate::Rate;
use crate::lab::site::Settings;
use crate::lab::vm::{Profile, VmDef};

/// More connections than this gain nothing on a link that one connection fills, and the two cores they
/// would compress on are shared by all VMs.
const MULTIFD_CHANNELS: u8 = 2;
/// Guest memory a host may hand out: a host of the lab is never the limit.
const HOST_MEMORY_MIB: u64 = 1 << 20;

/// Moves at a time, of every method, unless asked for otherwise: all hosts of the lab share two cores, and more of them
/// only wait for each other, VMs paused.
pub const MOVES: u32 = 4;
/// VMs stopped at a time: each has a CPU of the machine's two for its last pages, its commit and its start.
const SWITCHOVERS: u32 = 2;
/// What a `busy` guest rewrites, KiB/s, unless asked for otherwise: as much as 24 emulated ones can while two cores move
/// them.
pub const BUSY_KIB: u32 = 1024;

/// A way of moving VMs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Rackferry, each content once per rack.
    Rack,
    /// Rackferry, each content once per host.
    Host,
    /// Rackferry without dedup, compressed.
    Off,
    /// Stock QEMU, plain precopy: one copy.
    Oc,
    /// Stock QEMU, several connections, compressed.
    Multifd,
}

impl Method {
    /// Every method, in the order they run.
    pub const ALL: [Self; 5] = [Self::Rack, Self::Host, Self::Off, Self::Oc, Self::Multifd];

    /// Rackferry's dedup mode, if it is Rackferry.
    pub fn dedup(self) -> Option<&'static str> {
        match self {
            Self::Rack => Some("rack"),
            Self::Host => Some("host"),
            Self::Off => Some("off"),
            Self::Oc | Self::Multifd => None,
        }
    }

    /// What stock QEMU does, if it is stock QEMU.
    pub fn stock(self) -> Option<Stock> {
        match self {
            Self::Oc => Some(Stock::Precopy),
            Self::Multifd => Some(Stock::MultifdZstd { channels: MULTIFD_CHANNELS }),
            Self::Rack | Self::Host | Self::Off => None,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Rack => "Rackferry rack",
            Self::Host => "Rackferry host",
            Self::Off => "Rackferry no dedup",
            Self::Oc => "stock precopy",
            Self::Multifd => "stock multifd zstd",
        })
    }
}

impl FromStr for Method {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Ok(match name {
            "rack" => Self::Rack,
            "host" => Self::Host,
            "off" => Self::Off,
            "oc" => Self::Oc,
            "multifd" => Self::Multifd,
            _ => anyhow::bail!("unknown method {name}: take rack, host, off, oc or multifd"),
        })
    }
}

/// What a run of the bench does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Hosts of each of the two racks.
    pub hosts: u8,
    /// VMs on each host of the rack that is emptied.
    pub vms_per_host: usize,
    /// Guest memory of each VM, MiB; the guest fills half of it.
    pub memory_mib: u32,
    /// Rate of the core link in each direction.
    pub core: Rate,
    /// What the guests do.
    pub profile: Profile,
    /// What a `busy` guest rewrites, KiB/s.
    pub busy_kib: u32,
    /// Moves at a time, of every method.
    pub moves: u32,
    /// Which QEMU runs them.
    pub qemu: Qemu,
    /// How they move, in this order but Rackferry first.
    pub methods: Vec<Method>,
}

impl Plan {
    /// How many VMs there are.
    pub fn vms(&self) -> usize {
        usize::from(self.hosts) * self.vms_per_host
    }

    /// Bytes of all guest memory.
    pub fn memory_bytes(&self) -> u64 {
        (self.vms() as u64 * u64::from(self.memory_mib)) << 20
    }

    /// The VMs, those of a host side by side. Names are seeds, so every run has the same guests.
    pub(super) fn defs(&self) -> Vec<VmDef> {
        let def = |number: usize| {
            let mut def = VmDef::named(&format!("vm-{:02}", number + 1));
            def.qemu = self.qemu;
            if self.profile == Profile::Mixed {
                def.disk = number % DISKS;
            }
            def.guest.rate_kib = self.busy_kib;
            def.memory_mib(self.memory_mib).profile(self.profile)
        };
        (0..self.vms()).map(def).collect()
    }

    pub(super) fn settings(&self) -> Settings {
        Settings {
            guest_memory_mib: HOST_MEMORY_MIB,
            qemu: [self.qemu; 2],
            moves_total: self.moves,
            switchovers_total: SWITCHOVERS,
            ..Settings::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixed_guests_of_a_host_have_different_disks_and_all_have_names_of_their_own() {
        let plan = Plan {
            hosts: 2,
            vms_per_host: 4,
            memory_mib: 256,
            core: Rate::gbit(1),
            profile: Profile::Mixed,
            busy_kib: BUSY_KIB,
            moves: MOVES,
            qemu: Qemu::V10_0,
            methods: Method::ALL.into(),
        };
        let defs = plan.defs();
        assert_eq!(defs.len(), 8);
        assert_eq!(defs[..4].iter().map(|def| def.disk).collect::<Vec<_>>(), [0, 1, 2, 3]);
        let names: std::collections::BTreeSet<_> = defs.iter().map(|def| &def.name).collect();
        let seeds: std::collections::BTreeSet<_> = defs.iter().map(|def| def.guest.seed).collect();
        assert_eq!((names.len(), seeds.len()), (8, 8));
        assert_eq!(plan.memory_bytes(), 2 << 30);
    }
}
