//! A fetching queue pair as its owner and what is posted on it share it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::credits::Credits;
use crate::device::Device;
use crate::engine::Engine;
use crate::error::RdmaError;
use crate::verbs::Qp;

/// Room in the completion queue, given back with the queue pair.
#[derive(Debug)]
pub(crate) struct Room {
    device: Device,
    entries: u32,
}

impl Room {
    pub(crate) fn take(device: &Device, entries: u32) -> Result<Self, RdmaError> {
        device.take_room(entries)?;
        Ok(Self { device: device.clone(), entries })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.device.give_room(self.entries);
    }
}

/// A queue pair, shared by its owner and what is posted on it.
#[derive(Debug)]
pub(crate) struct Pair {
    queue: Mutex<Queue>,
    /// Told when the last batch is over.
    idle: Notify,
    _room: Room,
}

/// Its send queue.
#[derive(Debug)]
pub(crate) struct Queue {
    /// None once it is closed, or has failed for good.
    qp: Option<Qp>,
    credits: Credits,
    batches: usize,
    /// A READ has failed: the device flushes all others.
    broken: bool,
}

impl Queue {
    /// Takes room for a batch; the queue pair to post it on.
    pub(crate) fn begin(&mut self, reads: u32) -> Result<&Qp, RdmaError> {
        let Some(qp) = self.qp.as_ref().filter(|_| !self.broken) else {
            return Err(RdmaError::Closed);
        };
        let (taken, total) = (self.credits.taken(), self.credits.total());
        if !self.credits.take(reads) {
            return Err(RdmaError::Full { queue: "send queue", wanted: reads, taken, total });
        }
        self.batches += 1;
        Ok(qp)
    }

    /// READs that are posted and not done.
    pub(crate) fn posted(&self) -> u32 {
        self.credits.taken()
    }
}

impl Pair {
    /// A connected queue pair with as much room in its send queue as was promised to it.
    pub(crate) fn new(qp: Qp, room: Room) -> Self {
        let credits = Credits::of(room.entries);
        let queue = Queue { qp: Some(qp), credits, batches: 0, broken: false };
        Self { queue: Mutex::new(queue), idle: Notify::new(), _room: room }
    }

    pub(crate) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A batch is over.
    pub(crate) fn ended(&self, reads: u32, failed: bool) {
        let mut queue = self.queue();
        queue.broken |= failed;
        queue.credits.give(reads);
        queue.batches -= 1;
        if queue.batches == 0 {
            self.idle.notify_waiters();
        }
    }

    /// Tells the device to flush; false if that cannot be.
    pub(crate) fn fail(&self) -> bool {
        let mut queue = self.queue();
        queue.broken = true;
        queue.qp.as_ref().is_some_and(|qp| qp.fail().is_ok())
    }

    /// Waits until no batch is left.
    pub(crate) async fn drained(&self) {
        loop {
            let idle = self.idle.notified();
            if self.queue().batches == 0 {
                return;
            }
            idle.await;
        }
    }

    /// Ends the queue pair and with it all its batches.
    pub(crate) fn destroy(&self, engine: &Engine) {
        let qp = self.queue().qp.take();
        match qp.map(Qp::destroy) {
            Some(Err(qp)) => {
                tracing::warn!(number = qp.number(), "a queue pair cannot be destroyed");
                engine.abandon(self, false);
                std::mem::forget(qp);
            }
            Some(Ok(())) | None => engine.abandon(self, true),
        }
    }
}
