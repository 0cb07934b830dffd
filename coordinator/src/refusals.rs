//! Refusals on their way to the log: put without waiting, joined where they are the same, written a few times a second.
//! A caller that floods a coordinator with them neither waits nor makes others wait.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rackferry_fleet::{Act, Refused};
use rackferry_proto::{Reason, reason_of};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::driver::Handle;

/// Refusals that may wait to be written; of further ones only the number is kept.
const REFUSALS: usize = 256;
/// The shortest time between two writes.
const PACE: Duration = Duration::from_millis(200);

/// Takes refusals. Never waits.
#[derive(Clone)]
pub struct Refusals {
    waiting: mpsc::Sender<Refused>,
    others: Arc<AtomicU64>,
}

impl Refusals {
    /// Where refusals are put, and what has them written.
    pub fn new() -> (Self, Waiting) {
        let (waiting, taken) = mpsc::channel(REFUSALS);
        let others = Arc::<AtomicU64>::default();
        (Self { waiting, others: others.clone() }, Waiting { taken, others })
    }

    /// Puts the refusal of an act. That this coordinator cannot answer is none.
    pub fn put(&self, act: Act, status: &Status) {
        let reason = match reason_of(status) {
            Some(Reason::NotLeader | Reason::ShuttingDown) => return,
            Some(reason) => reason.as_str().to_owned(),
            None => format!("{:?}", status.code()),
        };
        let detail = status.message().to_owned();
        let Act { by, action, subject } = &act;
        tracing::info!(
            role = by.role,
            name = by.name,
            from = by.from,
            action,
            subject,
            reason,
            "refused"
        );
        if self.waiting.try_send(Refused { act, reason, detail, count: 1 }).is_err() {
            self.others.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Refusals that wait to be written.
pub struct Waiting {
    taken: mpsc::Receiver<Refused>,
    others: Arc<AtomicU64>,
}

impl Waiting {
    /// Has refusals written until the shutdown. Those that come while no coordinator leads are in this one's own log
    /// alone. Not cancel safe.
    pub async fn serve(mut self, handle: Handle, shutdown: CancellationToken) {
        let mut batch = Vec::with_capacity(REFUSALS);
        loop {
            tokio::select! {
                count = self.taken.recv_many(&mut batch, REFUSALS) => if count == 0 { return },
                () = shutdown.cancelled() => return,
            }
            let others = self.others.swap(0, Ordering::Relaxed);
            let refused = joined(batch.drain(..));
            if let Err(away) = handle.write_refusals(refused, others).await {
                tracing::info!(%away, "refusals are in this log alone");
            }
            tokio::time::sleep(PACE).await;
        }
    }
}

/// Each refusal once, with how often it was.
fn joined(refused: impl Iterator<Item = Refused>) -> Vec<Refused> {
    let mut counts: BTreeMap<_, u64> = BTreeMap::new();
    for Refused { act, reason, detail, count } in refused {
        *counts.entry((act, reason, detail)).or_default() += count;
    }
    let each = counts.into_iter();
    each.map(|((act, reason, detail), count)| Refused { act, reason, detail, count }).collect()
}

#[cfg(test)]
mod tests {
    use rackferry_fleet::{Action, Caller};
    use rackferry_proto::{refuse, refuse_not_leader};

    use super::*;

    fn act(subject: &str) -> Act {
        Act::new(Caller::new("viewer", "eve"), Action::Cordon, subject)
    }

    #[test]
    fn the_same_is_joined_and_too_many_are_counted() {
        let (refusals, mut waiting) = Refusals::new();
        for n in 0..REFUSALS + 5 {
            let subject = if n % 2 == 0 { "a" } else { "b" };
            refusals.put(act(subject), &refuse(Reason::NotPermitted, "no"));
        }
        refusals.put(act("c"), &refuse_not_leader(None));
        let all: Vec<_> = std::iter::from_fn(|| waiting.taken.try_recv().ok()).collect();
        let counts: Vec<_> =
            joined(all.into_iter()).into_iter().map(|one| (one.act.subject, one.count)).collect();
        assert_eq!(counts, [("a".to_owned(), 128), ("b".to_owned(), 128)]);
        assert_eq!(waiting.others.load(Ordering::Relaxed), 5);
    }
}
