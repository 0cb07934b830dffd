//! What is committed, for an observer that sees every node.

use std::collections::BTreeMap;

use rackferry_fleet::{Change, Key, Record};

use crate::raft::Entry;
use crate::world::World;

/// The committed log and what it adds up to.
#[derive(Debug, Default)]
pub struct Truth {
    /// The terms of its entries.
    pub terms: Vec<u64>,
    /// Its records.
    pub records: BTreeMap<Key, Record>,
}

impl World {
    /// A leader has learnt that entries are committed.
    pub fn learn_commits(&mut self, node: usize) {
        let commit = self.nodes[node].commit;
        for index in self.truth.terms.len()..commit {
            let entry = self.nodes[node].log[index].clone();
            self.enact(&entry);
        }
        // One that was deposed may learn late of what it wrote, never of anything else.
        let last = self.nodes[node].log[..commit].last().map(|entry| entry.term);
        if commit.checked_sub(1).map(|last| self.truth.terms[last]) != last {
            self.violated("the log", format!("c{node} has other committed entries than there are"));
        }
    }

    /// What the entries add up to that a node knows to be committed.
    pub fn records_of(&self, node: usize) -> BTreeMap<Key, Record> {
        let state = &self.nodes[node];
        let mut records = BTreeMap::new();
        for change in state.log[..state.commit].iter().flat_map(|entry| entry.changes.iter()) {
            apply(&mut records, change);
        }
        records
    }

    fn enact(&mut self, entry: &Entry) {
        self.truth.terms.push(entry.term);
        for change in entry.changes.iter() {
            self.watch_change(change);
            apply(&mut self.truth.records, change);
        }
        self.truth_changed = true;
    }
}

fn apply(records: &mut BTreeMap<Key, Record>, change: &Change) {
    match change {
        Change::Put(record) => {
            records.insert(record.key(), record.clone());
        }
        Change::Remove(key) => {
            records.remove(key);
        }
    }
}
