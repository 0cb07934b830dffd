//! Sessions whose VM is stopped write first: the others of the rack hold back, on this host and on its neighbours.
//!
//! A stopped VM's last pages and device state are small, but they share the core link with every copy that is under
//! way. Holding back is bounded, whatever neighbours say: see [`Yielding`].

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::rack::Rack;

/// A stopped VM is made room for as long as this; one that takes longer is held up by something else.
pub const STOP_MAX: Duration = Duration::from_millis(250);
/// A session holds back for as long as this at a stretch.
const STRETCH: Duration = Duration::from_millis(150);
/// For each unit of time in which it may write, a session gains so much of a unit in which it may hold back.
const GAIN: f64 = 0.5;

/// Stopped VMs whose sources share the way to other racks.
#[derive(Debug, Default)]
pub struct Uplink {
    /// VMs of this host.
    own: AtomicUsize,
    /// By the host that has said so: until when a VM of a neighbour is stopped.
    neighbours: Mutex<HashMap<u32, Instant>>,
    /// How many of them there are: while there is none, a write takes no lock.
    waiting: AtomicUsize,
}

/// A VM of this host is stopped, until this is dropped.
#[derive(Debug)]
pub struct Stopped(Arc<Uplink>);

impl Drop for Stopped {
    fn drop(&mut self) {
        self.0.own.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a session has that is to go first: others hold back from [`Priority::begin`] to [`Priority::end`].
#[derive(Debug)]
pub struct Priority {
    rack: Arc<Rack>,
    stopped: Mutex<Option<Stopped>>,
}

impl Priority {
    /// Of a session whose VM runs.
    #[must_use]
    pub fn new(rack: Arc<Rack>) -> Self {
        Self { rack, stopped: Mutex::default() }
    }

    /// The VM has stopped: the other sessions of the rack leave this one the way.
    pub fn begin(&self) {
        *self.lock() = Some(self.rack.uplink.stopped());
        self.rack.hold_back(STOP_MAX);
    }

    /// All is sent: the others go on.
    pub fn end(&self) {
        if self.lock().take().is_some() {
            self.rack.hold_back(Duration::ZERO);
        }
    }

    /// Others hold back.
    pub fn is_held(&self) -> bool {
        self.lock().is_some()
    }

    /// How the session itself holds back for others.
    #[must_use]
    pub fn yielding(&self) -> Yielding {
        Yielding::new(self.rack.uplink.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Stopped>> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Uplink {
    /// A VM of this host has stopped.
    #[must_use]
    pub fn stopped(self: &Arc<Self>) -> Stopped {
        self.own.fetch_add(1, Ordering::Relaxed);
        Stopped(self.clone())
    }

    /// A neighbour's VM is stopped for so long, [`STOP_MAX`] at most; zero: it is stopped no more.
    pub fn neighbour_stopped(&self, host: u32, length: Duration) {
        let now = Instant::now();
        let mut neighbours = self.neighbours.lock().unwrap_or_else(PoisonError::into_inner);
        neighbours.retain(|_, until| *until > now);
        if length.is_zero() {
            neighbours.remove(&host);
        } else {
            neighbours.insert(host, now + length.min(STOP_MAX));
        }
        self.waiting.store(neighbours.len(), Ordering::Relaxed);
    }

    fn is_wanted(&self, now: Instant) -> bool {
        let neighbour = || {
            let neighbours = self.neighbours.lock().unwrap_or_else(PoisonError::into_inner);
            neighbours.values().any(|until| *until > now)
        };
        self.own.load(Ordering::Relaxed) > 0
            || (self.waiting.load(Ordering::Relaxed) > 0 && neighbour())
    }
}

/// How one session holds back: 150 ms at most at a stretch, and a third of the time at most in the long run, so
/// that the copies of a rack go on however many VMs stop.
#[derive(Debug)]
pub struct Yielding {
    uplink: Arc<Uplink>,
    /// For how long it may still hold back.
    credit: Duration,
    at: Instant,
    holds_back: bool,
    /// The credit was used up, and is not full yet.
    spent: bool,
}

impl Yielding {
    /// For a session that has not held back yet.
    #[must_use]
    pub fn new(uplink: Arc<Uplink>) -> Self {
        Self { uplink, credit: STRETCH, at: Instant::now(), holds_back: false, spent: false }
    }

    /// Whether the session holds back now; `stopped`: its own VM is stopped.
    pub fn holds_back(&mut self, stopped: bool) -> bool {
        let now = Instant::now();
        let passed = now.saturating_duration_since(std::mem::replace(&mut self.at, now));
        if self.holds_back {
            self.credit = self.credit.saturating_sub(passed);
            self.spent |= self.credit.is_zero();
        } else {
            self.credit = STRETCH.min(self.credit + passed.mul_f64(GAIN));
            self.spent &= self.credit < STRETCH;
        }
        self.holds_back = !stopped && !self.spent && self.uplink.is_wanted(now);
        self.holds_back
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn uplink() -> (Arc<Uplink>, Yielding) {
        let uplink = Arc::new(Uplink::default());
        (uplink.clone(), Yielding::new(uplink))
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_holds_back_while_another_vm_is_stopped() {
        let (uplink, mut session) = uplink();
        assert!(!session.holds_back(false));
        let stopped = uplink.stopped();
        assert!(session.holds_back(false));
        assert!(!session.holds_back(true), "a stopped VM's own session never does");
        assert!(session.holds_back(false));
        drop(stopped);
        assert!(!session.holds_back(false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_neighbours_stop_ends_by_its_word_or_by_time() {
        let (uplink, mut session) = uplink();
        uplink.neighbour_stopped(1, 40 * MS);
        uplink.neighbour_stopped(2, 40 * MS);
        uplink.neighbour_stopped(1, Duration::ZERO);
        assert!(session.holds_back(false), "the other's VM is stopped still");
        advance(41 * MS).await;
        assert!(!session.holds_back(false));
        uplink.neighbour_stopped(1, Duration::from_secs(3600));
        advance(STOP_MAX + MS).await;
        assert!(!session.holds_back(false));
    }

    /// Neighbours that say without end that a VM of theirs is stopped.
    #[tokio::test(start_paused = true)]
    async fn a_session_writes_two_thirds_of_the_time_whatever_neighbours_say() {
        let (uplink, mut session) = uplink();
        let (mut held, mut longest, mut stretch) = (0, 0, 0);
        for _ in 0..10_000 {
            uplink.neighbour_stopped(1, STOP_MAX);
            stretch = if session.holds_back(false) { stretch + 1 } else { 0 };
            held += u32::from(stretch > 0);
            longest = longest.max(stretch);
            advance(MS).await;
        }
        assert!((3000..3500).contains(&held), "{held} of 10,000 ms");
        assert!(longest <= 151, "{longest} ms");
    }
}
