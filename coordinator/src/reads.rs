//! Reads: answered from what the leader has published, not by the task that decides.
//!
//! A read that begins after a write was answered must see it. The leader publishes what a turn changed before it lets
//! the turn's answers out, so what is published has the write; and a quorum confirms, after the read began, that it still
//! follows the leader of that term, so no later leader has answered a write before. Reads that come meanwhile share the
//! next confirmation.

use std::sync::Arc;

use openraft::error::RaftError;
use rackferry_fleet::Published;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{gate::leads, raft::Raft};

/// Reads that may wait for a confirmation; more wait for room.
const READS: usize = 4096;

/// What is published, and by the leader of which term. None while this coordinator does not lead.
pub type Shown = Option<(u64, Arc<Published>)>;

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
        let published = shown.borrow().clone().filter(|(of, _)| Some(*of) == term);
        for reply in waiting.drain(..) {
            if let Some((_, published)) = &published {
                // A reader that went away needs no answer.
                let _ = reply.send(published.clone());
            }
        }
    }
}

/// The term in which a quorum follows this coordinator, from now on; none if it leads no more.
async fn confirm(raft: &Raft) -> Option<u64> {
    loop {
        match raft.ensure_linearizable().await {
            // At least the entry with which the leader's term began: it has the leader's term.
            Ok(read) => return read.map(|read| read.leader_id.term),
            Err(RaftError::Fatal(_)) => return None,
            // Too few answered in time; either they do so next time, or the quorum is lost.
            Err(RaftError::APIError(_)) => {}
        }
        if !leads(&raft.metrics().borrow()) {
            return None;
        }
        tokio::task::yield_now().await;
    }
}
