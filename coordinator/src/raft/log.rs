//! Entries and the vote in redb.
//!
//! An append is one transaction with one fsync. How far the log is committed rides along with the next
//! append: it may be on disk late, never early, and it only spares the start some waiting. A purge rides
//! along too. The vote and the removal of entries that a new leader overrules are durable at once.

use std::{
    fmt::Debug,
    ops::RangeBounds,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use openraft::{
    LogState, OptionalSend, RaftLogId, RaftLogReader,
    storage::{LogFlushed, RaftLogStorage},
};
use rackferry_fleet::Record;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use super::{
    Entry, LogId, NodeId, StorageError, StorageIoError, Types, Vote,
    database::{self, DatabaseError},
};

/// Entries as JSON by index.
const ENTRIES: TableDefinition<u64, &[u8]> = TableDefinition::new("raft_log");
const VOTE: &str = "vote";
const COMMITTED: &str = "committed";
const PURGED: &str = "purged";
const NODE: &str = "node";
const CLUSTER: &str = "cluster";
/// Bytes of entries read at a time for one follower, at least one entry.
const READ_LIMIT: usize = 2 << 20;

/// The log of one coordinator.
#[derive(Clone)]
pub struct LogStore {
    database: Arc<Database>,
    /// Held for a copy only, never over an await.
    committed: Arc<Mutex<Option<LogId>>>,
}

impl LogStore {
    /// Opens or makes the log of a coordinator.
    ///
    /// # Errors
    /// If another process has it open, it is damaged, or it is another coordinator's.
    pub fn open(path: &Path, node: NodeId) -> Result<Self, DatabaseError> {
        let database = database::open(path)?;
        match database::meta(&database, NODE)? {
            Some(found) if found != node => {
                return Err(DatabaseError::OtherNode { found, expected: node });
            }
            Some(_) => {}
            None => {
                let write = database.begin_write()?;
                write.open_table(ENTRIES)?;
                database::put_meta(&write, NODE, &node)?;
                write.commit()?;
            }
        }
        let committed = database::meta(&database, COMMITTED)?;
        Ok(Self { database: Arc::new(database), committed: Arc::new(Mutex::new(committed)) })
    }

    /// See [`database::unconverted`].
    ///
    /// # Errors
    /// As there.
    pub fn unconverted(&self) -> Result<Option<Vec<Record>>, DatabaseError> {
        database::unconverted(&self.database)
    }

    /// See [`database::close_records`]. Not cancel safe.
    ///
    /// # Errors
    /// As there.
    pub async fn close_records(&self) -> Result<(), DatabaseError> {
        self.blocking(database::close_records).await
    }

    /// The name of the cluster; see [`identity`](super::identity).
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn cluster(&self) -> Result<Option<String>, DatabaseError> {
        database::meta(&self.database, CLUSTER)
    }

    /// Writes it down. Not cancel safe.
    ///
    /// # Errors
    /// If it may not be durable.
    pub async fn save_cluster(&self, name: String) -> Result<(), DatabaseError> {
        self.blocking(move |database| {
            let write = database.begin_write()?;
            database::put_meta(&write, CLUSTER, &name)?;
            Ok(write.commit()?)
        })
        .await
    }

    /// Every entry from an index on, for a coordinator that does not run.
    ///
    /// # Errors
    /// If one of them cannot be read.
    pub fn all_from(&self, index: u64) -> Result<Vec<Entry>, DatabaseError> {
        self.entries(index.., usize::MAX)
    }

    /// The last entry that is known to be committed; more may be.
    pub fn committed_index(&self) -> Option<u64> {
        self.committed().map(|id| id.index)
    }

    /// Makes an empty log that begins after an entry, in the cluster of this name.
    ///
    /// # Errors
    /// If it may not be durable.
    pub fn begin_after(&self, last: LogId, cluster: &str) -> Result<(), DatabaseError> {
        let node: Option<NodeId> = database::meta(&self.database, NODE)?;
        let write = self.database.begin_write()?;
        database::put_meta(&write, PURGED, &last)?;
        database::put_meta(&write, CLUSTER, &cluster)?;
        // Higher than every vote that this log has seen.
        let vote = Vote::new(last.leader_id.term + 1, node.unwrap_or_default());
        database::put_meta(&write, VOTE, &vote)?;
        write.commit()?;
        Ok(())
    }

    /// Runs something that waits for the disk where it keeps no task waiting.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, DatabaseError> + Send + 'static,
    ) -> Result<T, DatabaseError> {
        let database = self.database.clone();
        match tokio::task::spawn_blocking(move || work(&database)).await {
            Ok(result) => result,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    fn committed(&self) -> Option<LogId> {
        *self.committed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entries(
        &self,
        range: impl RangeBounds<u64>,
        limit: usize,
    ) -> Result<Vec<Entry>, DatabaseError> {
        let read = self.database.begin_read()?;
        let table = read.open_table(ENTRIES)?;
        let (mut entries, mut bytes) = (Vec::new(), 0);
        let bounds = (range.start_bound().cloned(), range.end_bound().cloned());
        for row in table.range::<u64>(bounds)? {
            let (index, value) = row?;
            bytes += value.value().len();
            entries.push(database::decode(value.value(), &format!("entry {}", index.value()))?);
            if bytes >= limit {
                break;
            }
        }
        Ok(entries)
    }

    fn state(&self) -> Result<LogState<Types>, DatabaseError> {
        let last_purged_log_id = database::meta(&self.database, PURGED)?;
        let read = self.database.begin_read()?;
        let table = read.open_table(ENTRIES)?;
        let last: Option<Entry> = match table.last()? {
            Some((_, value)) => Some(database::decode(value.value(), "the last entry")?),
            None => None,
        };
        let last_log_id = last.map(|entry| entry.log_id).or(last_purged_log_id);
        Ok(LogState { last_purged_log_id, last_log_id })
    }
}

fn append(
    database: &Database,
    rows: &[(u64, Vec<u8>)],
    committed: Option<LogId>,
) -> Result<(), DatabaseError> {
    let write = database.begin_write()?;
    {
        let mut table = write.open_table(ENTRIES)?;
        for (index, value) in rows {
            table.insert(index, value.as_slice())?;
        }
    }
    if let Some(committed) = committed {
        database::put_meta(&write, COMMITTED, &committed)?;
    }
    write.commit()?;
    Ok(())
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        Ok(self.entries(range, usize::MAX).map_err(|error| StorageIoError::read_logs(&error))?)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        let entries = self.entries(start..end, READ_LIMIT);
        Ok(entries.map_err(|error| StorageIoError::read_logs(&error))?)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        Ok(self.state().map_err(|error| StorageIoError::read_logs(&error))?)
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let vote = *vote;
        let saved = self.blocking(move |database| {
            let write = database.begin_write()?;
            database::put_meta(&write, VOTE, &vote)?;
            Ok(write.commit()?)
        });
        Ok(saved.await.map_err(|error| StorageIoError::write_vote(&error))?)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        let vote = database::meta(&self.database, VOTE);
        Ok(vote.map_err(|error| StorageIoError::read_vote(&error))?)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        *self.committed.lock().unwrap_or_else(PoisonError::into_inner) = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(self.committed())
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<Types>,
    ) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let rows: Result<Vec<_>, _> = entries
            .into_iter()
            .map(|entry| Ok((entry.get_log_id().index, database::encode(&entry, "an entry")?)))
            .collect();
        let rows = rows.map_err(|error: DatabaseError| StorageIoError::write_logs(&error))?;
        let committed = self.committed();
        let appended = self.blocking(move |database| append(database, &rows, committed));
        appended.await.map_err(|error| StorageIoError::write_logs(&error))?;
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, since: LogId) -> Result<(), StorageError> {
        let truncated = self.blocking(move |database| {
            let write = database.begin_write()?;
            write.open_table(ENTRIES)?.retain_in(since.index.., |_, _| false)?;
            Ok(write.commit()?)
        });
        Ok(truncated.await.map_err(|error| StorageIoError::write_logs(&error))?)
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), StorageError> {
        let purged = self.blocking(move |database| {
            let mut write = database.begin_write()?;
            // What comes back after a crash is purged again.
            write.set_durability(Durability::None)?;
            write.open_table(ENTRIES)?.retain_in(..=upto.index, |_, _| false)?;
            database::put_meta(&write, PURGED, &upto)?;
            Ok(write.commit()?)
        });
        Ok(purged.await.map_err(|error| StorageIoError::write_logs(&error))?)
    }
}

#[cfg(test)]
impl LogStore {
    pub(super) fn append_rows(&self, rows: &[(u64, Vec<u8>)]) {
        append(&self.database, rows, None).unwrap();
    }
}
