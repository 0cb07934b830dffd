//! The replicated state: every record by its key.
//!
//! It lives in memory. What was applied is never flushed by itself: a start rebuilds it from the snapshot
//! and the entries after it, which are durable.

use std::{
    collections::BTreeMap,
    io::Cursor,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, StorageError, StorageIOError,
    storage::RaftStateMachine,
};
use rackferry_fleet::{Change, ExpelledRecord, Key, Record};
use serde::{Deserialize, Serialize};

use super::{
    Command, Entry, LogId, Membership, NodeId, SnapshotMeta, Types,
    snapshot::{Contents, SnapshotError, SnapshotStore},
    staged::Staged,
};
use crate::key::DomainKey;

/// What a command came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It counts, or will with the last of its parts.
    #[default]
    Counts,
    /// It says nothing: another leader began before it.
    Void,
}

#[derive(Clone, Debug, Default)]
struct State {
    last_applied: Option<LogId>,
    membership: Membership,
    domain_key: Option<DomainKey>,
    records: BTreeMap<Key, Record>,
    /// Parts whose last is not yet applied.
    staged: Option<Staged>,
}

impl State {
    fn from_snapshot(meta: &SnapshotMeta, data: &[u8]) -> Result<Self, SnapshotError> {
        let Contents { domain_key, records, staged, .. } = Contents::decode(data)?;
        Ok(Self {
            last_applied: meta.last_log_id,
            membership: meta.last_membership.clone(),
            domain_key,
            records: records.into_iter().map(|record| (record.key(), record)).collect(),
            staged,
        })
    }

    fn apply(&mut self, entry: Entry) -> Verdict {
        self.last_applied = Some(entry.log_id);
        let now = entry.log_id.leader_id.term;
        match entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Membership(membership) => {
                self.membership = Membership::new(Some(entry.log_id), membership);
            }
            EntryPayload::Normal(Command::TakeOffice { domain_key, .. }) => {
                self.staged = None;
                // The first key stays: digests of two keys never match.
                self.domain_key = self.domain_key.take().or(domain_key);
            }
            EntryPayload::Normal(Command::Write { term, changes }) if term == now => {
                self.change_all(changes);
            }
            EntryPayload::Normal(Command::Part { term, number, last, changes }) if term == now => {
                let Some(staged) = Staged::take_up(self.staged.take(), term, number, changes)
                else {
                    return Verdict::Void;
                };
                if last {
                    self.change_all(staged.into_changes());
                } else {
                    self.staged = Some(staged);
                }
            }
            EntryPayload::Normal(Command::Write { .. } | Command::Part { .. }) => {
                return Verdict::Void;
            }
        }
        Verdict::Counts
    }

    fn change_all(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            self.change(change);
        }
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Put(record) => {
                self.records.insert(record.key(), record);
            }
            Change::Remove(key) => {
                self.records.remove(&key);
            }
        }
    }
}

/// What is kept of the state in a backup.
pub struct Kept {
    /// The last entry that is in it.
    pub last: Option<LogId>,
    /// The key of the dedup domain.
    pub domain_key: Option<DomainKey>,
    /// Every record.
    pub records: Vec<Record>,
}

/// What the log has come to, for reading.
#[derive(Clone)]
pub struct Applied {
    /// Held for a copy or an apply, never over an await.
    state: Arc<Mutex<State>>,
}

impl Applied {
    /// All of it, as it is at one entry.
    pub fn kept(&self) -> Kept {
        let state = self.state();
        let records = state.records.values().cloned().collect();
        Kept { last: state.last_applied, domain_key: state.domain_key.clone(), records }
    }

    /// The last entry that is applied.
    pub fn last(&self) -> Option<LogId> {
        self.state().last_applied
    }

    /// The incarnation of the cluster; see [`rackferry_fleet::Numbers`].
    pub fn incarnation(&self) -> u64 {
        match self.state().records.get(&Key::Numbers) {
            Some(Record::Numbers(numbers)) => numbers.incarnation,
            _ => 0,
        }
    }

    /// Every record.
    pub fn records(&self) -> Vec<Record> {
        self.state().records.values().cloned().collect()
    }

    /// The certificates that are expelled.
    pub fn expelled(&self) -> Vec<ExpelledRecord> {
        let first = Key::Expelled(String::new(), None);
        let state = self.state();
        // No key is behind these.
        let records = state.records.range(first..).filter_map(|(_, record)| match record {
            Record::Expelled(one) => Some(one.clone()),
            _ => None,
        });
        records.collect()
    }

    /// The key of the dedup domain, once a leader has written it down.
    pub fn domain_key(&self) -> Option<DomainKey> {
        self.state().domain_key.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state machine of openraft.
pub struct StateMachine {
    applied: Applied,
    snapshots: Arc<SnapshotStore>,
}

impl StateMachine {
    /// Opens or makes the file of the snapshot and takes up what is in it.
    ///
    /// # Errors
    /// If another process has it open, it is damaged, or a later coordinator wrote it.
    pub fn open(path: &Path) -> Result<Self, SnapshotError> {
        let snapshots = SnapshotStore::open(path)?;
        let state = match snapshots.kept()? {
            Some(Snapshot { meta, snapshot }) => State::from_snapshot(&meta, snapshot.get_ref())?,
            None => State::default(),
        };
        let applied = Applied { state: Arc::new(Mutex::new(state)) };
        Ok(Self { applied, snapshots: Arc::new(snapshots) })
    }

    /// Applies entries of a log that takes no part in a cluster.
    pub fn replay(&mut self, entries: impl IntoIterator<Item = Entry>) {
        let mut state = self.applied.state();
        for entry in entries {
            state.apply(entry);
        }
    }

    /// For reading.
    pub fn applied(&self) -> Applied {
        self.applied.clone()
    }
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), StorageError<NodeId>> {
        let state = self.applied.state();
        Ok((state.last_applied, state.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Verdict>, StorageError<NodeId>>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut state = self.applied.state();
        Ok(entries.into_iter().map(|entry| state.apply(entry)).collect())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { state: self.applied.state().clone(), snapshots: self.snapshots.clone() }
    }

    async fn begin_receiving_snapshot(
        &mut self,
    ) -> Result<Box<Cursor<Vec<u8>>>, StorageError<NodeId>> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError<NodeId>> {
        let (snapshots, known) = (self.snapshots.clone(), meta.clone());
        let installed = blocking(move || {
            let state = State::from_snapshot(&known, snapshot.get_ref())?;
            snapshots.keep(&known, snapshot.get_ref())?;
            Ok(state)
        });
        let state = installed
            .await
            .map_err(|error| StorageIOError::write_snapshot(Some(meta.signature()), &error))?;
        *self.applied.state() = state;
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<Snapshot<Types>>, StorageError<NodeId>> {
        let snapshots = self.snapshots.clone();
        let kept = blocking(move || Ok(snapshots.kept()?)).await;
        Ok(kept.map_err(|error| StorageIOError::read_snapshot(None, &error))?)
    }
}

/// Makes a snapshot of the state as it was.
pub struct Builder {
    state: State,
    snapshots: Arc<SnapshotStore>,
}

impl RaftSnapshotBuilder<Types> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError<NodeId>> {
        let State { last_applied, membership, domain_key, records, staged } =
            std::mem::take(&mut self.state);
        let snapshot_id = last_applied.map_or_else(|| "none".to_owned(), |id| id.to_string());
        let meta =
            SnapshotMeta { last_log_id: last_applied, last_membership: membership, snapshot_id };
        let (snapshots, known) = (self.snapshots.clone(), meta.clone());
        let built = blocking(move || {
            let records = records.into_values().collect();
            let data = Contents::new(domain_key, records, staged).encode()?;
            snapshots.keep(&known, &data)?;
            Ok(data)
        });
        let data = built
            .await
            .map_err(|error| StorageIOError::write_snapshot(Some(meta.signature()), &error))?;
        Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(data)) })
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SnapshotError> + Send + 'static,
) -> Result<T, SnapshotError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use openraft::testing::log_id;
    use rackferry_fleet::{HostId, HostName, HostRecord, Numbers};

    use super::*;
    use crate::raft::command::LATEST;

    fn entry(term: u64, index: u64, command: Command) -> Entry {
        Entry { log_id: log_id(term, 1, index), payload: EntryPayload::Normal(command) }
    }

    #[test]
    fn a_write_of_an_earlier_term_says_nothing() {
        let mut state = State::default();
        for (index, term, expected, verdict) in
            [(1, 3, 0, Verdict::Void), (2, 4, 1, Verdict::Counts)]
        {
            let put = Change::Put(Record::Numbers(Numbers { epoch: term, ..Numbers::default() }));
            let write = Command::Write { term, changes: vec![put] };
            assert_eq!(state.apply(entry(4, index, write)), verdict);
            assert_eq!(state.records.len(), expected);
        }
        assert_eq!(state.last_applied, Some(log_id(4, 1, 2)));
    }

    /// More hosts than one entry holds.
    fn hosts() -> Vec<Change> {
        let host = |number| {
            HostRecord::new(
                HostName::new(format!("host-{number:05}")),
                HostId(number),
                "r".into(),
                1,
            )
        };
        (0..20_000).map(|number| Change::Put(Record::Host(host(number)))).collect()
    }

    fn parts(term: u64) -> Vec<Command> {
        let parts = Command::writes(term, hosts(), LATEST).unwrap();
        assert!(parts.len() > 2);
        parts
    }

    #[test]
    fn parts_count_together_with_the_last() {
        let mut state = State::default();
        for (index, part) in (1..).zip(parts(4)) {
            assert!(state.records.is_empty(), "before part {index}");
            assert_eq!(state.apply(entry(4, index, part)), Verdict::Counts);
        }
        assert_eq!((state.records.len(), state.staged), (20_000, None));
    }

    #[test]
    fn parts_are_in_the_snapshot_that_is_made_between_them() {
        let mut state = State::default();
        for (index, part) in (1..).zip(parts(4)) {
            state.apply(entry(4, index, part));
            let meta = SnapshotMeta { last_log_id: state.last_applied, ..SnapshotMeta::default() };
            let records = state.records.values().cloned().collect();
            let contents = Contents::new(None, records, state.staged.clone());
            state = State::from_snapshot(&meta, &contents.encode().unwrap()).unwrap();
        }
        assert_eq!((state.records.len(), state.staged), (20_000, None));
    }

    #[test]
    fn parts_that_another_leader_came_between_say_nothing() {
        let office = || Command::TakeOffice { node: 1, domain_key: None };
        // The same leader begins again in its term, or another one in the next.
        for term in [4, 5] {
            let (mut state, mut parts) = (State::default(), parts(4));
            let last = parts.pop().unwrap();
            for (index, part) in (1..).zip(parts) {
                state.apply(entry(4, index, part));
            }
            state.apply(entry(term, 100, office()));
            assert_eq!(state.staged, None);
            assert_eq!(state.apply(entry(term, 101, last)), Verdict::Void);
            assert!(state.records.is_empty());
        }
    }

    #[test]
    fn a_part_that_is_missing_makes_the_others_void() {
        for missing in 0..2 {
            let (mut state, mut parts) = (State::default(), parts(4));
            parts.remove(missing);
            let mut verdicts = Vec::new();
            for (index, part) in (1..).zip(parts) {
                verdicts.push(state.apply(entry(4, index, part)));
            }
            assert_eq!(verdicts.last(), Some(&Verdict::Void));
            assert!(state.records.is_empty());
        }
    }
}
