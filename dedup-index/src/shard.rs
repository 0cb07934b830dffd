//! This agent's shard of the rack's content index: which source session sends which content over a crossing.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::Digest;
use crate::owners::{Owner, Owners};
use crate::table::{self, Offer, Table};

/// A host of the target rack that has, or will have, a content, and the session that brings it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder {
    /// Number of the host.
    pub host: u32,
    /// The session that brings or brought the content.
    pub session: u64,
}

/// What a claim came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimAnswer {
    /// The claimer sends the content.
    Yours,
    /// It was claimed before, perhaps by the claimer itself: send a reference.
    Taken(Holder),
}

/// Counters since the shard was built, and its size now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardStats {
    /// Claims in force.
    pub entries: usize,
    /// Bytes held.
    pub bytes: usize,
    /// Pairs of crossing and claimant that have claimed and were neither revoked nor closed.
    pub owners: usize,
    /// Digests claimed.
    pub claims: u64,
    /// Claims answered [`ClaimAnswer::Taken`]: contents that need not cross again.
    pub taken: u64,
    /// Claims answered [`ClaimAnswer::Yours`] without an entry because there was no room for one.
    pub unentered: u64,
}

/// The claims of the digests that [`Rendezvous`](crate::Rendezvous) places on this agent.
///
/// All calls are thread-safe and atomic per digest, not per batch. Two crossings never meet: the same digest
/// may be claimed once for each.
pub struct IndexShard {
    claims: Table<u32>,
    /// Held for reading as long as a call uses an owner's number, so that the number means that owner all the
    /// while and no entry appears for an owner already retired. Written when a session begins and ends.
    owners: RwLock<Owners>,
    claimed: AtomicU64,
    taken: AtomicU64,
    unentered: AtomicU64,
}

/// Owners at most, whatever the ceiling: far more than sessions in a datacenter at a time.
const OWNERS_MAX: usize = 65_536;
/// The part of the ceiling that owners may take.
const OWNERS_SHARE: usize = 32;

impl IndexShard {
    /// Bytes per entry of a full shard, all told: bucket, vacant buckets, growth room, owners. A shard of
    /// `n * ENTRY_BYTES` bytes, `n` from 2,000 up, keeps at least `n` entries when offered more than it can keep.
    /// Parts of it fill before others, so it refuses a few before it is full.
    pub const ENTRY_BYTES: usize =
        (table::entry_bytes::<u32>() * OWNERS_SHARE).div_ceil(OWNERS_SHARE - 1);

    /// An empty shard that will never hold more than `ceiling_bytes`. Below 32 KiB it has no room for entries.
    pub fn with_ceiling(ceiling_bytes: usize) -> Self {
        let owners_max = (ceiling_bytes / OWNERS_SHARE / Owners::OWNER_BYTES).min(OWNERS_MAX);
        Self {
            claims: Table::with_ceiling(ceiling_bytes - owners_max * Owners::OWNER_BYTES),
            owners: RwLock::new(Owners::with_max(owners_max)),
            claimed: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            unentered: AtomicU64::new(0),
        }
    }

    /// Claims `digests` for a crossing and appends the answers to `out`, in order.
    ///
    /// The first claimer of a digest gets [`ClaimAnswer::Yours`], every later one `Taken(first)`, also within
    /// one batch. Without room for an entry the answer is `Yours`, for others too: that costs bytes, nothing else.
    pub fn claim(
        &self,
        crossing: u64,
        claimant: Holder,
        digests: &[Digest],
        out: &mut Vec<ClaimAnswer>,
    ) {
        let (owners, mine) = self.enlist(Owner { crossing, claimant });
        let start = out.len();
        out.resize(start + digests.len(), ClaimAnswer::Yours);
        let answers = &mut out[start..];
        let (mut taken, mut unentered) = (0, 0);
        let scope = scope(crossing);
        self.claims.visit(
            digests,
            |digest| digest.scoped(scope),
            |at, key, stripe| {
                let offer = match mine {
                    Some(mine) => stripe.offer(key, mine),
                    None => stripe.get(key).map_or(Offer::Refused, Offer::Present),
                };
                match offer {
                    Offer::Entered => {}
                    Offer::Refused => unentered += 1,
                    Offer::Present(number) => match (owners.name(*number), mine) {
                        (Some(owner), _) => {
                            answers[at] = ClaimAnswer::Taken(owner.claimant);
                            taken += 1;
                        }
                        (None, Some(mine)) => *number = mine,
                        (None, None) => unentered += 1,
                    },
                }
            },
        );
        self.claimed.fetch_add(digests.len() as u64, Relaxed);
        self.taken.fetch_add(taken, Relaxed);
        self.unentered.fetch_add(unentered, Relaxed);
    }

    /// Appends the claimant of each of `digests` for this crossing, in order.
    pub fn resolve(&self, crossing: u64, digests: &[Digest], out: &mut Vec<Option<Holder>>) {
        let owners = self.read_owners();
        let start = out.len();
        out.resize(start + digests.len(), None);
        let answers = &mut out[start..];
        let scope = scope(crossing);
        self.claims.visit(
            digests,
            |digest| digest.scoped(scope),
            |at, key, stripe| {
                let owner = stripe.get(key).and_then(|number| owners.name(*number));
                answers[at] = owner.map(|owner| owner.claimant);
            },
        );
    }

    /// Undoes the claim of one digest if it is still this claimant's; says whether it was.
    pub fn forget(&self, crossing: u64, digest: &Digest, claimant: Holder) -> bool {
        let owners = self.read_owners();
        let Some(number) = owners.number(&Owner { crossing, claimant }) else {
            return false;
        };
        let key = digest.scoped(scope(crossing));
        self.claims.visit_one(key, |stripe| stripe.remove_if(key, |owner| *owner == number))
    }

    /// Undoes all claims of a session, for every crossing; says how many. Reads the whole shard.
    pub fn revoke(&self, session: u64) -> usize {
        self.retire(|owner| owner.claimant.session == session)
    }

    /// Undoes all claims but those for the crossings that are still open; says how many. Reads the whole shard if
    /// there are any to undo.
    pub fn retain_crossings(&self, open: &[u64]) -> usize {
        self.retire(|owner| !open.contains(&owner.crossing))
    }

    /// Claims in force.
    pub fn len(&self) -> usize {
        self.claims.len()
    }

    /// Whether no claim is in force.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes held: never more than the ceiling.
    pub fn bytes(&self) -> usize {
        self.claims.bytes() + self.read_owners().bytes()
    }

    /// Size and counters.
    pub fn stats(&self) -> ShardStats {
        ShardStats {
            entries: self.len(),
            bytes: self.bytes(),
            owners: self.read_owners().len(),
            claims: self.claimed.load(Relaxed),
            taken: self.taken.load(Relaxed),
            unentered: self.unentered.load(Relaxed),
        }
    }

    /// The number of `owner`, held valid by the guard; `None` if there are too many owners.
    fn enlist(&self, owner: Owner) -> (RwLockReadGuard<'_, Owners>, Option<u32>) {
        let owners = self.read_owners();
        if let known @ Some(_) = owners.number(&owner) {
            return (owners, known);
        }
        drop(owners);
        self.write_owners().enter(owner);
        let owners = self.read_owners();
        // Revoked again in between: the entries will not be missed.
        let number = owners.number(&owner);
        (owners, number)
    }

    /// Removes the claims of the owners that `gone` selects.
    ///
    /// Once they are retired no running batch knows their numbers, and entries that still carry one count as
    /// absent; a number is used anew only after the last such entry is out.
    fn retire(&self, gone: impl Fn(&Owner) -> bool) -> usize {
        let retired = self.write_owners().retire(gone);
        if retired.is_empty() {
            return 0;
        }
        let removed = self.claims.retain(|number| retired.binary_search(number).is_err());
        self.write_owners().free(retired);
        removed
    }

    fn read_owners(&self) -> RwLockReadGuard<'_, Owners> {
        self.owners.read().expect("no code panics while it writes the owners")
    }

    fn write_owners(&self) -> RwLockWriteGuard<'_, Owners> {
        self.owners.write().expect("no code panics while it writes the owners")
    }
}

/// What a crossing's digests are combined with: one table holds them all, and no two crossings share a key.
///
/// Distinct digests stay distinct within a crossing. Across crossings two keys are equal with a chance of
/// 2^-128 per pair, as for two digests, and again the target's check of every page would find it.
fn scope(crossing: u64) -> u128 {
    const ODD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
    let bits = u128::from(crossing).wrapping_add(1).wrapping_mul(ODD);
    (bits ^ (bits >> 67)).wrapping_mul(ODD)
}
