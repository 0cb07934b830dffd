//! What a peer says of its queue pair and its memory, looked at before anything of it is used.

use std::fmt;

use crate::limits::{OUTSTANDING_MAX, PAGE_BYTES, REGIONS_MAX, SLOTS_MAX};
use crate::plan::RemoteSlot;

/// Queue pair and packet sequence numbers have 24 bits.
const BITS_24: u32 = (1 << 24) - 1;
/// Queue pairs 0 and 1 are the fabric's own.
const QPN_MIN: u32 = 2;
/// First byte of multicast addresses.
const MULTICAST: u8 = 0xff;

/// Why a peer's values are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} is {value}: {rule}")]
pub struct PeerError {
    what: &'static str,
    value: String,
    rule: &'static str,
}

fn refuse<T>(
    what: &'static str,
    value: impl fmt::Display,
    rule: &'static str,
) -> Result<T, PeerError> {
    Err(PeerError { what, value: value.to_string(), rule })
}

/// Address of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Gid(pub [u8; 16]);

impl fmt::Display for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::net::Ipv6Addr::from(self.0).fmt(f)
    }
}

/// Payload of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mtu(u8);

impl Mtu {
    /// As verbs count them: 1 is 256 bytes, 5 is 4096.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        (1..=5).contains(&number).then_some(Self(number as u8))
    }

    /// Of these bytes.
    #[must_use]
    pub fn from_bytes(bytes: u32) -> Option<Self> {
        (1..=5).map(Self).find(|mtu| mtu.bytes() == bytes)
    }

    /// Bytes.
    #[must_use]
    pub fn bytes(self) -> u32 {
        128 << self.0
    }

    /// As verbs count them.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0.into()
    }
}

/// One end of a connection, as the other end must know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    gid: Gid,
    qpn: u32,
    psn: u32,
    mtu: Mtu,
    reads: u8,
}

impl Endpoint {
    /// A peer's end.
    ///
    /// # Errors
    /// A value that no working queue pair has.
    pub fn new(gid: Gid, qpn: u32, psn: u32, mtu: u32, reads: u32) -> Result<Self, PeerError> {
        if gid.0 == [0; 16] || gid.0[0] == MULTICAST {
            return refuse("the GID", gid, "it is the address of one port");
        }
        if !(QPN_MIN..=BITS_24).contains(&qpn) {
            return refuse("the queue pair's number", qpn, "it is 2 to 16777215");
        }
        if psn > BITS_24 {
            return refuse("the first packet's number", psn, "it has 24 bits");
        }
        let Some(mtu) = Mtu::from_bytes(mtu) else {
            return refuse("the MTU", mtu, "it is 256, 512, 1024, 2048 or 4096");
        };
        if reads == 0 {
            return refuse("the READs at a time", reads, "at least one is needed");
        }
        let reads = reads.min(OUTSTANDING_MAX.into()) as u8;
        Ok(Self { gid, qpn, psn, mtu, reads })
    }

    /// Address of its port.
    #[must_use]
    pub fn gid(&self) -> Gid {
        self.gid
    }

    /// Number of its queue pair.
    #[must_use]
    pub fn qpn(&self) -> u32 {
        self.qpn
    }

    /// Number of its first packet: a secret, as whoever knows it can forge packets.
    #[must_use]
    pub fn psn(&self) -> u32 {
        self.psn
    }

    /// Largest payload of a packet.
    #[must_use]
    pub fn mtu(&self) -> Mtu {
        self.mtu
    }

    /// READs that it has, or serves, at a time.
    #[must_use]
    pub fn reads(&self) -> u8 {
        self.reads
    }
}

/// A region of a peer's arena: slots are named by number, and their addresses computed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteRegion {
    base: u64,
    slots: u32,
    rkey: u32,
}

impl RemoteRegion {
    /// A region as a peer offers it.
    ///
    /// # Errors
    /// It does not begin on a page, has no or too many slots, or reaches beyond the address space.
    pub fn new(base: u64, slots: u32, rkey: u32) -> Result<Self, PeerError> {
        if !base.is_multiple_of(PAGE_BYTES as u64) {
            return refuse("a region's address", base, "it is a multiple of 4096");
        }
        if !(1..=SLOTS_MAX).contains(&slots) {
            return refuse("a region's number of slots", slots, "it is 1 to 268435456");
        }
        if base.checked_add(u64::from(slots) * PAGE_BYTES as u64).is_none() {
            return refuse("a region's address", base, "the region ends within 64 bits");
        }
        Ok(Self { base, slots, rkey })
    }

    /// Address of its first slot.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.base
    }

    /// How many slots it has.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// The key that a READ of it carries.
    #[must_use]
    pub fn rkey(&self) -> u32 {
        self.rkey
    }

    fn address(&self, slot: u32) -> Option<u64> {
        (slot < self.slots).then(|| self.base + u64::from(slot) * PAGE_BYTES as u64)
    }
}

/// The regions that a peer serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteArena(Box<[RemoteRegion]>);

impl RemoteArena {
    /// The regions, in the order in which slots name them.
    ///
    /// # Errors
    /// None, or more than [`REGIONS_MAX`].
    pub fn new(regions: Vec<RemoteRegion>) -> Result<Self, PeerError> {
        if !(1..=REGIONS_MAX).contains(&regions.len()) {
            return refuse("the number of regions", regions.len(), "it is 1 to 64");
        }
        Ok(Self(regions.into_boxed_slice()))
    }

    /// Address and key of a slot.
    ///
    /// # Errors
    /// There is no such slot.
    pub fn place(&self, slot: RemoteSlot) -> Result<(u64, u32), PeerError> {
        let found = self.0.get(slot.region as usize);
        match found.and_then(|region| Some((region.address(slot.slot)?, region.rkey))) {
            Some(place) => Ok(place),
            None => refuse(
                "a leased slot",
                format_args!("{} of region {}", slot.slot, slot.region),
                "it lies within the regions that were offered",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GID: Gid = Gid([0xfd; 16]);

    #[test]
    fn an_end_that_cannot_be_is_refused_with_its_value() {
        let good = Endpoint::new(GID, 17, 0xff_ffff, 4096, 200).unwrap();
        assert_eq!((good.mtu().bytes(), good.mtu().number(), good.reads()), (4096, 5, 16));
        let wrong = [
            Endpoint::new(Gid([0; 16]), 17, 0, 1024, 1),
            Endpoint::new(Gid([0xff; 16]), 17, 0, 1024, 1),
            Endpoint::new(GID, 1, 0, 1024, 1),
            Endpoint::new(GID, 1 << 24, 0, 1024, 1),
            Endpoint::new(GID, 17, 1 << 24, 1024, 1),
            Endpoint::new(GID, 17, 0, 1000, 1),
            Endpoint::new(GID, 17, 0, 8192, 1),
            Endpoint::new(GID, 17, 0, 1024, 0),
        ];
        for end in wrong {
            assert!(end.unwrap_err().to_string().contains(" is "));
        }
        let error = Endpoint::new(GID, 17, 0, 1000, 1).unwrap_err().to_string();
        assert_eq!(error, "the MTU is 1000: it is 256, 512, 1024, 2048 or 4096");
    }

    #[test]
    fn regions_that_cannot_be_are_refused() {
        for (base, slots) in [(4095, 1), (0, 0), (0, SLOTS_MAX + 1), (u64::MAX - 4095, 1)] {
            assert!(RemoteRegion::new(base, slots, 1).is_err(), "{base} {slots}");
        }
        let region = RemoteRegion::new(8192, 1, 1).unwrap();
        assert!(RemoteArena::new(vec![]).is_err());
        assert!(RemoteArena::new(vec![region; REGIONS_MAX + 1]).is_err());
        assert!(RemoteArena::new(vec![region; REGIONS_MAX]).is_ok());
    }

    proptest! {
        /// Whatever a peer offers and leases, an address lies within what it offered.
        #[test]
        fn no_slot_is_read_beyond_its_region(
            offered in prop::collection::vec((any::<u64>(), 0..20_u32, any::<u32>()), 1..5),
            region in 0..6_u16,
            slot in 0..25_u32,
        ) {
            let made = offered.iter().map(|&(base, slots, key)| RemoteRegion::new(base & !4095, slots, key));
            let Ok(regions) = made.collect::<Result<Vec<_>, _>>() else { return Ok(()) };
            let arena = RemoteArena::new(regions.clone()).unwrap();
            match (arena.place(RemoteSlot { region, slot }), regions.get(region as usize)) {
                (Ok((address, rkey)), Some(region)) => {
                    prop_assert_eq!(rkey, region.rkey());
                    let end = region.base() + u64::from(region.slots()) * 4096;
                    prop_assert!(address >= region.base() && address + 4096 <= end);
                }
                (Ok(_), None) => prop_assert!(false, "a slot of no region"),
                (Err(_), region) => prop_assert!(region.is_none_or(|region| slot >= region.slots())),
            }
        }
    }
}
