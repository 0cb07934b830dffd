//! Which coordinator leads, as far as this one knows, and whether it is this one.

use std::time::Duration;

use openraft::ServerState;
use thiserror::Error;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::raft::Metrics;

/// How long a request waits for an election to end.
const ELECTION: Duration = Duration::from_secs(4);
/// A leader that no quorum answered for so long leads no more: by then the others may have another. A
/// client is better off there. What it may still say does not depend on this: see [`crate::leadership`].
const QUORUM_SILENCE_MS: u64 = 2500;

/// This coordinator cannot answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Away {
    /// This coordinator is going down.
    #[error("the coordinator is going down")]
    ShuttingDown,
    /// This coordinator does not lead.
    #[error("this coordinator does not lead")]
    NotLeader {
        /// Where the leader is reached, if that is known.
        leader: Option<String>,
    },
}

/// Whether this coordinator leads: it is the leader, in this term, and hears from a quorum.
pub fn leads(metrics: &Metrics) -> bool {
    metrics.running_state.is_ok()
        && metrics.state == ServerState::Leader
        && metrics.millis_since_quorum_ack.is_some_and(|ms| ms < QUORUM_SILENCE_MS)
}

/// The address of another coordinator that leads.
pub fn leader_elsewhere(metrics: &Metrics) -> Option<String> {
    let leader = metrics.current_leader.filter(|&leader| leader != metrics.id)?;
    let node = metrics.membership_config.membership().get_node(&leader)?;
    Some(node.addr.clone())
}

/// Lets agents and clients in while this coordinator leads.
#[derive(Clone)]
pub struct LeaderGate {
    metrics: watch::Receiver<Metrics>,
    /// The fleet runs here.
    open: watch::Receiver<bool>,
    shutdown: CancellationToken,
}

impl LeaderGate {
    pub fn new(
        metrics: watch::Receiver<Metrics>,
        open: watch::Receiver<bool>,
        shutdown: CancellationToken,
    ) -> Self {
        Self { metrics, open, shutdown }
    }

    /// Returns when the fleet runs here; not before an election under way has ended. Cancel safe.
    ///
    /// # Errors
    /// If the fleet runs elsewhere, or nowhere for too long.
    pub async fn admit(&self) -> Result<(), Away> {
        let (mut metrics, mut open) = (self.metrics.clone(), self.open.clone());
        let decided = async {
            loop {
                if *open.borrow_and_update() {
                    return Ok(());
                }
                let leader = leader_elsewhere(&metrics.borrow_and_update());
                if leader.is_some() {
                    return Err(Away::NotLeader { leader });
                }
                tokio::select! {
                    Ok(()) = open.changed() => {}
                    Ok(()) = metrics.changed() => {}
                    else => return Err(Away::ShuttingDown),
                }
            }
        };
        tokio::select! {
            admitted = decided => admitted,
            () = sleep(ELECTION) => Err(Away::NotLeader { leader: None }),
            () = self.shutdown.cancelled() => Err(Away::ShuttingDown),
        }
    }

    /// Why a request got no answer.
    pub fn away(&self) -> Away {
        if self.shutdown.is_cancelled() {
            return Away::ShuttingDown;
        }
        Away::NotLeader { leader: leader_elsewhere(&self.metrics.borrow()) }
    }
}
