//! Where VMs go: for now spread by free memory. A planner replaces [`Spread`] by its own [`Placer`].

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use thiserror::Error;

use crate::{HostName, VmName};

/// A VM that needs a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// The VM.
    pub vm: VmName,
    /// Guest memory.
    pub memory_bytes: u64,
    /// The group whose VMs must not share a host, if it is in one.
    pub group: Option<String>,
}

/// A host that takes VMs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// The host.
    pub host: HostName,
    /// What it can still take: reservations of moves in flight and its headroom are off already.
    pub free_bytes: u64,
    /// Groups that have a VM there, or on its way to it.
    pub groups: BTreeMap<String, VmName>,
}

impl Room {
    fn takes(&self, demand: &Demand) -> bool {
        let taken = demand.group.as_ref().is_some_and(|group| self.groups.contains_key(group));
        self.free_bytes >= demand.memory_bytes && !taken
    }

    fn take(&mut self, demand: &Demand) {
        self.free_bytes -= demand.memory_bytes;
        if let Some(group) = &demand.group {
            self.groups.insert(group.clone(), demand.vm.clone());
        }
    }
}

/// There is no place for every VM.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unplaceable {
    /// They have not the memory.
    #[error(transparent)]
    DoesNotFit(#[from] DoesNotFit),
    /// Hosts have the memory, and each has a VM that another one must not share it with.
    #[error(transparent)]
    KeptApart(#[from] KeptApart),
}

/// VMs of one group would have to share a host.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "anti-affinity group {group}: VM {vm} has no host of its own; {}, and no other host has room",
    where_they_are(others)
)]
pub struct KeptApart {
    /// The group.
    pub group: String,
    /// The first VM without a place.
    pub vm: VmName,
    /// Those that are where it would have room.
    pub others: Vec<(VmName, HostName)>,
}

fn where_they_are(others: &[(VmName, HostName)]) -> String {
    let each: Vec<_> = others.iter().map(|(vm, host)| format!("{vm} is on {host}")).collect();
    each.join(", ")
}

/// The VMs do not fit.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "does not fit: {vms} VMs need {} MiB, {hosts} hosts can take {} MiB; VM {vm} needs {} MiB, the \
     largest place left is {} MiB",
    mib(*needed_bytes), mib(*free_bytes), mib(*vm_bytes), mib(*largest_bytes)
)]
pub struct DoesNotFit {
    /// How many VMs need a place.
    pub vms: usize,
    /// How much memory they need together.
    pub needed_bytes: u64,
    /// How many hosts take VMs.
    pub hosts: usize,
    /// How much memory they have together.
    pub free_bytes: u64,
    /// The first VM without a place.
    pub vm: VmName,
    /// What it needs.
    pub vm_bytes: u64,
    /// The largest place left when its turn came.
    pub largest_bytes: u64,
}

fn mib(bytes: u64) -> u64 {
    bytes / (1 << 20)
}

/// Chooses hosts for VMs.
pub trait Placer: Send {
    /// A host for every demand, in the order of `demands`.
    ///
    /// # Errors
    /// [`Unplaceable`] if no host is left for one of them.
    fn place(&self, demands: &[Demand], rooms: &[Room]) -> Result<Vec<HostName>, Unplaceable>;
}

/// The largest VM first, each to the host with the most memory left. If that leaves no place for one of a group, those of
/// groups first: others can share what is left.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spread;

impl Placer for Spread {
    fn place(&self, demands: &[Demand], rooms: &[Room]) -> Result<Vec<HostName>, Unplaceable> {
        let mut order: Vec<&Demand> = demands.iter().collect();
        order.sort_by_key(|demand| (std::cmp::Reverse(demand.memory_bytes), &demand.vm));
        let packed = pack(demands, rooms, &order).or_else(|refused| {
            order.sort_by_key(|demand| demand.group.is_none());
            pack(demands, rooms, &order).map_err(|_| refused)
        })?;
        Ok(demands.iter().map(|demand| packed[&demand.vm].clone()).collect())
    }
}

/// Places VMs one after the other.
fn pack<'a>(
    demands: &[Demand],
    rooms: &[Room],
    order: &[&'a Demand],
) -> Result<BTreeMap<&'a VmName, HostName>, Unplaceable> {
    let mut left = rooms.to_vec();
    left.sort_by(|a, b| a.host.cmp(&b.host));
    // By what is left; of equals the first by name is the last here.
    let mut roomiest: BTreeSet<(u64, Reverse<usize>)> =
        left.iter().enumerate().map(|(n, room)| (room.free_bytes, Reverse(n))).collect();
    let mut places = BTreeMap::new();
    for demand in order {
        let with_memory = roomiest.range((demand.memory_bytes, Reverse(usize::MAX))..).rev();
        let mut fitting = with_memory.filter(|(_, Reverse(n))| left[*n].takes(demand));
        let Some(&found) = fitting.next() else {
            return Err(refuse(demands, rooms, demand, &left));
        };
        let (_, Reverse(n)) = found;
        left[n].take(demand);
        roomiest.remove(&found);
        roomiest.insert((left[n].free_bytes, Reverse(n)));
        places.insert(&demand.vm, left[n].host.clone());
    }
    Ok(places)
}

fn refuse(demands: &[Demand], rooms: &[Room], first: &Demand, left: &[Room]) -> Unplaceable {
    let roomy = left.iter().filter(|room| room.free_bytes >= first.memory_bytes);
    let group = first.group.clone().unwrap_or_default();
    let others: Vec<_> = roomy
        .filter_map(|room| Some((room.groups.get(&group)?.clone(), room.host.clone())))
        .collect();
    if !others.is_empty() {
        return KeptApart { group, vm: first.vm.clone(), others }.into();
    }
    let largest = left.iter().map(|room| room.free_bytes).max();
    does_not_fit(demands, rooms, first, largest.unwrap_or(0)).into()
}

fn does_not_fit(
    demands: &[Demand],
    rooms: &[Room],
    first: &Demand,
    largest_bytes: u64,
) -> DoesNotFit {
    DoesNotFit {
        vms: demands.len(),
        needed_bytes: demands.iter().map(|demand| demand.memory_bytes).sum(),
        hosts: rooms.len(),
        free_bytes: rooms.iter().map(|room| room.free_bytes).sum(),
        vm: first.vm.clone(),
        vm_bytes: first.memory_bytes,
        largest_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand(vm: &str, memory_bytes: u64) -> Demand {
        Demand { vm: vm.into(), memory_bytes, group: None }
    }

    fn of(group: &str, vm: &str, memory_bytes: u64) -> Demand {
        Demand { group: Some(group.to_owned()), ..demand(vm, memory_bytes) }
    }

    fn room(host: &str, free_bytes: u64) -> Room {
        Room { host: host.into(), free_bytes, groups: BTreeMap::new() }
    }

    #[test]
    fn spreads_over_equal_hosts() {
        let demands = [demand("a", 10), demand("b", 10), demand("c", 10), demand("d", 10)];
        let places = Spread.place(&demands, &[room("h2", 50), room("h1", 50)]);
        assert_eq!(places, Ok(vec!["h1".into(), "h2".into(), "h1".into(), "h2".into()]));
    }

    #[test]
    fn places_the_largest_first() {
        let demands = [demand("small", 10), demand("large", 40)];
        let places = Spread.place(&demands, &[room("h1", 40), room("h2", 20)]);
        assert_eq!(places, Ok(vec!["h2".into(), "h1".into()]));
    }

    #[test]
    fn says_with_numbers_what_does_not_fit() {
        let demands = [demand("a", 30 << 20), demand("b", 30 << 20)];
        let refused = Spread.place(&demands, &[room("h1", 50 << 20), room("h2", 10 << 20)]);
        let refused = refused.expect_err("60 MiB do not fit so");
        assert_eq!(
            refused.to_string(),
            "does not fit: 2 VMs need 60 MiB, 2 hosts can take 60 MiB; VM b needs 30 MiB, the \
             largest place left is 20 MiB"
        );
    }

    #[test]
    fn vms_of_a_group_never_share_a_host() {
        let demands = [of("db", "a", 10), of("db", "b", 10), of("web", "c", 5), of("web", "d", 5)];
        let places = Spread.place(&demands, &[room("h1", 100), room("h2", 40)]).expect("it fits");
        assert_ne!(places[0], places[1]);
        assert_ne!(places[2], places[3]);
    }

    #[test]
    fn a_group_without_hosts_is_refused_by_name() {
        let demands = [of("db", "a", 10), of("db", "b", 10), of("db", "c", 10)];
        let mut rooms = [room("h1", 50), room("h2", 50), room("h3", 5)];
        let refused = Spread.place(&demands, &rooms).expect_err("two hosts, three VMs");
        assert_eq!(
            refused.to_string(),
            "anti-affinity group db: VM c has no host of its own; a is on h1, b is on h2, and no other host has room"
        );
        rooms[0].groups.insert("db".to_owned(), "old".into());
        let refused = Spread.place(&demands[..2], &rooms).expect_err("one of two is taken");
        assert_eq!(
            refused.to_string(),
            "anti-affinity group db: VM b has no host of its own; old is on h1, a is on h2, and no other host has room"
        );
    }

    #[test]
    fn large_vms_leave_places_for_groups() {
        // The largest first would leave h1 too little for the second of the group.
        let demands =
            [demand("x", 10), demand("y", 7), demand("z", 5), of("db", "a", 3), of("db", "b", 5)];
        let places = Spread.place(&demands, &[room("h1", 23), room("h2", 9)]).expect("it fits");
        assert_ne!(places[3], places[4]);
    }

    #[test]
    fn memory_is_what_is_missing_if_it_is() {
        let demands = [of("db", "a", 10), of("db", "b", 10)];
        let refused = Spread.place(&demands, &[room("h1", 15), room("h2", 5)]);
        assert!(matches!(refused, Err(Unplaceable::DoesNotFit(_))));
    }

    #[test]
    fn no_host_takes_nothing() {
        assert!(Spread.place(&[demand("a", 1)], &[]).is_err());
        assert_eq!(Spread.place(&[], &[]), Ok(vec![]));
    }
}
