//! The durable records in redb: a write transaction, with its fsync, for every batch.

use std::path::Path;

use rackferry_fleet::{Change, Record};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use thiserror::Error;

/// Records as JSON by their key as JSON.
const RECORDS: TableDefinition<&str, &[u8]> = TableDefinition::new("records");

/// The log cannot be used.
#[derive(Debug, Error)]
pub enum StorageError {
    /// redb failed; boxed because its error is large.
    #[error("the database failed")]
    Database(#[source] Box<redb::Error>),
    /// A record cannot be read, or not be written.
    #[error("record {key}")]
    Record {
        /// Its key.
        key: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl<E: Into<redb::Error>> From<E> for StorageError {
    fn from(error: E) -> Self {
        Self::Database(Box::new(error.into()))
    }
}

/// The log.
pub struct Storage {
    database: Database,
}

impl Storage {
    /// Opens or makes the log and reads everything in it.
    ///
    /// # Errors
    /// If another process has it open, or it is damaged, or of a version that is not known.
    pub fn open(path: &Path) -> Result<(Self, Vec<Record>), StorageError> {
        let database = Database::create(path)?;
        let write = database.begin_write()?;
        write.open_table(RECORDS)?;
        write.commit()?;
        let records = read(&database)?;
        Ok((Self { database }, records))
    }

    /// Writes changes together; they are durable when it returns.
    ///
    /// # Errors
    /// If they may not be durable: the caller must stop.
    pub fn commit(&mut self, changes: &[Change]) -> Result<(), StorageError> {
        let write = self.database.begin_write()?;
        {
            let mut table = write.open_table(RECORDS)?;
            for change in changes {
                match change {
                    Change::Put(record) => {
                        let key = encode(&record.key(), "key")?;
                        let value = encode(record, &key)?;
                        table.insert(key.as_str(), value.as_bytes())?;
                    }
                    Change::Remove(key) => {
                        table.remove(encode(key, "key")?.as_str())?;
                    }
                }
            }
        }
        write.commit()?;
        Ok(())
    }
}

fn encode(value: &impl serde::Serialize, key: &str) -> Result<String, StorageError> {
    serde_json::to_string(value)
        .map_err(|source| StorageError::Record { key: key.to_owned(), source })
}

fn read(database: &Database) -> Result<Vec<Record>, StorageError> {
    let read = database.begin_read()?;
    let table = read.open_table(RECORDS)?;
    let mut records = Vec::new();
    for entry in table.iter()? {
        let (key, value) = entry?;
        let record = serde_json::from_slice(value.value())
            .map_err(|source| StorageError::Record { key: key.value().to_owned(), source })?;
        records.push(record);
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use rackferry_fleet::{HostId, HostRecord, Key, Numbers};

    use super::*;

    fn host(name: &str) -> Record {
        Record::Host(HostRecord {
            name: name.into(),
            id: HostId(1),
            rack: "r".into(),
            memory_bytes: 1,
        })
    }

    #[test]
    fn what_is_committed_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (mut storage, records) = Storage::open(&path).unwrap();
        assert!(records.is_empty());
        let numbers = Record::Numbers(Numbers { epoch: 7, ..Numbers::default() });
        storage
            .commit(&[Change::Put(numbers.clone()), Change::Put(host("a")), Change::Put(host("b"))])
            .unwrap();
        storage.commit(&[Change::Remove(Key::Host("a".into()))]).unwrap();
        drop(storage);
        let (_, mut records) = Storage::open(&path).unwrap();
        records.sort_by_key(Record::key);
        assert_eq!(records, [numbers, host("b")]);
    }

    #[test]
    fn a_second_process_is_kept_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let _open = Storage::open(&path).unwrap();
        assert!(Storage::open(&path).is_err());
    }

    #[test]
    fn a_record_of_a_later_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (storage, _) = Storage::open(&path).unwrap();
        let write = storage.database.begin_write().unwrap();
        let value: &[u8] = br#"{"vm.v9":{}}"#;
        write.open_table(RECORDS).unwrap().insert("x", value).unwrap();
        write.commit().unwrap();
        drop(storage);
        assert!(matches!(Storage::open(&path), Err(StorageError::Record { .. })));
    }
}
