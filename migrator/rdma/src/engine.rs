//! The device's task: takes completions, and gives slots back to whoever waits for them.
//!
//! A slot that was posted belongs to the device. When it is given back is the rule of [`table`](crate::table).

use std::mem;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::device::Landing;
use crate::error::{RdmaError, Status};
use crate::limits::POLL;
use crate::pair::Pair;
use crate::region::Slot;
use crate::removal::Removal;
use crate::slab::{Key, WrId};
use crate::table::{Outcome, Table};
use crate::verbs::{Completion, Completions, Context};
use crate::watched::readable;

/// Where the devices' nodes are.
const NODES: &str = "/dev/infiniband";
/// Numbers of events after which a device does nothing more (`enum ibv_event_type`).
const DEVICE_FATAL: u32 = 8;
/// The completion queue overran; its room is counted, so that would be our mistake.
const QUEUE_ERROR: u32 = 0;

/// A batch is over.
#[derive(Debug)]
pub struct Done {
    /// Its slots, in the order of the batch. Their contents mean something after [`Status::Success`] only.
    pub slots: Vec<Slot<Landing>>,
    /// How its first READ ended that did not end well.
    pub status: Status,
    /// What the device says of that.
    pub vendor: u32,
}

impl Done {
    /// The slots, if all went well.
    ///
    /// # Errors
    /// [`RdmaError::Completion`]; the slots are free again.
    pub fn ok(self) -> Result<Vec<Slot<Landing>>, RdmaError> {
        match self.status {
            Status::Success => Ok(self.slots),
            status => Err(RdmaError::Completion { status, vendor: self.vendor }),
        }
    }
}

/// A batch that the device has.
#[derive(Debug)]
pub(crate) struct Posted {
    /// The queue pair: it lives until all its batches are over.
    pub pair: Arc<Pair>,
    /// What the device writes to.
    pub slots: Vec<Slot<Landing>>,
    /// READs.
    pub reads: u32,
    /// Who waits, or did.
    pub done: oneshot::Sender<Done>,
}

impl Posted {
    fn end(self, (status, vendor): Outcome) {
        self.pair.ended(self.reads, status != Status::Success);
        // Nobody waits any more: the slots are free again.
        drop(self.done.send(Done { slots: self.slots, status, vendor }));
    }
}

/// A device's completions and what they are of.
#[derive(Debug)]
pub(crate) struct Engine {
    completions: Arc<Completions>,
    posted: Mutex<Table<Posted>>,
    /// One thread takes completions at a time: those of a batch are looked at in order.
    polling: Mutex<Vec<Completion>>,
    gone: CancellationToken,
}

impl Engine {
    pub(crate) fn new(completions: Arc<Completions>) -> Self {
        let posted = Mutex::new(Table::default());
        let polling = Mutex::new(Vec::with_capacity(POLL));
        Self { completions, posted, polling, gone: CancellationToken::new() }
    }

    pub(crate) fn completions(&self) -> &Arc<Completions> {
        &self.completions
    }

    pub(crate) fn context(&self) -> &Arc<Context> {
        self.completions.context()
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone.is_cancelled()
    }

    /// Waits until it is.
    pub(crate) async fn gone(&self) {
        self.gone.cancelled().await;
    }

    pub(crate) fn posted(&self) -> MutexGuard<'_, Table<Posted>> {
        self.posted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all completions that are there.
    pub(crate) fn pump(&self) -> Result<(), RdmaError> {
        let mut taken = self.polling.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            taken.clear();
            let count = self.completions.poll(&mut taken)?;
            for completion in taken.iter() {
                self.take(*completion);
            }
            if count < POLL {
                return Ok(());
            }
        }
    }

    fn take(&self, completion: Completion) {
        let (id, status) = (WrId::from_bits(completion.id), status(completion.status));
        let over = self.posted().complete(id, (status, completion.vendor));
        if let Some((batch, outcome)) = over {
            batch.end(outcome);
        }
    }

    /// Ends all batches of a queue pair that is destroyed, or of one that cannot be: then the device may still write,
    /// and their slots are never free again.
    pub(crate) fn abandon(&self, pair: &Pair, destroyed: bool) {
        // The statuses of those that completed; and the queue holds none of the pair any more.
        if let Err(error) = self.pump() {
            tracing::warn!(%error, "completions are lost");
        }
        let left = self.posted().abandon(|batch| std::ptr::eq(&*batch.pair, pair));
        for (mut batch, outcome) in left {
            if !destroyed {
                mem::forget(mem::take(&mut batch.slots));
            }
            batch.end(outcome);
        }
    }

    /// The slots of a batch that the device did not get.
    pub(crate) fn unpost(&self, key: Key) -> Option<Vec<Slot<Landing>>> {
        let batch = self.posted().unpost(key)?;
        batch.pair.ended(batch.reads, false);
        Some(batch.slots)
    }

    /// The device is gone: every queue pair that has something posted is destroyed.
    fn give_up(&self, why: &str) {
        self.gone.cancel();
        tracing::warn!(device = self.context().name(), why, "the RDMA device is given up");
        let pairs: Vec<Arc<Pair>> =
            self.posted().values().map(|batch| Arc::clone(&batch.pair)).collect();
        for pair in pairs {
            pair.destroy(self);
        }
    }
}

fn status(number: u32) -> Status {
    use rdma_sys::ibv_wc_status as wc;
    match number {
        wc::IBV_WC_SUCCESS => Status::Success,
        wc::IBV_WC_WR_FLUSH_ERR => Status::Flushed,
        wc::IBV_WC_REM_ACCESS_ERR => Status::RemoteAccess,
        wc::IBV_WC_RETRY_EXC_ERR => Status::RetriesExceeded,
        wc::IBV_WC_LOC_PROT_ERR => Status::LocalProtection,
        other => Status::Other(other),
    }
}

/// Begins the task; it ends when it is told to, or with the device.
pub(crate) fn begin(engine: &Arc<Engine>, stop: CancellationToken) -> Result<(), RdmaError> {
    // Copies: the library closes its own.
    let source = |fd: BorrowedFd<'_>| -> std::io::Result<AsyncFd<OwnedFd>> {
        rustix::io::ioctl_fionbio(fd, true)?;
        readable(fd.try_clone_to_owned()?)
    };
    let registered = |source| RdmaError::Call { call: "watching the device", source };
    let completions = source(engine.completions.fd()).map_err(registered)?;
    let events = source(engine.context().events_fd()).map_err(registered)?;
    let removal = Removal::of(Path::new(NODES), &engine.context().node()).map_err(registered)?;
    let engine = Arc::clone(engine);
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            heard = removal.wait() => match heard {
                Ok(()) => engine.give_up("it is being removed"),
                Err(error) => engine.give_up(&error.to_string()),
            },
            error = wait(&engine, &completions) => engine.give_up(&error.to_string()),
            why = watch(&engine, &events) => engine.give_up(&why),
        }
    });
    Ok(())
}

/// Arm, poll, wait: a completion that came before the queue was armed is polled, one that comes later wakes.
async fn wait(engine: &Engine, source: &AsyncFd<OwnedFd>) -> RdmaError {
    let read = |source| RdmaError::Call { call: "ibv_get_cq_event", source };
    loop {
        if let Err(error) = engine.completions.arm().and_then(|()| engine.pump()) {
            return error;
        }
        match source.readable().await {
            Ok(mut ready) => {
                // To the last one: the descriptor tells of new notices only.
                if let Err(error) = engine.completions.drain() {
                    return read(error);
                }
                ready.clear_ready();
            }
            Err(error) => return read(error),
        }
    }
}

/// Waits for an event that ends the device; the others are told by completions.
async fn watch(engine: &Engine, source: &AsyncFd<OwnedFd>) -> String {
    loop {
        let mut ready = match source.readable().await {
            Ok(ready) => ready,
            Err(error) => return error.to_string(),
        };
        loop {
            match engine.context().next_event() {
                Ok(None) => break,
                Ok(Some(DEVICE_FATAL)) => return "the device has failed".to_owned(),
                Ok(Some(QUEUE_ERROR)) => return "its completion queue overran".to_owned(),
                Ok(Some(number)) => tracing::debug!(number, "event of an RDMA device"),
                Err(error) => return error.to_string(),
            }
        }
        ready.clear_ready();
    }
}
