//! What is committed, as one sees it who sees everything.

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
        let last = self.nodes[node].log[..commit].last().map(|entry| entry.term);
        let known = self.truth.terms.len();
        if known != commit || self.truth.terms.last().copied() != last {
            let why = format!("c{node} knows {commit} committed entries, there are {known}");
            self.violated("the log", why);
        }
    }

    fn enact(&mut self, entry: &Entry) {
        self.truth.terms.push(entry.term);
        for change in entry.changes.iter() {
            self.watch_change(change);
            match change {
                Change::Put(record) => {
                    self.truth.records.insert(record.key(), record.clone());
                }
                Change::Remove(key) => {
                    self.truth.records.remove(key);
                }
            }
        }
        self.truth_changed = true;
    }
}
