//! Disks of coordinators: slow, full, and what a crash leaves on them.

use super::{Message, Role};
use crate::clock::{MS, SECOND};
use crate::world::{Happening, World};

impl World {
    /// Writes what a node has in memory to its disk, for the leader it tells then.
    pub(super) fn store(&mut self, node: usize, leader: Option<usize>) {
        if self.nodes[node].full {
            return self.disk_full(node);
        }
        let pause = self.dice.between(MS / 10, self.nodes[node].disk_ns);
        let state = &mut self.nodes[node];
        let start = state.busy_until.max(self.clock.now);
        state.busy_until = start + pause;
        let count = state.log.len();
        let leader = leader.map(|leader| (leader, state.term));
        let what =
            Happening::Stored { node, life: state.life, count, term: state.last().0, leader };
        let pause = state.busy_until - self.clock.now;
        self.clock.after(pause, what);
    }

    /// A write has reached the disk.
    pub fn stored(
        &mut self,
        node: usize,
        life: u64,
        count: usize,
        term: u64,
        leader: Option<(usize, u64)>,
    ) {
        let state = &mut self.nodes[node];
        // Entries that were replaced meanwhile are not what was asked to be written.
        if !state.up
            || state.life != life
            || state.term_at(count) != term
            || state.log.len() < count
        {
            return;
        }
        state.stored = state.stored.max(count);
        match leader {
            // Only to the leader it was written for, in that term.
            Some((leader, of)) if state.follows == Some(leader) && state.term == of => {
                let (term, upto) = (state.term, Ok(count));
                self.post(node, leader, Message::Appended { term, upto, round: 0 });
            }
            Some(_) => {}
            None => self.advance_commit(node),
        }
    }

    /// A node that cannot write stops: what it says next might not be durable.
    pub fn disk_full(&mut self, node: usize) {
        self.trace.say(self.clock.now, || format!("c{node} cannot write"));
        self.kill_node(node);
        let pause = self.dice.between(1, 4) * SECOND;
        self.clock.after(pause, Happening::StartNode(node));
    }

    /// The process is killed; some of what was being written is on disk.
    pub fn kill_node(&mut self, node: usize) {
        if !std::mem::replace(&mut self.nodes[node].up, false) {
            return;
        }
        self.trace.say(self.clock.now, || format!("c{node} dies"));
        let state = &mut self.nodes[node];
        let unsure = (state.log.len() - state.stored) as u64;
        let more = self.dice.between(0, unsure) as usize;
        state.stored += more;
        state.log.truncate(state.stored);
        state.role = Role::Follower;
        state.commit = 0;
        self.close_all(node);
    }

    /// The process starts again from its disk.
    pub fn start_node(&mut self, node: usize) {
        let state = &mut self.nodes[node];
        if state.up {
            return;
        }
        state.up = true;
        state.life += 1;
        state.heard_at = self.clock.now;
        state.busy_until = 0;
        state.follows = None;
        let life = state.life;
        self.trace.say(self.clock.now, || format!("c{node} starts"));
        let pause = self.dice.between(100, 900) * MS;
        self.clock.after(pause, Happening::ElectionTimer(node, life));
    }
}
