//! What leaves a leader: nothing before the write it depends on is committed.

use std::rc::Rc;

use rackferry_fleet::{Change, Connection, Order};

use crate::Bug;
use crate::clock::SECOND;
use crate::net::Frame;
use crate::operator::{CallId, Reply};
use crate::raft::Entry;
use crate::world::{Happening, World};

/// A leader whose write is not committed by then gives up.
const WRITE_PATIENCE: u64 = 3 * SECOND;

pub(super) enum Until {
    Written(usize),
    Confirmed(u64),
}

/// What leaves together.
pub(super) struct Batch {
    sends: Vec<(Connection, Order)>,
    answers: Vec<(CallId, Reply)>,
    until: Until,
    /// Entries committed by anybody when it was decided, and those this node knew of.
    knew: (usize, usize),
}

/// Does an order change what may run where?
fn bears_on_ownership(order: &Order) -> bool {
    matches!(
        order,
        Order::CommitDecision { .. }
            | Order::ResumeTarget(..)
            | Order::DiscardTarget(..)
            | Order::ReleaseSource { .. }
    )
}

impl World {
    pub(super) fn dispatch_batch(
        &mut self,
        node: usize,
        knew: (usize, usize),
        changes: Vec<Change>,
        sends: Vec<(Connection, Order)>,
        answers: Vec<(CallId, Reply)>,
    ) {
        let Some(leader) = self.nodes[node].leader_mut() else { return };
        let term = leader.term;
        let bears = sends.iter().any(|(_, order)| bears_on_ownership(order));
        let early = self.bug == Some(Bug::SaysBeforeDurable);
        let barrier = bears && self.bug != Some(Bug::NoBarrier);
        let batch = |until| Batch { sends, answers, until, knew };
        if changes.is_empty() {
            leader.round += 1;
            let round = if barrier { leader.round } else { 0 };
            leader.batch = Some(batch(Until::Confirmed(round)));
            if barrier {
                self.replicate(node);
            }
        } else {
            let count = self.nodes[node].log.len() + 1;
            let entry = Entry { term, changes: Rc::new(changes) };
            let until = if early { Until::Confirmed(0) } else { Until::Written(count) };
            let Some(leader) = self.nodes[node].leader_mut() else { return };
            leader.batch = Some(batch(until));
            self.write(node, entry);
        }
        let Some(leader) = self.nodes[node].leader_mut() else { return };
        leader.batches += 1;
        let what = Happening::Overdue(node, term, leader.batches);
        if leader.batch.is_some() {
            self.clock.after(WRITE_PATIENCE, what);
        }
        self.leader_goes_on(node);
    }

    /// A leader gives up if its latest batch still waits.
    pub fn overdue(&mut self, node: usize, term: u64, batches: u64) {
        let Some(leader) = self.nodes[node].leader() else { return };
        if leader.term == term && leader.batches == batches && leader.batch.is_some() {
            self.step_down(node, "nobody acknowledges its writes");
        }
    }

    /// Whatever a leader waited for may have come.
    pub fn leader_goes_on(&mut self, node: usize) {
        self.open_fleet(node);
        let majority = self.majority();
        let commit = self.nodes[node].commit;
        let Some(leader) = self.nodes[node].leader_mut() else { return };
        let ready = match leader.batch.as_ref().map(|batch| &batch.until) {
            None => false,
            Some(Until::Written(count)) => commit >= *count,
            Some(Until::Confirmed(round)) => {
                let heard = leader.followers.round.values().filter(|seen| *seen >= round).count();
                *round == 0 || heard + 1 >= majority
            }
        };
        if ready && let Some(batch) = leader.batch.take() {
            self.let_out(node, batch);
        }
        self.plan_turn(node);
    }

    fn let_out(&mut self, node: usize, batch: Batch) {
        let Batch { sends, answers, knew, .. } = batch;
        for (connection, order) in sends {
            let leader = self.nodes[node].leader();
            let Some(id) = leader.and_then(|leader| leader.links.get(&connection).copied()) else {
                continue;
            };
            if bears_on_ownership(&order) {
                self.watch_order_leaving(node, knew, &order);
            }
            self.send(id, 1, Frame::Order(Box::new(order)));
        }
        for (call, reply) in answers {
            self.answer(call, reply);
        }
    }
}
