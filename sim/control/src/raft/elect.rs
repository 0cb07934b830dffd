//! The election of a leader.

use std::rc::Rc;

use super::{BEAT, Entry, Followers, Message, Role};
use crate::clock::{MS, SECOND};
use crate::leader::Leader;
use crate::world::{Happening, World};

impl World {
    /// Looks whether a node has heard of a leader lately; if not it wants to lead.
    pub fn election_timer(&mut self, node: usize, life: u64) {
        let (now, alone) = (self.clock.now, self.nodes.len() == 1);
        let pause = self.dice.between(900, 1800) * MS;
        let state = &self.nodes[node];
        if !state.up || state.life != life {
            return;
        }
        self.clock.after(pause, Happening::ElectionTimer(node, life));
        let state = &self.nodes[node];
        let calm = now.saturating_sub(state.heard_at) < SECOND && !alone;
        if calm || matches!(state.role, Role::Leader(_)) {
            return;
        }
        if state.full {
            return self.disk_full(node);
        }
        let state = &mut self.nodes[node];
        state.term += 1;
        state.voted = Some(node);
        state.role = Role::Candidate(vec![node]);
        let message = Message::Ask { term: state.term, last: state.last() };
        for other in (0..self.nodes.len()).filter(|&other| other != node) {
            self.post(node, other, message.clone());
        }
        self.count_votes(node);
    }

    pub(super) fn asked_for_vote(
        &mut self,
        node: usize,
        from: usize,
        term: u64,
        last: (u64, usize),
    ) {
        let state = &mut self.nodes[node];
        let free = state.voted.is_none_or(|voted| voted == from);
        let granted = term == state.term && free && last >= state.last();
        if granted {
            if state.full {
                return self.disk_full(node);
            }
            state.voted = Some(from);
            state.heard_at = self.clock.now;
        }
        let term = state.term;
        self.post(node, from, Message::Vote { term, granted });
    }

    pub(super) fn voted(&mut self, node: usize, from: usize, term: u64, granted: bool) {
        let state = &mut self.nodes[node];
        if let Role::Candidate(votes) = &mut state.role
            && granted
            && term == state.term
            && !votes.contains(&from)
        {
            votes.push(from);
            self.count_votes(node);
        }
    }

    fn count_votes(&mut self, node: usize) {
        let majority = self.majority();
        let state = &mut self.nodes[node];
        let Role::Candidate(votes) = &state.role else { return };
        if votes.len() < majority {
            return;
        }
        let (term, next) = (state.term, state.log.len());
        let mut followers = Followers::default();
        for other in (0..self.nodes.len()).filter(|&other| other != node) {
            followers.next.insert(other, next);
        }
        let state = &mut self.nodes[node];
        state.role = Role::Leader(Box::new(Leader::new(term, followers)));
        state.follows = Some(node);
        self.trace.say(self.clock.now, || format!("c{node} leads in term {term}"));
        self.coverage.elections += 1;
        // Commits whatever earlier leaders left: only then is it known what is committed.
        self.write(node, Entry { term, changes: Rc::default() });
        self.clock.after(BEAT, Happening::Beat(node, term));
        self.clock.after(SECOND, Happening::Tick(node, term));
    }

    /// A leader is heard of.
    pub fn beat(&mut self, node: usize, term: u64) {
        if self.nodes[node].leader().is_some_and(|leader| leader.term == term) {
            self.replicate(node);
            self.clock.after(BEAT, Happening::Beat(node, term));
        }
    }
}
