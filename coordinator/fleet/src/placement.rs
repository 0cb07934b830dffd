//! Where VMs go: for now spread by free memory. A planner replaces [`Spread`] by its own [`Placer`].

use thiserror::Error;

use crate::{HostName, VmName};

/// A VM that needs a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// The VM.
    pub vm: VmName,
    /// Guest memory.
    pub memory_bytes: u64,
}

/// A host that takes VMs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// The host.
    pub host: HostName,
    /// What it can still take: reservations of moves in flight are off already.
    pub free_bytes: u64,
}

/// The VMs do not fit.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "does not fit: {vms} VMs need {} MiB, {hosts} hosts have {} MiB free; VM {vm} needs {} MiB, the \
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
    /// [`DoesNotFit`] if no host is left for one of them.
    fn place(&self, demands: &[Demand], rooms: &[Room]) -> Result<Vec<HostName>, DoesNotFit>;
}

/// The largest VM first, each to the host with the most memory left.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spread;

impl Placer for Spread {
    fn place(&self, demands: &[Demand], rooms: &[Room]) -> Result<Vec<HostName>, DoesNotFit> {
        let mut left = rooms.to_vec();
        left.sort_by(|a, b| a.host.cmp(&b.host));
        let mut order: Vec<usize> = (0..demands.len()).collect();
        order.sort_by_key(|&i| (std::cmp::Reverse(demands[i].memory_bytes), &demands[i].vm));
        let mut places = vec![None; demands.len()];
        for i in order {
            let need = demands[i].memory_bytes;
            // The first of equals, so that the order of hosts decides.
            let best = left.iter_mut().rev().max_by_key(|room| room.free_bytes);
            match best {
                Some(room) if room.free_bytes >= need => {
                    room.free_bytes -= need;
                    places[i] = Some(room.host.clone());
                }
                best => {
                    let largest_bytes = best.map_or(0, |room| room.free_bytes);
                    return Err(does_not_fit(demands, rooms, &demands[i], largest_bytes));
                }
            }
        }
        Ok(places.into_iter().flatten().collect())
    }
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
        Demand { vm: vm.into(), memory_bytes }
    }

    fn room(host: &str, free_bytes: u64) -> Room {
        Room { host: host.into(), free_bytes }
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
            "does not fit: 2 VMs need 60 MiB, 2 hosts have 60 MiB free; VM b needs 30 MiB, the \
             largest place left is 20 MiB"
        );
    }

    #[test]
    fn no_host_takes_nothing() {
        assert!(Spread.place(&[demand("a", 1)], &[]).is_err());
        assert_eq!(Spread.place(&[], &[]), Ok(vec![]));
    }
}
