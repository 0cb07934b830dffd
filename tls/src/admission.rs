//! Admission limits the callers of a port: few handshakes at a time and few of one address, before a caller is known;
//! then a place among all connections, and no more than its share of them.
//!
//! The first limits cost a caller its address, the second its certificate: callers that do nothing take places from
//! callers like them, and from no others.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use crate::Identity;

/// How long a caller may take to make itself known.
pub const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);
/// Pause after the listener has failed: it is out of descriptors, which come back.
const LISTENER_PAUSE: Duration = Duration::from_millis(100);
/// The log says so often at most that callers are refused, for each reason.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);
/// A hundred years: timers go no further than that by far.
const AGE_MAX: u64 = 100 * 365 * 86_400;
/// One address takes this part of the newcomers' places at most.
const NEWCOMERS_SHARE: usize = 4;

/// The limits of a port. Zero counts as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Handshakes at a time; further callers wait in the listener's queue.
    pub handshakes: usize,
    /// Handshakes at a time of one address (IPv6: of one /64); further callers are refused.
    pub handshakes_per_address: usize,
    /// Connections at a time, in all.
    pub connections: usize,
    /// Connections at a time of one certificate's holder.
    pub connections_per_identity: usize,
    /// Seconds after which a connection is closed, so that its caller shows its certificate again; up to a tenth less, so
    /// that not all end together. Connections that bring a VM are not closed.
    pub max_age_seconds: u64,
    /// Connections at a time of callers that want to join, in all; one address has a quarter of them at most.
    pub newcomers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshakes: 256,
            handshakes_per_address: 64,
            connections: 4096,
            connections_per_identity: 128,
            max_age_seconds: 86_400,
            newcomers: 128,
        }
    }
}

/// Why a caller is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// The address has too many handshakes under way.
    #[error("its address has too many handshakes under way (admission.handshakes_per_address)")]
    Address,
    /// The caller has not made itself known, or not in time.
    #[error("it did not make itself known in time, or is not of this site")]
    Handshake,
    /// There are too many connections.
    #[error("there are too many connections (admission.connections)")]
    Connections,
    /// The caller has too many connections.
    #[error("it has too many connections (admission.connections_per_identity)")]
    Identity,
    /// There are too many callers that want to join.
    #[error("too many callers want to join (admission.newcomers)")]
    Newcomers,
}

impl Refused {
    /// Every reason.
    pub const ALL: [Self; 5] =
        [Self::Address, Self::Handshake, Self::Connections, Self::Identity, Self::Newcomers];

    /// The reason's label in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Handshake => "handshake",
            Self::Connections => "connections",
            Self::Identity => "identity",
            Self::Newcomers => "newcomers",
        }
    }
}

/// The admission of one port. Clones share it.
#[derive(Clone, Debug)]
pub struct Admission {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    limits: Limits,
    handshakes: Arc<Semaphore>,
    /// Held for a count only, never over an await.
    counts: Mutex<Counts>,
    refused: [AtomicU64; Refused::ALL.len()],
    complained: Mutex<[Option<Instant>; Refused::ALL.len()]>,
}

#[derive(Debug, Default)]
struct Counts {
    handshakes: Tally<IpAddr>,
    known: Tally<Holder>,
    newcomers: Tally<IpAddr>,
}

/// The holder of a place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Holder {
    Known(Identity),
    /// Without TLS a caller has no name, and no quota.
    Unnamed,
    Newcomer(IpAddr),
}

/// How many of each kind there are.
#[derive(Debug)]
struct Tally<K> {
    each: HashMap<K, usize>,
    all: usize,
}

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self { each: HashMap::new(), all: 0 }
    }
}

impl<K: Hash + Eq> Tally<K> {
    fn of(&self, key: &K) -> usize {
        self.each.get(key).copied().unwrap_or_default()
    }

    fn add(&mut self, key: K) {
        *self.each.entry(key).or_default() += 1;
        self.all += 1;
    }

    fn remove(&mut self, key: &K) {
        let Some(count) = self.each.get_mut(key) else { return };
        *count -= 1;
        self.all -= 1;
        if *count == 0 {
            self.each.remove(key);
        }
    }
}

impl Default for Admission {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Admission {
    /// Makes the admission of a port that nothing is connected to yet.
    pub fn new(limits: Limits) -> Self {
        let handshakes = Arc::new(Semaphore::new(limits.handshakes.max(1)));
        let inner = Inner {
            limits,
            handshakes,
            counts: Mutex::default(),
            refused: [const { AtomicU64::new(0) }; Refused::ALL.len()],
            complained: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Waits for room for a handshake, then for a caller whose address may begin one. Cancel safe.
    pub async fn accept(&self, listener: &TcpListener) -> (TcpStream, SocketAddr, Ticket) {
        // The semaphore is never closed.
        let mut permit = self.inner.handshakes.clone().acquire_owned().await.ok();
        loop {
            match listener.accept().await {
                Ok((stream, from)) => {
                    let address = prefix(from.ip());
                    if self.begin(address) {
                        let ticket = Ticket {
                            admission: self.clone(),
                            address,
                            _permit: permit.take(),
                            used: false,
                        };
                        return (stream, from, ticket);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection");
                    tokio::time::sleep(LISTENER_PAUSE).await;
                }
            }
        }
    }

    /// How many callers were refused so far, by reason.
    pub fn refusals(&self) -> [(Refused, u64); Refused::ALL.len()] {
        Refused::ALL.map(|why| (why, self.inner.refused[why as usize].load(Ordering::Relaxed)))
    }

    /// How long the connection of a caller may last.
    pub fn age_limit(&self, from: SocketAddr) -> Duration {
        // Ports differ from one connection to the next.
        let sooner = f64::from(from.port() % 100) / 1000.0;
        let seconds = self.inner.limits.max_age_seconds.clamp(1, AGE_MAX);
        Duration::from_secs(seconds).mul_f64(1.0 - sooner)
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.inner.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a handshake of an address, unless it has too many.
    fn begin(&self, address: IpAddr) -> bool {
        let mut counts = self.counts();
        let free = counts.handshakes.of(&address) < self.inner.limits.handshakes_per_address.max(1);
        if free {
            counts.handshakes.add(address);
        } else {
            drop(counts);
            self.refuse(Refused::Address);
        }
        free
    }

    fn place(&self, holder: Holder) -> Result<Place, Refused> {
        let limits = &self.inner.limits;
        let mut counts = self.counts();
        let why = match &holder {
            Holder::Newcomer(address) => {
                let share = (limits.newcomers / NEWCOMERS_SHARE).max(1);
                let full = counts.newcomers.all >= limits.newcomers.max(1)
                    || counts.newcomers.of(address) >= share;
                full.then_some(Refused::Newcomers)
            }
            _ if counts.known.all >= limits.connections.max(1) => Some(Refused::Connections),
            Holder::Known(_)
                if counts.known.of(&holder) >= limits.connections_per_identity.max(1) =>
            {
                Some(Refused::Identity)
            }
            Holder::Known(_) | Holder::Unnamed => None,
        };
        if let Some(why) = why {
            drop(counts);
            self.refuse(why);
            return Err(why);
        }
        match &holder {
            Holder::Newcomer(address) => counts.newcomers.add(*address),
            known => counts.known.add(known.clone()),
        }
        drop(counts);
        Ok(Place { admission: self.clone(), holder })
    }

    fn refuse(&self, why: Refused) {
        let count = self.inner.refused[why as usize].fetch_add(1, Ordering::Relaxed) + 1;
        let mut all = self.inner.complained.lock().unwrap_or_else(PoisonError::into_inner);
        let complained = &mut all[why as usize];
        if why != Refused::Handshake && complained.is_none_or(|at| at.elapsed() > COMPLAIN_EVERY) {
            *complained = Some(Instant::now());
            tracing::warn!(%why, so_far = count, "callers are refused");
        }
    }
}

/// What is counted as one address: an IPv6 network gives each of its hosts 2^64 of them.
fn prefix(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let mut segments = address.segments();
            segments[4..].fill(0);
            IpAddr::from(segments)
        }
    }
}

/// A ticket lets one caller make itself known. Dropped unused, the caller counts as refused.
#[derive(Debug)]
pub struct Ticket {
    admission: Admission,
    address: IpAddr,
    _permit: Option<OwnedSemaphorePermit>,
    used: bool,
}

impl Ticket {
    /// How long the connection may last.
    pub fn age_limit(&self, from: SocketAddr) -> Duration {
        self.admission.age_limit(from)
    }

    /// Exchanges the ticket for a place of the holder of a certificate.
    ///
    /// # Errors
    /// If the holder or the port has too many connections.
    pub fn known(self, identity: &Identity) -> Result<Place, Refused> {
        self.exchange(Holder::Known(identity.clone()))
    }

    /// Exchanges the ticket for a place of a caller that wants to join.
    ///
    /// # Errors
    /// If there are too many of them, or too many of this address.
    pub fn newcomer(self) -> Result<Place, Refused> {
        let address = self.address;
        self.exchange(Holder::Newcomer(address))
    }

    /// Exchanges the ticket for a place of a caller without a name: TLS is off.
    ///
    /// # Errors
    /// If the port has too many connections.
    pub fn unnamed(self) -> Result<Place, Refused> {
        self.exchange(Holder::Unnamed)
    }

    fn exchange(mut self, holder: Holder) -> Result<Place, Refused> {
        self.used = true;
        self.admission.place(holder)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.admission.counts().handshakes.remove(&self.address);
        if !self.used {
            self.admission.refuse(Refused::Handshake);
        }
    }
}

/// A place among the connections of a port, until it is dropped.
#[derive(Debug)]
pub struct Place {
    admission: Admission,
    holder: Holder,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.admission.counts();
        match &self.holder {
            Holder::Newcomer(address) => counts.newcomers.remove(address),
            known => counts.known.remove(known),
        }
    }
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
