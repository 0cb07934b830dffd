//! What leaves a leader: nothing before the write it depends on is committed.

use std::rc::Rc;

use rackferry_fleet::{Gate, Order, Outputs};

use crate::clock::SECOND;
use crate::net::Frame;
use crate::operator::{CallId, Reply};
use crate::raft::Entry;
use crate::world::{Happening, World};

/// A leader whose write is not committed by then gives up.
const WRITE_TIMEOUT: u64 = 3 * SECOND;

/// What lets the outputs of a turn out.
enum Passed {
    Open,
    Written(usize),
    Confirmed(u64),
}

/// A turn that was decided and waits.
pub(super) struct Until {
    /// Entries committed on any node when it was decided, and those this node knew of.
    knew: (usize, usize),
    gate: Passed,
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
    /// Brings about what the turn that was decided waits for.
    pub(super) fn wait_for(&mut self, node: usize, knew: (usize, usize), gate: Gate) {
        let Some(leader) = self.nodes[node].leader_mut() else { return };
        let term = leader.term;
        leader.decisions += 1;
        let what = Happening::Overdue(node, term, leader.decisions);
        match gate {
            Gate::Open => leader.until = Some(Until { knew, gate: Passed::Open }),
            Gate::Barrier => {
                leader.round += 1;
                leader.until = Some(Until { knew, gate: Passed::Confirmed(leader.round) });
                self.replicate(node);
            }
            Gate::Write(changes) => {
                let count = self.nodes[node].log.len() + 1;
                let Some(leader) = self.nodes[node].leader_mut() else { return };
                leader.until = Some(Until { knew, gate: Passed::Written(count) });
                self.write(node, Entry { term, changes: Rc::new(changes) });
            }
        }
        self.clock.after(WRITE_TIMEOUT, what);
    }

    /// A leader gives up if its latest turn still waits.
    pub fn overdue(&mut self, node: usize, term: u64, decisions: u64) {
        let Some(leader) = self.nodes[node].leader() else { return };
        if leader.term == term && leader.decisions == decisions && leader.until.is_some() {
            self.step_down(node, "no majority acknowledges its writes");
        }
    }

    /// Whatever a leader waited for may have come.
    pub fn leader_goes_on(&mut self, node: usize) {
        self.open_fleet(node);
        let majority = self.majority();
        let commit = self.nodes[node].commit;
        let Some(leader) = self.nodes[node].leader_mut() else { return };
        let passed = match leader.until.as_ref().map(|until| &until.gate) {
            None => false,
            Some(Passed::Open) => true,
            Some(Passed::Written(count)) => commit >= *count,
            Some(Passed::Confirmed(round)) => {
                let heard = leader.followers.round.values().filter(|seen| *seen >= round).count();
                heard + 1 >= majority
            }
        };
        if passed
            && let Some(Until { knew, .. }) = leader.until.take()
            && let Some(turns) = &mut leader.turns
        {
            let outputs = turns.release();
            self.let_out(node, knew, outputs);
        }
        self.plan_turn(node);
    }

    pub(super) fn let_out(
        &mut self,
        node: usize,
        knew: (usize, usize),
        outputs: Outputs<(CallId, Reply)>,
    ) {
        for (connection, order) in outputs.orders {
            let leader = self.nodes[node].leader();
            let Some(id) = leader.and_then(|leader| leader.links.get(&connection).copied()) else {
                continue;
            };
            if bears_on_ownership(&order) {
                self.watch_order_leaving(node, knew, &order);
            }
            self.send(id, 1, Frame::Order(Box::new(order)));
        }
        for (call, reply) in outputs.answers {
            self.answer(call, reply);
        }
    }
}
