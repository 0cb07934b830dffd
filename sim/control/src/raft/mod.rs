//! The replicated log: terms, votes, entries, majorities, each node with a disk of its own.
//!
//! As much of Raft as the fleet depends on: at most one leader a term, an entry is committed once a majority has it
//! on disk, a new leader has every committed entry, and a node that was deposed finds out by a message of a
//! later term, or because no majority acknowledges its writes. No snapshots, no change of members.

mod disk;
mod elect;
mod replicate;

use std::collections::BTreeMap;
use std::rc::Rc;

use rackferry_fleet::Change;

use crate::leader::Leader;
use crate::world::{Happening, World};

/// A leader is heard of at least this often.
pub const BEAT: u64 = 250 * crate::clock::MS;

/// One write.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Of the leader that made it.
    pub term: u64,
    /// Empty for the first entry of a term.
    pub changes: Rc<Vec<Change>>,
}

/// What a node is at the moment.
pub enum Role {
    /// It follows the leader.
    Follower,
    /// It wants to lead; these voted for it.
    Candidate(Vec<usize>),
    /// It leads, as far as it knows.
    Leader(Box<Leader>),
}

/// A coordinator process and its disk.
pub struct Node {
    /// The process lives.
    pub up: bool,
    /// Which start of the process this is.
    pub life: u64,
    /// On disk: the latest term it has heard of.
    pub term: u64,
    /// On disk: the node it voted for in that term.
    pub voted: Option<usize>,
    /// Entries; the first `stored` are on disk.
    pub log: Vec<Entry>,
    /// Entries on disk.
    pub stored: usize,
    /// Entries known to be committed.
    pub commit: usize,
    /// What it is.
    pub role: Role,
    /// When it last heard of a leader.
    pub heard_at: u64,
    /// That leader.
    pub follows: Option<usize>,
    /// Its disk takes this long at most for a write.
    pub disk_ns: u64,
    /// Its disk is full until then.
    pub full: bool,
    /// Its disk is busy until then.
    pub busy_until: u64,
}

/// What nodes tell each other.
#[derive(Clone, Debug)]
pub enum Message {
    /// Vote for me.
    Ask {
        /// Of the candidate.
        term: u64,
        /// Term of its last entry, and how many it has.
        last: (u64, usize),
    },
    /// The answer.
    Vote {
        /// Of the voter.
        term: u64,
        /// Yes.
        granted: bool,
    },
    /// I lead, and here is what you lack.
    Append {
        /// Of the leader.
        term: u64,
        /// How many entries come before these, and the term of the last of them.
        after: (usize, u64),
        /// Those.
        entries: Vec<Entry>,
        /// Of the leader.
        commit: usize,
        /// Number of the leader's latest question whether it still leads; the answer repeats it.
        round: u64,
    },
    /// The answer.
    Appended {
        /// Of the follower.
        term: u64,
        /// As many entries are the leader's, and on disk; or so many to try next.
        upto: Result<usize, usize>,
        /// As asked.
        round: u64,
    },
}

impl Message {
    fn term(&self) -> u64 {
        match *self {
            Self::Ask { term, .. }
            | Self::Vote { term, .. }
            | Self::Append { term, .. }
            | Self::Appended { term, .. } => term,
        }
    }
}

/// What a leader knows of its followers.
#[derive(Debug, Default)]
pub struct Followers {
    /// Entries to send next.
    pub next: BTreeMap<usize, usize>,
    /// Entries known to be on their disks.
    pub matched: BTreeMap<usize, usize>,
    /// The latest round they answered.
    pub round: BTreeMap<usize, u64>,
}

impl Default for Node {
    /// A node with an empty disk.
    fn default() -> Self {
        Self {
            up: true,
            life: 1,
            term: 0,
            voted: None,
            log: Vec::new(),
            stored: 0,
            commit: 0,
            role: Role::Follower,
            heard_at: 0,
            follows: None,
            disk_ns: 4 * crate::clock::MS,
            full: false,
            busy_until: 0,
        }
    }
}

impl Node {
    /// Its leadership, if it believes in one.
    pub fn leader(&self) -> Option<&Leader> {
        match &self.role {
            Role::Leader(leader) if self.up => Some(leader),
            _ => None,
        }
    }

    /// The same, to change it.
    pub fn leader_mut(&mut self) -> Option<&mut Leader> {
        match &mut self.role {
            Role::Leader(leader) if self.up => Some(leader),
            _ => None,
        }
    }

    fn last(&self) -> (u64, usize) {
        (self.log.last().map_or(0, |entry| entry.term), self.log.len())
    }

    fn term_at(&self, count: usize) -> u64 {
        count.checked_sub(1).and_then(|last| self.log.get(last)).map_or(0, |entry| entry.term)
    }
}

impl World {
    /// Nodes that make a majority.
    pub fn majority(&self) -> usize {
        self.nodes.len() / 2 + 1
    }

    fn post(&mut self, from: usize, to: usize, message: Message) {
        if self.net.is_cut(from, to) || self.dice.chance(self.lossy()) {
            return;
        }
        let pause = self.delay(from, to);
        if self.dice.chance(self.lossy()) {
            let again = self.delay(from, to);
            self.clock.after(again, Happening::Raft(to, from, message.clone()));
        }
        self.clock.after(pause, Happening::Raft(to, from, message));
    }

    fn lossy(&self) -> u64 {
        if self.healing { 0 } else { self.plan.datagram_loss }
    }

    /// A message of another node.
    pub fn raft(&mut self, to: usize, from: usize, message: Message) {
        if !self.nodes[to].up || self.net.is_cut(from, to) {
            return;
        }
        if message.term() > self.nodes[to].term {
            if self.nodes[to].full && !matches!(message, Message::Appended { .. }) {
                // Its promise could not be written down.
                return self.disk_full(to);
            }
            self.nodes[to].term = message.term();
            self.nodes[to].voted = None;
            self.step_down(to, "of a later term");
        }
        match message {
            Message::Ask { term, last } => self.asked_for_vote(to, from, term, last),
            Message::Vote { term, granted } => self.voted(to, from, term, granted),
            Message::Append { term, after, entries, commit, round } => {
                self.append(to, from, term, after, entries, commit, round);
            }
            Message::Appended { term, upto, round } => self.appended(to, from, term, upto, round),
        }
    }

    /// It leads no more: its fleet is dropped, and its agents' streams close.
    pub fn step_down(&mut self, node: usize, why: &str) {
        if matches!(std::mem::replace(&mut self.nodes[node].role, Role::Follower), Role::Leader(_))
        {
            self.trace.say(self.clock.now, || format!("c{node} is deposed: {why}"));
            self.coverage.deposed += 1;
            self.nodes[node].heard_at = self.clock.now;
            self.close_streams(node);
        }
    }
}
