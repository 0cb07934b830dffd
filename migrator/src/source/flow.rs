//! What a source session has under way: the window on the link, and the buffers that references still need.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use rackferry_migrator_protocol::frame::{Ack, Digest, Holder, Lost};
use rackferry_migrator_protocol::session::open::{Hurry, OPEN_LIMIT, Open};
use rackferry_migrator_protocol::session::window::Window;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::pump::PageBuf;
use crate::limits::SOURCE_BUFFERS;

/// A reference whose content is kept: where it lies in the buffer, and what the index said.
#[derive(Debug, Clone, Copy)]
pub struct KeptPage {
    /// Position in the buffer.
    pub at: u32,
    /// Its digest.
    pub digest: Digest,
    /// The holder that the reference names.
    pub holder: Holder,
}

/// The references of a batch and the buffer that has their contents.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The bytes.
    pub buf: Arc<PageBuf>,
    /// In the order of the batch's references.
    pub pages: Arc<[KeptPage]>,
}

#[derive(Debug, Default)]
struct State {
    window: Window,
    unreceived: VecDeque<(u64, usize, Instant)>,
    unresolved: BTreeMap<u64, Option<Kept>>,
    open: Open,
    memory_ended: Option<Instant>,
    broken: bool,
}

/// Shared by the tasks of a source session.
#[derive(Debug)]
pub struct Flow {
    began: Instant,
    state: Mutex<State>,
    changed: Notify,
}

impl Default for Flow {
    fn default() -> Self {
        Self { began: Instant::now(), state: Mutex::default(), changed: Notify::new() }
    }
}

impl Flow {
    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until another batch may be taken in. Gating happens here, before anything is claimed, and never between a
    /// claim and its page: else two sessions could wait for each other's content for ever.
    pub async fn may_take(&self) {
        self.until(|s| s.window.is_open() && s.unresolved.len() < SOURCE_BUFFERS).await;
    }

    /// Waits until every batch that was sent is resolved at the target.
    pub async fn drained(&self) {
        self.until(|s| s.unresolved.is_empty()).await;
    }

    async fn until(&self, ready: impl Fn(&State) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.with(|s| ready(s) || s.broken) {
                return;
            }
            changed.await;
        }
    }

    /// A batch of `bytes` is about to be written; `kept` if it has references.
    pub fn sent(&self, seq: u64, bytes: usize, kept: Option<Kept>) {
        self.with(|s| {
            s.window.sent(bytes);
            s.unreceived.push_back((seq, bytes, Instant::now()));
            if kept.is_some() {
                s.open.sent(seq);
            }
            s.unresolved.insert(seq, kept);
        });
    }

    /// The target has received and resolved batches.
    pub fn acked(&self, ack: &Ack) {
        self.with(|s| {
            while let Some((_, bytes, at)) = s.unreceived.pop_front_if(|b| b.0 < ack.received) {
                s.window.received(bytes, at.elapsed().as_micros() as u64);
            }
            for seq in &ack.resolved {
                s.unresolved.remove(seq);
            }
            s.open.acked(ack.received, &ack.resolved, self.began.elapsed());
        });
        self.changed.notify_waiters();
    }

    /// All of memory is in place at the target.
    pub fn memory_ends(&self) {
        self.with(|s| s.memory_ended = Some(Instant::now()));
    }

    /// When that was.
    pub fn memory_ended(&self) -> Option<Instant> {
        self.with(|s| s.memory_ended)
    }

    /// The content of a reference, if the batch is still kept.
    pub fn kept(&self, seq: u64) -> Option<Kept> {
        self.with(|s| s.unresolved.get(&seq).cloned().flatten())
    }

    /// The VM's stop comes nearer.
    pub fn hurry(&self, hurry: Hurry) {
        self.with(|s| s.open.hurry(hurry));
    }

    /// References whose contents are to be supplied now although the target has not asked for them.
    pub fn take_due(&self) -> Vec<Lost> {
        self.with(|s| {
            let State { open, unresolved, .. } = s;
            let mut due = Vec::new();
            for seq in open.take_due(self.began.elapsed()) {
                let pages = unresolved.get(&seq).and_then(|kept| Some(kept.as_ref()?.pages.len()));
                due.extend((0..pages.unwrap_or(0) as u32).map(|index| Lost { seq, index }));
            }
            due
        })
    }

    /// No reference has been open for long: the VM may stop.
    pub fn is_settled(&self) -> bool {
        self.with(|s| s.broken || s.open.is_settled(self.began.elapsed()))
    }

    /// Waits for that.
    pub async fn settled(&self) {
        while !self.is_settled() {
            let _ = tokio::time::timeout(OPEN_LIMIT, self.changed.notified()).await;
        }
    }

    /// The connection is gone: no task shall wait for it.
    pub fn break_off(&self) {
        self.with(|s| s.broken = true);
        self.changed.notify_waiters();
    }

    /// Bytes under way, the window's limit, and what the link carries for this session in bytes per second.
    pub fn link(&self) -> (usize, usize, f64) {
        self.with(|s| (s.window.in_flight(), s.window.limit(), s.window.rate()))
    }
}
