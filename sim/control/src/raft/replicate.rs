//! Entries go to the followers; a majority commits them.

use super::{Entry, Message, Role};
use crate::world::World;

impl World {
    /// A leader appends an entry; gives the number of entries up to and with it.
    pub fn write(&mut self, node: usize, entry: Entry) -> usize {
        self.nodes[node].log.push(entry);
        let count = self.nodes[node].log.len();
        self.store(node, None);
        self.replicate(node);
        count
    }

    /// A leader tells every follower what it lacks.
    pub fn replicate(&mut self, node: usize) {
        let Some(leader) = self.nodes[node].leader() else { return };
        let (term, round) = (leader.term, leader.round);
        let next: Vec<(usize, usize)> =
            leader.followers.next.iter().map(|(&other, &next)| (other, next)).collect();
        for (other, next) in next {
            let state = &self.nodes[node];
            let next = next.min(state.log.len());
            let message = Message::Append {
                term,
                after: (next, state.term_at(next)),
                entries: state.log[next..].to_vec(),
                commit: state.commit,
                round,
            };
            self.post(node, other, message);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "they are the fields of one message")]
    pub(super) fn append(
        &mut self,
        node: usize,
        from: usize,
        term: u64,
        (count, count_term): (usize, u64),
        entries: Vec<Entry>,
        commit: usize,
        round: u64,
    ) {
        let now = self.clock.now;
        let state = &mut self.nodes[node];
        if term < state.term {
            let term = state.term;
            let upto = Err(0);
            return self.post(node, from, Message::Appended { term, upto, round });
        }
        state.role = Role::Follower;
        state.heard_at = now;
        state.follows = Some(from);
        if state.log.len() < count || state.term_at(count) != count_term {
            let upto = Err(state.log.len().min(count.saturating_sub(1)).min(state.commit));
            return self.post(node, from, Message::Appended { term, upto, round });
        }
        let upto = count + entries.len();
        for (offset, entry) in entries.into_iter().enumerate() {
            let at = count + offset;
            if state.log.get(at).is_some_and(|known| known.term == entry.term) {
                continue;
            }
            state.log.truncate(at);
            state.stored = state.stored.min(at);
            state.log.push(entry);
        }
        state.commit = state.commit.max(commit.min(upto));
        if state.stored >= upto {
            self.post(node, from, Message::Appended { term, upto: Ok(upto), round });
        } else {
            // That it follows is said at once, that it has the entries only when it has them.
            let on_disk = Ok(state.stored.min(count));
            self.post(node, from, Message::Appended { term, upto: on_disk, round });
            self.store(node, Some(from));
        }
    }

    pub(super) fn appended(
        &mut self,
        node: usize,
        from: usize,
        term: u64,
        upto: Result<usize, usize>,
        round: u64,
    ) {
        let Some(leader) = self.nodes[node].leader_mut().filter(|leader| leader.term == term)
        else {
            return;
        };
        let seen = leader.followers.round.entry(from).or_default();
        *seen = round.max(*seen);
        match upto {
            Ok(upto) => {
                let matched = leader.followers.matched.entry(from).or_default();
                *matched = upto.max(*matched);
                let next = leader.followers.next.entry(from).or_default();
                *next = (*next).max(*matched);
            }
            Err(next) => {
                leader.followers.next.insert(from, next);
            }
        }
        self.advance_commit(node);
    }

    /// Commits what a majority has on disk.
    pub(super) fn advance_commit(&mut self, node: usize) {
        let majority = self.majority();
        let state = &self.nodes[node];
        let Some(leader) = state.leader() else { return };
        let mut counts: Vec<usize> = leader.followers.matched.values().copied().collect();
        counts.push(state.stored);
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let reached = counts.get(majority - 1).copied().unwrap_or(0);
        // Entries of earlier terms are committed by the first of the own.
        if reached > state.commit && state.term_at(reached) == leader.term {
            self.nodes[node].commit = reached;
            self.learn_commits(node);
        }
        self.leader_goes_on(node);
    }
}
