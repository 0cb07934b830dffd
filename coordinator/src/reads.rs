//! Reads: answered from what the leader has published, not by the task that decides.
//!
//! A read that begins after a write was answered must see it. The leader publishes what a turn changed before it lets
//! the turn's answers out, so what is published has the write; and a quorum confirms, after the read began, that it still
//! follows the leader of that term, so no later leader has answered a write before. Reads that come meanwhile share the
//! next confirmation.

use std::sync::Arc;

use rackferry_fleet::Published;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{gate::leads, raft::Raft, term};

/// Reads that may wait for a confirmation; more wait for room.
const READS: usize = 4096;

/// What is published, with its leader's term in the revision. None while this coordinator does not lead.
pub type Shown = Option<Arc<Published>>;

type Reply = oneshot::Sender<Arc<Published>>;

/// Puts reads to the task that confirms them.
#[derive(Clone)]
pub struct Reads {
    waiting: mpsc::Sender<Reply>,
    shown: watch::Receiver<Shown>,
}

impl Reads {
    /// Starts the task; it ends when the last of these is dropped.
    pub fn start(raft: Raft, shown: watch::Receiver<Shown>) -> Self {
        let (waiting, reads) = mpsc::channel(READS);
        tokio::spawn(answer(raft, shown.clone(), reads));
        Self { waiting, shown }
    }

    /// What is published; nothing if this coordinator does not lead any more. Cancel safe.
    pub async fn published(&self) -> Option<Arc<Published>> {
        let (reply, published) = oneshot::channel();
        self.waiting.send(reply).await.ok()?;
        published.await.ok()
    }

    /// Reads that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.max_capacity() - self.waiting.capacity()
    }

    /// Changes whenever something visible has changed.
    pub fn changes(&self) -> watch::Receiver<Shown> {
        self.shown.clone()
    }
}

/// Answers reads, or drops them when there is no confirmation.
async fn answer(raft: Raft, shown: watch::Receiver<Shown>, mut reads: mpsc::Receiver<Reply>) {
    let mut waiting = Vec::new();
    while reads.recv_many(&mut waiting, READS).await > 0 {
        let term = confirm(&raft).await;
        let published = shown.borrow().clone();
        let published = published.filter(|shown| Some(shown.revision().term) == term);
        for reply in waiting.drain(..) {
            if let Some(published) = &published {
                // A reader that went away needs no answer.
                let _ = reply.send(published.clone());
            }
        }
    }
}

/// The term in which a quorum follows this coordinator, from now on; none if it leads no more.
async fn confirm(raft: &Raft) -> Option<u64> {
    loop {
        match term::ask_quorum(raft).await {
            Ok(None) if leads(&raft.metrics().borrow()) => tokio::task::yield_now().await,
            answer => return answer.ok().flatten(),
        }
    }
}
