//! The log as its leader uses it, in one term.

use anyhow::Context;
use openraft::{
    BasicNode, ChangeMembers,
    error::{ClientWriteError, Fatal, RaftError},
};
use rackferry_fleet::Change;
use tokio::sync::watch;

use crate::{
    gate::leads,
    raft::{Command, Metrics, Network, Node, NodeId, Raft, command::EVENTS, state::Verdict},
};

/// The reason for which a leadership ended.
pub enum Vacated {
    /// There is another leader, or no quorum.
    Lost(&'static str),
    /// This coordinator cannot go on.
    Failed(anyhow::Error),
}

/// The log, for as long as this coordinator leads in one term.
pub struct Term {
    id: NodeId,
    raft: Raft,
    network: Network,
    metrics: watch::Receiver<Metrics>,
    term: u64,
}

impl Term {
    pub fn new(node: &Node, term: u64) -> Self {
        let (id, raft, network) = (node.id, node.raft.clone(), node.network.clone());
        Self { id, metrics: raft.metrics(), raft, network, term }
    }

    /// Returns when the leadership is lost. Cancel safe.
    pub async fn lost(&mut self) -> Vacated {
        let term = self.term;
        let lost = self.metrics.wait_for(|seen| seen.current_term != term || !leads(seen)).await;
        match lost {
            Err(_) => Vacated::Lost("the log has ended"),
            Ok(seen) => match &seen.running_state {
                Err(fatal) => Vacated::Failed(anyhow::Error::new(fatal.clone())),
                Ok(()) if seen.current_leader == Some(seen.id) => Vacated::Lost("no quorum"),
                Ok(()) => Vacated::Lost("another leader"),
            },
        }
    }

    /// Commits and applies. Not cancel safe: it may be committed or not.
    ///
    /// # Errors
    /// If the leadership is lost, or the log failed.
    pub async fn write(&mut self, command: Command) -> Result<(), Vacated> {
        let raft = self.raft.clone();
        tokio::select! {
            biased;
            written = raft.client_write(command) => match written {
                Ok(written) if written.log_id.leader_id.term != self.term => {
                    Err(Vacated::Lost("a later term"))
                }
                Ok(written) if written.data == Verdict::Void => {
                    Err(Vacated::Lost("another leader began between the parts of a write"))
                }
                Ok(_) => Ok(()),
                Err(RaftError::Fatal(fatal)) => Err(failed(fatal)),
                Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => {
                    Err(Vacated::Lost("another leader"))
                }
                Err(RaftError::APIError(_)) => Err(Vacated::Lost("a write was refused")),
            },
            lost = self.lost() => Err(lost),
        }
    }

    /// Commits and applies what a turn changed. Not cancel safe: it may be committed or not.
    ///
    /// # Errors
    /// If the leadership is lost, or the log failed.
    pub async fn change(&mut self, changes: Vec<Change>) -> Result<(), Vacated> {
        let writes = Command::writes(self.term, changes, self.read_by_all());
        let writes = writes.context("the records of a turn").map_err(Vacated::Failed)?;
        for write in writes {
            self.write(write).await?;
        }
        Ok(())
    }

    /// Whether every member has said that it reads records of events.
    pub fn reads_events(&self) -> bool {
        self.read_by_all() >= EVENTS
    }

    /// The latest version of an entry that every member reads.
    fn read_by_all(&self) -> u32 {
        let seen = self.metrics.borrow();
        let others = seen.membership_config.membership().nodes().filter(|(id, _)| **id != self.id);
        self.network.read_by_all(others.map(|(_, node)| node.addr.as_str()))
    }

    /// Asks a quorum whether this is still its leader. Cancel safe.
    ///
    /// # Errors
    /// If the leadership is lost, or the log failed.
    pub async fn confirm(&mut self) -> Result<(), Vacated> {
        let raft = self.raft.clone();
        loop {
            tokio::select! {
                biased;
                confirmed = ask_quorum(&raft) => match confirmed {
                    Ok(Some(_)) => return Ok(()),
                    Ok(None) => {}
                    Err(fatal) => return Err(failed(fatal)),
                },
                lost = self.lost() => return Err(lost),
            }
            tokio::task::yield_now().await;
        }
    }

    /// Tells the others where this coordinator is reached now, if its settings have changed.
    ///
    /// # Errors
    /// If the leadership is lost, or the log failed.
    pub async fn settle_address(&mut self, id: NodeId, addr: &str) -> Result<(), Vacated> {
        let known = self.metrics.borrow().membership_config.membership().get_node(&id).cloned();
        if known.is_none_or(|node| node.addr == addr) {
            return Ok(());
        }
        let nodes = [(id, BasicNode::new(addr))].into_iter().collect();
        let raft = self.raft.clone();
        tokio::select! {
            changed = raft.change_membership(ChangeMembers::SetNodes(nodes), true) => match changed {
                Err(RaftError::Fatal(fatal)) => Err(failed(fatal)),
                // Another change is under way; the next leader settles it.
                Ok(_) | Err(RaftError::APIError(_)) => Ok(()),
            },
            lost = self.lost() => Err(lost),
        }
    }
}

/// Asks a quorum once whether it follows this coordinator: the term in which it does. None if too few answered in time;
/// either they do so next time, or the quorum is lost. Cancel safe.
///
/// # Errors
/// If the log failed.
pub async fn ask_quorum(raft: &Raft) -> Result<Option<u64>, Fatal<NodeId>> {
    match raft.ensure_linearizable().await {
        // At least the entry with which the leader's term began: it has the leader's term.
        Ok(read) => Ok(read.map(|read| read.leader_id.term)),
        Err(RaftError::Fatal(fatal)) => Err(fatal),
        Err(RaftError::APIError(_)) => Ok(None),
    }
}

fn failed(fatal: Fatal<NodeId>) -> Vacated {
    Vacated::Failed(anyhow::Error::new(fatal))
}
