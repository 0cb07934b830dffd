//! Queue pairs that READ.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::device::{Device, Domain, Landing};
use crate::engine::{Done, Posted};
use crate::error::{RdmaError, Status};
use crate::limits::{BATCH_MAX, FLUSH_SECONDS};
use crate::pair::{Pair, Room};
use crate::peer::{Endpoint, RemoteArena};
use crate::plan::{self, RemoteSlot};
use crate::region::Slot;
use crate::serving::random_psn;
use crate::slab::{Key, WrId};
use crate::verbs::{Entry, Pd, Qp, Read};

/// Pages to fetch, each into a slot of its own.
#[derive(Debug, Default)]
pub struct ReadBatch {
    remote: Vec<RemoteSlot>,
    slots: Vec<Slot<Landing>>,
}

impl ReadBatch {
    /// Adds a page. The slot belongs to the batch, and then to the device, until [`Done`] gives it back:
    ///
    /// ```no_run
    /// # use rackferry_rdma::{Landing, ReadBatch, RemoteSlot, Slot};
    /// # fn f(slot: Slot<Landing>, at: RemoteSlot, batch: &mut ReadBatch) {
    /// slot.bytes();
    /// batch.add(at, slot);
    /// # }
    /// ```
    ///
    /// ```compile_fail,E0382
    /// # use rackferry_rdma::{Landing, ReadBatch, RemoteSlot, Slot};
    /// # fn f(slot: Slot<Landing>, at: RemoteSlot, batch: &mut ReadBatch) {
    /// batch.add(at, slot);
    /// slot.bytes();
    /// # }
    /// ```
    pub fn add(&mut self, remote: RemoteSlot, slot: Slot<Landing>) {
        self.remote.push(remote);
        self.slots.push(slot);
    }

    /// How many pages it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The slots, not posted.
    #[must_use]
    pub fn into_slots(self) -> Vec<Slot<Landing>> {
        self.slots
    }
}

/// A batch that was not posted, or not wholly.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct NotPosted {
    /// The pages that the device did not get; their slots are the caller's again.
    pub rest: ReadBatch,
    /// Why.
    #[source]
    pub error: RdmaError,
}

/// What becomes of a batch. Dropping it frees nothing: the slots come back when the device has let go of them.
#[derive(Debug)]
pub struct Ticket(oneshot::Receiver<Done>);

impl Future for Ticket {
    type Output = Done;

    /// Cancel safe: yes.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Done> {
        let done = ready!(Pin::new(&mut self.0).poll(context));
        // A batch that is posted is ended by its completion, or by the end of its queue pair.
        Poll::Ready(done.unwrap_or(Done { slots: vec![], status: Status::Abandoned, vendor: 0 }))
    }
}

/// A fetching queue pair that waits for its peer.
#[derive(Debug)]
pub struct FetchingSetup {
    qp: Qp,
    pd: Arc<Pd>,
    device: Device,
    room: Room,
    local: Endpoint,
}

impl FetchingSetup {
    /// A queue pair in the domain that its READs land in. Peers can do nothing through it.
    ///
    /// # Errors
    /// The device has no more, or is gone.
    pub fn new(domain: &Domain<Landing>) -> Result<Self, RdmaError> {
        let device = domain.device().clone();
        let limits = device.limits();
        let room = Room::take(&device, limits.send_queue)?;
        let completions = device.inner.engine.completions();
        let qp = Qp::new(domain.pd(), completions, limits.send_queue, limits.scatter)?;
        qp.init(device.inner.local.port, false)?;
        let local = device.endpoint(qp.number(), random_psn(), limits.asks)?;
        Ok(Self { qp, pd: Arc::clone(domain.pd()), device, room, local })
    }

    /// Our end, for the peer.
    #[must_use]
    pub fn local(&self) -> &Endpoint {
        &self.local
    }

    /// Connects to a peer's serving queue pair.
    ///
    /// # Errors
    /// The device refuses the peer's values.
    pub fn connect(self, peer: &Endpoint, arena: RemoteArena) -> Result<Fetching, RdmaError> {
        let Self { qp, pd, device, room, local } = self;
        let mtu = local.mtu().min(peer.mtu());
        qp.answer(device.inner.local, peer, mtu, 0)?;
        // More than the peer serves at a time would be dropped by some devices.
        qp.send(local.psn(), local.reads().min(peer.reads()))?;
        Ok(Fetching { pair: Arc::new(Pair::new(qp, room)), pd, device, arena })
    }
}

/// A connected queue pair that READs from one peer's arena.
#[derive(Debug)]
pub struct Fetching {
    pair: Arc<Pair>,
    pd: Arc<Pd>,
    device: Device,
    arena: RemoteArena,
}

impl Fetching {
    /// Posts a batch.
    ///
    /// # Errors
    /// The batch, or what the device did not get of it, is given back. After [`RdmaError::Full`] it can be posted again
    /// when another one is done.
    pub fn post(&self, batch: ReadBatch) -> Result<Ticket, NotPosted> {
        match self.lay_out(&batch) {
            Ok((reads, entries)) => self.hand_over(batch, reads, &entries),
            Err(error) => Err(NotPosted { rest: batch, error }),
        }
    }

    /// READs that are posted and not done.
    #[must_use]
    pub fn posted(&self) -> u32 {
        self.pair.queue().posted()
    }

    /// Stops the queue pair, waits until the device has let go of all that was posted, and destroys it. All tickets
    /// are ready then. Cancel safe: yes, the queue pair flushes all the same.
    pub async fn close(self) {
        let patience = Duration::from_secs(FLUSH_SECONDS);
        if !self.pair.fail() || tokio::time::timeout(patience, self.pair.drained()).await.is_err() {
            tracing::warn!(device = self.device.name(), "a queue pair does not flush");
        }
        self.pair.destroy(&self.device.inner.engine);
    }

    /// The READs of a batch, without their numbers.
    fn lay_out(&self, batch: &ReadBatch) -> Result<(Vec<Read>, Vec<Entry>), RdmaError> {
        if !(1..=BATCH_MAX).contains(&batch.len()) {
            return Err(RdmaError::BatchLength(batch.len()));
        }
        let entry = |slot: &Slot<Landing>| slot.entry(&self.pd).ok_or(RdmaError::OtherDomain);
        let entries = batch.slots.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
        let places: Result<Vec<_>, _> =
            batch.remote.iter().map(|slot| self.arena.place(*slot)).collect();
        let places = places?;
        let runs = plan::reads(&batch.remote, self.device.limits().scatter as usize);
        let reads = runs.into_iter().map(|run| {
            let (address, rkey) = places[run.start];
            Read { id: 0, signalled: run.end == batch.len(), address, rkey, entries: run.len() }
        });
        Ok((reads.collect(), entries))
    }

    #[allow(unsafe_code, reason = "from here on the device writes to the slots")]
    fn hand_over(
        &self,
        batch: ReadBatch,
        mut reads: Vec<Read>,
        entries: &[Entry],
    ) -> Result<Ticket, NotPosted> {
        let engine = &self.device.inner.engine;
        let count = reads.len() as u32;
        if engine.is_gone() {
            let error = RdmaError::DeviceGone(self.device.name().to_owned());
            return Err(NotPosted { rest: batch, error });
        }
        let mut queue = self.pair.queue();
        let qp = match queue.begin(count) {
            Ok(qp) => qp,
            Err(error) => return Err(NotPosted { rest: batch, error }),
        };
        let (done, ticket) = oneshot::channel();
        let ReadBatch { remote, slots } = batch;
        let pair = Arc::clone(&self.pair);
        let posted = Posted { pair, slots, reads: count, done };
        let key = engine.posted().insert(posted);
        for read in &mut reads {
            read.id = WrId { key, last: read.signalled }.to_bits();
        }
        // SAFETY: the slots, which own the entries' memory, are in the engine's table. They leave it when the
        // completion of the last READ was polled, or by `abandon`, which is called after `Qp::destroy` succeeded, or by
        // `unpost`, for those that the device did not get.
        let outcome = unsafe { qp.post(&reads, entries) };
        drop(queue);
        if let Err(failed) = outcome {
            let kept = &reads[..failed.posted];
            return Err(NotPosted { rest: self.take_back(key, kept, remote), error: failed.error });
        }
        if engine.is_gone() {
            self.pair.destroy(engine);
        }
        Ok(Ticket(ticket))
    }

    /// What the device did not get of a batch. If it got a part, nothing would tell when it has let go of that: the
    /// queue pair is destroyed.
    fn take_back(&self, key: Key, kept: &[Read], mut remote: Vec<RemoteSlot>) -> ReadBatch {
        let engine = &self.device.inner.engine;
        let pages = kept.iter().map(|read| read.entries).sum();
        let slots = if kept.is_empty() {
            engine.unpost(key)
        } else {
            let slots = engine.posted().get_mut(key).map(|posted| posted.slots.split_off(pages));
            self.pair.destroy(engine);
            slots
        };
        remote.drain(..pages);
        ReadBatch { remote, slots: slots.unwrap_or_default() }
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        // What is posted flushes, and its end destroys the queue pair.
        self.pair.fail();
    }
}
