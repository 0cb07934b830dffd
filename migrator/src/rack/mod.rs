//! This host's part of the rack: its index shard, its contents, and the way to the shards and contents of others.

mod breaker;
mod link;
mod pool;
#[cfg(test)]
pub(crate) mod silent;
mod store;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use dashmap::DashSet;
use futures::future::join_all;
use rackferry_dedup_index::{ClaimAnswer, Digest, DomainKey, IndexShard, PageHasher, Rendezvous};
use rackferry_migrator_protocol::frame::{
    ClaimReply, ClaimRequest, FetchRequest, Forget, HoldBack, Holder, Kind, Revoke,
};
use rackferry_tls::Tls;

pub use link::{Answer, Pending};
pub use store::{ContentStore, Found, StoreReader};

use crate::limits::{CLAIM_TIMEOUT, FETCH_TIMEOUT};
use crate::memory::{GuestMemory, MemoryError};
use crate::uplink::Uplink;
use link::Link;

/// Threads that hash one guest's memory in verify mode.
const HASH_THREADS: usize = 2;

/// A live agent of the rack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Stable number of the host.
    pub host_id: u32,
    /// Its name, as its certificate says it.
    pub host: String,
    /// `ip:port` of its page server.
    pub page_addr: String,
}

#[derive(Debug)]
struct View {
    members: HashMap<u32, (Member, Link)>,
    owners: Rendezvous,
    /// Members that may fetch contents: VMs are on their way to them.
    receivers: HashSet<u32>,
}

/// The rack as one host sees it. Shared by all sessions of the agent.
pub struct Rack {
    /// Number of this host.
    pub own_host: u32,
    /// What page connections are made with; none if TLS is off.
    pub tls: Option<Tls>,
    key: DomainKey,
    /// Hashes pages with the dedup domain's key.
    pub hasher: PageHasher,
    /// This host's shard of the content index.
    pub shard: IndexShard,
    /// Contents in this host's guest memories.
    pub store: ContentStore,
    /// Stopped VMs that the way to other racks is left to.
    pub uplink: Arc<Uplink>,
    view: RwLock<View>,
    /// Sessions that bring content to this host.
    incoming: DashSet<u64>,
    next_request: AtomicU64,
}

impl std::fmt::Debug for Rack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rack").field("own_host", &self.own_host).finish_non_exhaustive()
    }
}

/// Which shards answer claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All of the rack: each distinct page of the rack crosses once.
    Rack,
    /// This host's alone: each distinct page of the host crosses once.
    Host,
}

/// Claims under way; the answers of the own shard are there already.
#[derive(Debug)]
pub struct PendingClaims {
    answers: Vec<Option<Holder>>,
    remote: Vec<(Vec<u32>, Pending)>,
}

impl Rack {
    /// A rack of which nothing but the own host is known yet. `index_bytes` and `content_bytes` are ceilings.
    pub fn new(
        own_host: u32,
        key: &DomainKey,
        index_bytes: usize,
        content_bytes: usize,
        tls: Option<Tls>,
    ) -> Self {
        Self {
            own_host,
            tls,
            key: key.clone(),
            hasher: PageHasher::new(key),
            shard: IndexShard::with_ceiling(index_bytes),
            store: ContentStore::with_ceiling(content_bytes),
            uplink: Arc::default(),
            view: RwLock::new(View {
                members: HashMap::new(),
                owners: Rendezvous::new([own_host]),
                receivers: HashSet::new(),
            }),
            incoming: DashSet::new(),
            next_request: AtomicU64::new(1),
        }
    }

    /// Takes over the list of live agents; connections to those that stay are kept. Must be called inside a tokio
    /// runtime.
    pub fn set_members(&self, members: &[Member]) {
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        let mut old = std::mem::take(&mut view.members);
        for m in members.iter().filter(|m| m.host_id != self.own_host) {
            let kept = old.remove(&m.host_id).filter(|(known, _)| known == m);
            let start = || (m.clone(), Link::start(self.own_host, m.clone(), self.tls.clone()));
            view.members.insert(m.host_id, kept.unwrap_or_else(start));
        }
        let hosts: Vec<u32> = view.members.keys().copied().chain([self.own_host]).collect();
        view.owners = Rendezvous::new(hosts);
    }

    /// Takes over which members VMs are on their way to: only these get contents.
    pub fn set_receivers(&self, receivers: HashSet<u32>) {
        self.view.write().unwrap_or_else(PoisonError::into_inner).receivers = receivers;
    }

    /// Is `host` a member of the rack that may fetch contents: one that VMs are on their way to? By a view that is late
    /// it is not: then the source supplies.
    pub fn may_fetch(&self, host: u32) -> bool {
        let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
        view.members.contains_key(&host) && view.receivers.contains(&host)
    }

    /// A session from another rack brings content to this host from now on.
    pub fn session_opened(&self, session: u64) {
        self.incoming.insert(session);
    }

    /// It brings no more.
    pub fn session_closed(&self, session: u64) {
        self.incoming.remove(&session);
    }

    /// Does `session` still bring content to this host?
    pub fn expects(&self, session: u64) -> bool {
        self.incoming.contains(&session)
    }

    /// One digest over whole guest memories, for verify mode. Blocks; the guest must be stopped.
    ///
    /// # Errors
    /// A memory cannot be read.
    pub fn digest_memories(&self, memories: &[Arc<GuestMemory>]) -> Result<[u8; 32], MemoryError> {
        let mut all = blake3::Hasher::new_keyed(&self.key.0);
        for memory in memories {
            all.update(memory.digest_all(&self.key.0, HASH_THREADS)?.as_bytes());
        }
        Ok(*all.finalize().as_bytes())
    }

    /// The name of a live member of the rack, by its number; not this host's own.
    pub fn name_of(&self, host: u32) -> Option<String> {
        let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
        view.members.get(&host).map(|(member, _)| member.host.clone())
    }

    fn link(&self, host: u32) -> Option<Link> {
        let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
        view.members.get(&host).map(|(_, link)| link.clone())
    }

    /// Claims `digests` for `claimant`, at the own shard at once and at the others by requests that are under way
    /// when this returns.
    pub async fn claim(
        &self,
        scope: Scope,
        crossing: u64,
        claimant: Holder,
        digests: &[Digest],
    ) -> PendingClaims {
        let mut pending = PendingClaims { answers: vec![None; digests.len()], remote: Vec::new() };
        // From here on no shard, the own one included, sees a name that content can be fetched by.
        let tokens = self.hasher.tokens(digests);
        let mut groups = self.by_owner(scope, &tokens);
        let own = groups.pop_if(|(host, _)| *host == self.own_host);
        // All at the same time: the queue to one silent shard must not keep the requests to the others.
        let asked = groups.into_iter().filter_map(|(host, positions)| {
            let link = self.link(host)?;
            let request = self.next_request.fetch_add(1, Ordering::Relaxed);
            let tokens = positions.iter().map(|i| tokens[*i as usize]).collect();
            let mut payload = Vec::with_capacity(40 + positions.len() * 16);
            ClaimRequest { request, crossing, claimant, tokens }.encode(&mut payload);
            Some(async move {
                (positions, link.ask(Kind::Claim, request, payload, CLAIM_TIMEOUT).await)
            })
        });
        pending.remote = join_all(asked).await;
        if let Some((_, positions)) = own {
            let theirs: Vec<Digest> = positions.iter().map(|i| tokens[*i as usize]).collect();
            let answers = self.claim_here(crossing, claimant, &theirs);
            for (i, answer) in positions.iter().zip(answers) {
                pending.answers[*i as usize] = answer;
            }
        }
        pending
    }

    /// Positions in `tokens` by the host whose shard keeps them, the own host last: its part is done at once, while
    /// the requests to the others are under way.
    fn by_owner(&self, scope: Scope, tokens: &[Digest]) -> Vec<(u32, Vec<u32>)> {
        let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
        let hosts = match scope {
            Scope::Host => 1,
            Scope::Rack => view.members.len() + 1,
        };
        if hosts == 1 {
            return vec![(self.own_host, (0..tokens.len() as u32).collect())];
        }
        // A rack is few hosts: looking through them beats hashing.
        let expected = 2 * tokens.len() / hosts;
        let mut groups: Vec<(u32, Vec<u32>)> = view
            .members
            .keys()
            .chain([&self.own_host])
            .map(|h| (*h, Vec::with_capacity(expected)))
            .collect();
        for (i, token) in tokens.iter().enumerate() {
            let owner = view.owners.owner(token).unwrap_or(self.own_host);
            if let Some((_, positions)) = groups.iter_mut().find(|(host, _)| *host == owner) {
                positions.push(i as u32);
            }
        }
        groups.retain(|(_, positions)| !positions.is_empty());
        groups
    }

    /// Claims at this host's shard, by the [tokens](PageHasher::tokens) of contents. `None` = the claimant's to send.
    pub fn claim_here(
        &self,
        crossing: u64,
        claimant: Holder,
        tokens: &[Digest],
    ) -> Vec<Option<Holder>> {
        let mut answers = Vec::with_capacity(tokens.len());
        self.shard.claim(crossing, claimant, tokens, &mut answers);
        answers
            .into_iter()
            .map(|answer| match answer {
                ClaimAnswer::Yours => None,
                ClaimAnswer::Taken(holder) => Some(holder),
            })
            .collect()
    }

    /// A holder does not have what the index says it has.
    pub fn forget(&self, scope: Scope, crossing: u64, claims: &[(Digest, Holder)]) {
        let digests: Vec<Digest> = claims.iter().map(|(digest, _)| *digest).collect();
        let tokens = self.hasher.tokens(&digests);
        for (host, positions) in self.by_owner(scope, &tokens) {
            let claims = positions.iter().map(|i| (tokens[*i as usize], claims[*i as usize].1));
            let forget = Forget { crossing, claims: claims.collect() };
            if host == self.own_host {
                self.forget_here(&forget);
            } else if let Some(link) = self.link(host) {
                let mut payload = Vec::new();
                forget.encode(&mut payload);
                link.tell(Kind::Forget, payload);
            }
        }
    }

    /// Forgets at this host's shard.
    pub fn forget_here(&self, forget: &Forget) {
        for (token, holder) in &forget.claims {
            self.shard.forget(forget.crossing, token, *holder);
        }
    }

    /// Undoes all claims of a session, in all shards that can be reached.
    pub fn revoke(&self, session: u64) {
        self.shard.revoke(session);
        let mut payload = Vec::new();
        Revoke { session }.encode(&mut payload);
        self.tell_all(Kind::Revoke, &payload);
    }

    /// Asks the neighbours to leave this host the way to other racks for so long, because a VM is stopped; zero: that is
    /// over.
    pub fn hold_back(&self, length: Duration) {
        let mut payload = Vec::new();
        HoldBack { millis: length.as_millis() as u16 }.encode(&mut payload);
        self.tell_all(Kind::HoldBack, &payload);
    }

    fn tell_all(&self, kind: Kind, payload: &[u8]) {
        let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
        for (_, link) in view.members.values() {
            link.tell(kind, payload.to_vec());
        }
    }

    /// Asks a neighbour for contents. None if it is not a live member of the rack, or does not answer in time.
    pub async fn fetch(&self, host: u32, wanted: Vec<(Digest, u64)>) -> Option<Answer> {
        let link = self.link(host)?;
        let request = self.next_request.fetch_add(1, Ordering::Relaxed);
        let mut payload = Vec::with_capacity(16 + wanted.len() * 24);
        FetchRequest { request, wanted }.encode(&mut payload);
        link.ask(Kind::Fetch, request, payload, FETCH_TIMEOUT).await.answer().await
    }
}

impl PendingClaims {
    /// Waits for the answers. A shard that has not answered in time, counted from the claim, grants everything: that
    /// costs bytes only.
    pub async fn finish(self) -> Vec<Option<Holder>> {
        let Self { mut answers, remote } = self;
        for (positions, asked) in remote {
            let Some(payload) = asked.answer().await else { continue };
            let Ok(reply) = ClaimReply::decode(&payload) else { continue };
            if reply.answers.len() == positions.len() {
                for (i, answer) in positions.iter().zip(reply.answers) {
                    answers[*i as usize] = answer;
                }
            }
        }
        answers
    }
}
