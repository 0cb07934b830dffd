//! Which agent of a rack keeps a digest's entry: rendezvous hashing (highest random weight).

use crate::Digest;

/// The live agents of a rack, as every one of them must see it: equal members give equal owners.
///
/// When a member leaves, only its digests move, evenly to the others; when one joins, it takes its fair
/// part from all. Weights are plain arithmetic, the same on every machine and in every release.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendezvous {
    /// Sorted by host id, so that the order in which members were named does not matter.
    members: Vec<Member>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Member {
    host: u32,
    seed: u64,
}

impl Rendezvous {
    /// Placement over these host ids; an id given twice counts once.
    pub fn new(members: impl IntoIterator<Item = u32>) -> Self {
        let mut hosts: Vec<u32> = members.into_iter().collect();
        hosts.sort_unstable();
        hosts.dedup();
        let members = hosts.into_iter().map(|host| Member { host, seed: spread(host) }).collect();
        Self { members }
    }

    /// The host that keeps the entry of `digest`; `None` if there is no member.
    pub fn owner(&self, digest: &Digest) -> Option<u32> {
        // Of equal weights the last wins, which is the greatest id.
        let heaviest = self.members.iter().max_by_key(|member| digest.mix(member.seed));
        heaviest.map(|member| member.host)
    }

    /// The host ids, ascending.
    pub fn members(&self) -> impl ExactSizeIterator<Item = u32> + '_ {
        self.members.iter().map(|member| member.host)
    }
}

/// Neighbouring ids to far seeds (the finaliser of splitmix64).
fn spread(host: u32) -> u64 {
    let mut bits = u64::from(host).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn digests(count: usize, seed: u64) -> Vec<Digest> {
        let mut stream = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
        let mut draw = || {
            let mut bytes = [0; 16];
            stream.fill(&mut bytes);
            Digest(bytes)
        };
        (0..count).map(|_| draw()).collect()
    }

    /// Agents of different releases must agree, so these owners never change.
    #[test]
    fn known_owners() {
        let placement = Rendezvous::new(1..=5);
        let owners: Vec<_> = digests(12, 7).iter().filter_map(|d| placement.owner(d)).collect();
        assert_eq!(owners, [4, 1, 2, 4, 1, 3, 4, 4, 2, 5, 2, 2]);
        assert_eq!(Rendezvous::new([]).owner(&Digest([1; 16])), None);
    }

    #[test]
    fn every_member_gets_its_part() {
        let digests = digests(100_000, 11);
        for hosts in [2u32, 3, 6, 16, 40] {
            let placement = Rendezvous::new(0..hosts);
            let mut counts = BTreeMap::new();
            for digest in &digests {
                *counts.entry(placement.owner(digest).unwrap()).or_insert(0u32) += 1;
            }
            let mean = digests.len() as f64 / f64::from(hosts);
            assert_eq!(counts.len(), hosts as usize);
            for (host, count) in counts {
                let off = (f64::from(count) - mean).abs();
                assert!(off < 5.0 * mean.sqrt(), "{host} of {hosts} has {count}, mean {mean}");
            }
        }
    }

    /// The parts of one member stay spread over all bits, so that its tables stay balanced.
    #[test]
    fn a_members_digests_stay_uniform() {
        let placement = Rendezvous::new(0..6);
        let mine: Vec<_> = digests(200_000, 13)
            .into_iter()
            .filter(|digest| placement.owner(digest) == Some(3))
            .collect();
        for bit in 0..128 {
            let ones = mine.iter().filter(|d| d.to_u128() >> bit & 1 == 1).count() as f64;
            let half = mine.len() as f64 / 2.0;
            assert!((ones - half).abs() < 5.0 * (half / 2.0).sqrt(), "bit {bit}: {ones}, {half}");
        }
    }

    proptest! {
        #[test]
        fn a_leaver_moves_only_its_own(
            hosts in prop::collection::btree_set(any::<u32>(), 1..20),
            leaver: prop::sample::Index,
            seed: u64,
        ) {
            let leaver = *leaver.get(&hosts.iter().copied().collect::<Vec<_>>());
            let fewer: BTreeSet<u32> = hosts.iter().copied().filter(|&host| host != leaver).collect();
            let (before, after) = (Rendezvous::new(hosts), Rendezvous::new(fewer));
            for digest in digests(200, seed) {
                let owner = before.owner(&digest);
                if owner != Some(leaver) {
                    prop_assert_eq!(after.owner(&digest), owner);
                }
            }
        }

        #[test]
        fn the_order_of_members_does_not_matter(mut hosts: Vec<u32>, seed: u64) {
            let forward = Rendezvous::new(hosts.clone());
            hosts.reverse();
            hosts.extend_from_within(..);
            prop_assert_eq!(&forward, &Rendezvous::new(hosts));
            for digest in digests(20, seed) {
                prop_assert_eq!(forward.owner(&digest).is_none(), forward.members().len() == 0);
            }
        }
    }
}
