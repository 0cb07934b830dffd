//! Snapshots of the records: their format, and the one that is kept, in a file of its own so that writing
//! it keeps no append waiting.

use std::{io::Cursor, path::Path};

use openraft::Snapshot;
use rackferry_fleet::Record;
use redb::{Database, ReadableDatabase, TableDefinition};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    SnapshotMeta, Types,
    database::{self, DatabaseError},
    staged::Staged,
};
use crate::key::DomainKey;

const DATA: TableDefinition<(), &[u8]> = TableDefinition::new("snapshot");
const META: &str = "snapshot";
/// The latest version of contents that this coordinator reads.
const LATEST: u32 = STAGED;
/// Records.
const RECORDS: u32 = 1;
/// Records, and parts of a write.
const STAGED: u32 = 2;

/// A snapshot cannot be used.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// A later coordinator wrote the snapshot.
    #[error(
        "a snapshot of version {0}, written by a later coordinator; this one reads versions up to {LATEST}"
    )]
    Version(u32),
    /// The snapshot cannot be read, or not be written.
    #[error("reading or writing a snapshot")]
    Format(#[from] serde_json::Error),
    /// The file of the snapshot failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// What a snapshot holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Contents {
    version: u32,
    /// The key of the dedup domain.
    pub domain_key: Option<DomainKey>,
    /// Every record.
    pub records: Vec<Record>,
    /// Parts whose last is not yet applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged: Option<Staged>,
}

#[derive(Deserialize)]
struct Header {
    version: u32,
}

impl Contents {
    /// Of the oldest version that can say it.
    pub fn new(
        domain_key: Option<DomainKey>,
        records: Vec<Record>,
        staged: Option<Staged>,
    ) -> Self {
        let version = if staged.is_some() { STAGED } else { RECORDS };
        Self { version, domain_key, records, staged }
    }

    /// Writes the contents as bytes.
    ///
    /// # Errors
    /// If they cannot be written as JSON.
    pub fn encode(&self) -> Result<Vec<u8>, SnapshotError> {
        Ok(serde_json::to_vec(self)?)
    }

    /// Reads contents from bytes; the version is looked at before anything else.
    ///
    /// # Errors
    /// If the version is not known or the rest is not of it.
    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let Header { version } = serde_json::from_slice(bytes)?;
        if !(RECORDS..=LATEST).contains(&version) {
            return Err(SnapshotError::Version(version));
        }
        Ok(serde_json::from_slice(bytes)?)
    }
}

/// The one snapshot that is kept.
pub struct SnapshotStore {
    database: Database,
}

impl SnapshotStore {
    /// Opens or makes the file.
    ///
    /// # Errors
    /// If another process has it open, or it is damaged.
    pub fn open(path: &Path) -> Result<Self, DatabaseError> {
        Ok(Self { database: database::open(path)? })
    }

    /// Keeps a snapshot in place of the one before; it is durable when this returns. One that is older than
    /// what is kept is dropped: a built one may come after an installed one.
    ///
    /// # Errors
    /// If it may not be durable.
    pub fn keep(&self, meta: &SnapshotMeta, data: &[u8]) -> Result<(), DatabaseError> {
        let write = self.database.begin_write()?;
        let kept: Option<SnapshotMeta> = database::meta(&self.database, META)?;
        if kept.is_some_and(|kept| kept.last_log_id > meta.last_log_id) {
            return Ok(());
        }
        write.open_table(DATA)?.insert((), data)?;
        database::put_meta(&write, META, meta)?;
        write.commit()?;
        Ok(())
    }

    /// The snapshot that is kept.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn kept(&self) -> Result<Option<Snapshot<Types>>, DatabaseError> {
        let Some(meta) = database::meta(&self.database, META)? else { return Ok(None) };
        let read = self.database.begin_read()?;
        let data = read.open_table(DATA)?.get(())?.map(|data| data.value().to_vec());
        Ok(data.map(|data| Snapshot { meta, snapshot: Box::new(Cursor::new(data)) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_version_is_refused_by_name() {
        let error = Contents::decode(br#"{"version":7,"what":"ever"}"#).unwrap_err();
        assert!(matches!(error, SnapshotError::Version(7)));
    }

    #[test]
    fn an_older_one_does_not_replace_a_newer_one() {
        let dir = tempfile::tempdir().unwrap();
        let store = SnapshotStore::open(&dir.path().join("snapshot")).unwrap();
        let meta = |index| SnapshotMeta {
            last_log_id: Some(openraft::testing::log_id(1, 1, index)),
            ..SnapshotMeta::default()
        };
        store.keep(&meta(9), b"new").unwrap();
        store.keep(&meta(3), b"old").unwrap();
        let kept = store.kept().unwrap().unwrap();
        assert_eq!((kept.meta, kept.snapshot.into_inner()), (meta(9), b"new".to_vec()));
    }
}
