//! Which racks and hosts there are, and what they are called.

use std::net::Ipv4Addr;

/// The two racks: guests leave `a` for `b`.
pub const RACKS: [&str; 2] = ["a", "b"];

/// How large the lab is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Hosts in each of the two racks, 1 to 200.
    pub hosts_per_rack: u8,
    /// Coordinators, 1 to 200.
    pub coordinators: u8,
}

/// One host of the lab: a network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// `a` or `b`.
    pub rack: &'static str,
    /// From 1.
    pub number: u8,
    /// Its network namespace.
    pub namespace: String,
    /// Its address on the page network, which crosses the core link.
    pub address: Ipv4Addr,
    /// Its address on the management network, which does not.
    pub management: Ipv4Addr,
}

impl Host {
    /// Its name in inventories: `a-1`.
    pub fn name(&self) -> String {
        format!("{}-{}", self.rack, self.number)
    }

    /// Its port of the management network's switch.
    pub fn port(&self) -> String {
        format!("{}{}", self.rack, self.number)
    }
}

/// Where a coordinator runs: a network namespace too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// From 1.
    pub id: u8,
    /// Its network namespace.
    pub namespace: String,
    /// Its address on the management network, the only one it is on.
    pub address: Ipv4Addr,
}

impl Seat {
    /// Its name in logs.
    pub fn name(&self) -> String {
        format!("coordinator-{}", self.id)
    }

    /// Its port of the management network's switch.
    pub fn port(&self) -> String {
        format!("c{}", self.id)
    }
}

impl Topology {
    /// Two racks and one coordinator.
    pub fn of(hosts_per_rack: u8) -> Self {
        Self { hosts_per_rack, coordinators: 1 }
    }

    /// Where every coordinator runs.
    pub fn seats(self, prefix: &str) -> Vec<Seat> {
        let seat = |id| Seat {
            id,
            namespace: format!("{prefix}-c-{id}"),
            address: Ipv4Addr::new(192, 168, 3, id),
        };
        (1..=self.coordinators).map(seat).collect()
    }

    /// Every host of both racks.
    pub fn hosts(self, prefix: &str) -> Vec<Host> {
        let rack = |index: usize| {
            let subnet = index as u8 + 1;
            (1..=self.hosts_per_rack).map(move |number| Host {
                rack: RACKS[index],
                number,
                namespace: format!("{prefix}-{}-{number}", RACKS[index]),
                address: Ipv4Addr::new(10, subnet, 0, number),
                management: Ipv4Addr::new(192, 168, subnet, number),
            })
        };
        (0..RACKS.len()).flat_map(rack).collect()
    }
}

/// The namespace of a rack's switch.
pub fn switch(prefix: &str, rack: &str) -> String {
    format!("{prefix}-{rack}-tor")
}

/// The namespace of the management network's switch: the command line runs here.
pub fn management(prefix: &str) -> String {
    format!("{prefix}-mgmt")
}

/// The address of the management namespace itself.
pub const MANAGEMENT: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 1);
