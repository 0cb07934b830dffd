//! Racks and the links between them, and what a move from one rack to another crosses.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
};

use serde::{Deserialize, Serialize};

use crate::{HostName, LinkName, RackName, VmName};

/// Racks with their hosts, and links.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// The hosts of every rack.
    pub racks: BTreeMap<RackName, BTreeSet<HostName>>,
    /// The links, each in both directions.
    pub links: Vec<Link>,
    /// Memory that is kept free of a host's, percent.
    #[serde(default)]
    pub headroom: BTreeMap<HostName, u8>,
    /// VMs that must not share a host with another one of the same group.
    #[serde(default)]
    pub groups: BTreeMap<VmName, String>,
}

/// A link between racks, spines, or a rack and a spine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its name.
    pub name: LinkName,
    /// One end: a rack or a spine.
    pub a: String,
    /// The other end.
    pub b: String,
    /// What it can carry in each direction, bytes per second.
    pub rate: u64,
    /// What it costs to go over it; a route is as cheap as can be.
    pub cost: u32,
}

/// What moves may put on a link in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkLimit {
    /// Bytes per second, headers included.
    Rate(u64),
    /// Of what it can carry, 1 to 100.
    Percent(u8),
}

impl LinkLimit {
    /// In bytes per second, on a link of a rate.
    pub const fn of(self, rate: u64) -> u64 {
        match self {
            Self::Rate(limit) => limit,
            Self::Percent(percent) => rate / 100 * percent as u64,
        }
    }
}

/// A link in one direction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lane {
    /// The link.
    pub link: LinkName,
    /// From its end a to its end b.
    pub forward: bool,
}

/// The lanes that moves between two racks cross, each with the part of their bytes that takes it: routes of equal
/// cost share them equally at every fork, as switches do with many connections.
pub type Route = BTreeMap<Lane, f64>;

/// A lane, and where it leads from a node.
struct Hop<'a> {
    lane: Lane,
    to: &'a str,
    cost: u64,
}

impl Topology {
    /// What moves between two racks cross; nothing if no links join them.
    pub fn route(&self, from: &RackName, to: &RackName) -> Route {
        let hops = self.hops();
        let left = self.distances(&hops, to.as_str());
        let mut route = Route::new();
        if from == to || !left.contains_key(from.as_str()) {
            return route;
        }
        // The farthest first: then all that reaches a node is known before it is passed on.
        let mut parts = BTreeMap::from([(from.as_str(), 1.0)]);
        let mut order = BinaryHeap::from([(left[from.as_str()], from.as_str())]);
        while let Some((distance, node)) = order.pop() {
            let Some(part) = parts.remove(node) else { continue };
            let next: Vec<&Hop<'_>> = hops[node]
                .iter()
                .filter(|hop| left.get(hop.to).is_some_and(|rest| rest + hop.cost == distance))
                .collect();
            for hop in &next {
                let part: f64 = part / next.len() as f64;
                *route.entry(hop.lane.clone()).or_default() += part;
                if hop.to != to.as_str() {
                    *parts.entry(hop.to).or_default() += part;
                    order.push((left[hop.to], hop.to));
                }
            }
        }
        route
    }

    fn hops(&self) -> BTreeMap<&str, Vec<Hop<'_>>> {
        let mut hops: BTreeMap<&str, Vec<Hop<'_>>> = BTreeMap::new();
        for link in &self.links {
            for (from, to, forward) in [(&link.a, &link.b, true), (&link.b, &link.a, false)] {
                let lane = Lane { link: link.name.clone(), forward };
                // A step that costs nothing could be taken in circles.
                let cost = u64::from(link.cost.max(1));
                hops.entry(from).or_default().push(Hop { lane, to, cost });
            }
        }
        hops
    }

    /// What it costs from every node to one; every link has the same cost both ways.
    fn distances<'a>(
        &'a self,
        hops: &BTreeMap<&'a str, Vec<Hop<'a>>>,
        to: &str,
    ) -> BTreeMap<&'a str, u64> {
        let mut found = BTreeMap::new();
        let Some((&to, _)) = hops.get_key_value(to) else { return found };
        let mut queue = BinaryHeap::from([Reverse((0, to))]);
        while let Some(Reverse((distance, node))) = queue.pop() {
            if found.contains_key(node) {
                continue;
            }
            found.insert(node, distance);
            queue.extend(hops[node].iter().map(|hop| Reverse((distance + hop.cost, hop.to))));
        }
        found
    }

    /// A link by its name.
    pub fn link(&self, name: &LinkName) -> Option<&Link> {
        self.links.iter().find(|link| link.name == *name)
    }

    /// The rack a host is listed in.
    pub fn rack_of(&self, host: &HostName) -> Option<&RackName> {
        self.racks.iter().find(|(_, hosts)| hosts.contains(host)).map(|(rack, _)| rack)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, a: &str, b: &str, cost: u32) -> Link {
        Link { name: name.into(), a: a.to_owned(), b: b.to_owned(), rate: 1000, cost }
    }

    fn route(links: Vec<Link>, from: &str, to: &str) -> Vec<(String, bool, f64)> {
        let topology = Topology { links, ..Topology::default() };
        let route = topology.route(&from.into(), &to.into());
        route.into_iter().map(|(lane, part)| (lane.link.to_string(), lane.forward, part)).collect()
    }

    fn lane(name: &str, forward: bool, part: f64) -> (String, bool, f64) {
        (name.to_owned(), forward, part)
    }

    #[test]
    fn a_direct_link_has_two_directions() {
        let links = vec![link("core0", "r1", "r2", 1)];
        assert_eq!(route(links.clone(), "r1", "r2"), [lane("core0", true, 1.0)]);
        assert_eq!(route(links, "r2", "r1"), [lane("core0", false, 1.0)]);
    }

    #[test]
    fn spines_share() {
        let links = vec![
            link("r1-s1", "r1", "s1", 1),
            link("r1-s2", "r1", "s2", 1),
            link("r2-s1", "r2", "s1", 1),
            link("r2-s2", "r2", "s2", 1),
        ];
        let halves = ["r1-s1", "r1-s2"].map(|name| lane(name, true, 0.5));
        let others = ["r2-s1", "r2-s2"].map(|name| lane(name, false, 0.5));
        assert_eq!(route(links, "r1", "r2"), [halves, others].concat());
    }

    #[test]
    fn the_cheaper_way_is_taken() {
        let links = vec![
            link("direct", "r1", "r2", 5),
            link("in", "r1", "s", 1),
            link("out", "s", "r2", 1),
        ];
        assert_eq!(route(links, "r1", "r2"), [lane("in", true, 1.0), lane("out", true, 1.0)]);
    }

    #[test]
    fn paths_that_part_and_meet_again_carry_everything() {
        let links = vec![
            link("a", "r1", "s1", 1),
            link("b", "r1", "s2", 1),
            link("c", "s1", "m", 1),
            link("d", "s2", "m", 1),
            link("e", "m", "r2", 1),
        ];
        let route = route(links, "r1", "r2");
        assert!(route.contains(&lane("e", true, 1.0)), "{route:?}");
    }

    #[test]
    fn what_is_not_joined_has_no_route() {
        let links = vec![link("core0", "r1", "r2", 1)];
        assert_eq!(route(links.clone(), "r1", "r3"), []);
        assert_eq!(route(links.clone(), "r3", "r1"), []);
        assert_eq!(route(links, "r1", "r1"), []);
        assert_eq!(route(vec![], "r1", "r2"), []);
    }

    #[test]
    fn a_percentage_is_of_the_rate() {
        assert_eq!(LinkLimit::Percent(40).of(5_000_000_000), 2_000_000_000);
        assert_eq!(LinkLimit::Rate(7).of(5_000_000_000), 7);
    }
}
