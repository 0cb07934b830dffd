//! The files of a coordinator's log, and what every one of them says about itself.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rackferry_fleet::Record;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

use super::NodeId;

/// Where coordinators before Raft kept their records. It now holds [`TOMBSTONE`] alone.
const RECORDS: TableDefinition<&str, &[u8]> = TableDefinition::new("records");
/// A record those coordinators do not know, so that none of them starts on a log of ours and takes it for
/// an empty one.
const TOMBSTONE: (&str, &[u8]) = ("\"Raft\"", br#"{"raft.v1":{}}"#);
/// Single values, as JSON by name.
pub const META: TableDefinition<&str, &[u8]> = TableDefinition::new("raft_meta");

/// The files cannot be used.
#[derive(Debug, Error)]
pub enum DatabaseError {
    /// redb failed; boxed because its error is large.
    #[error("the database failed")]
    Database(#[source] Box<redb::Error>),
    /// A file cannot be opened.
    #[error("opening {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A value in a file cannot be read, or not be written.
    #[error("reading or writing {what}")]
    Value {
        /// The value.
        what: String,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// The folder is another coordinator's.
    #[error("this is the log of coordinator {found}, and the settings say that this is {expected}")]
    OtherNode {
        /// The coordinator that the log is of.
        found: NodeId,
        /// The coordinator that the settings name.
        expected: NodeId,
    },
    /// The log is a single coordinator's old one, and there is a cluster now.
    #[error(
        "this is the log of a single coordinator of an earlier version; start it once without peers, which takes \
         it over, then add the others with `rackferry cluster add`"
    )]
    Unconverted,
}

impl<E: Into<redb::Error>> From<E> for DatabaseError {
    fn from(error: E) -> Self {
        Self::Database(Box::new(error.into()))
    }
}

/// Opens or makes a database that only its owner may read: it holds the key of the dedup domain.
///
/// A new one gets its name when it is whole: a coordinator that is killed while it makes one leaves nothing that
/// the next cannot read.
///
/// # Errors
/// If another process has it open, or it is damaged.
pub fn open(path: &Path) -> Result<Database, DatabaseError> {
    if !path.exists() {
        make(path)?;
    }
    let failed = |source| DatabaseError::File { path: path.to_owned(), source };
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
    Ok(Database::builder().create_file(file)?)
}

fn make(path: &Path) -> Result<(), DatabaseError> {
    let new = path.with_extension("new");
    let failed = |source| DatabaseError::File { path: new.clone(), source };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true).mode(0o600);
    let file = options.open(&new).map_err(failed)?;
    drop(Database::builder().create_file(file.try_clone().map_err(failed)?)?);
    file.sync_all().map_err(failed)?;
    std::fs::rename(&new, path).map_err(failed)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

/// The records of a coordinator before Raft, if the log is still one of its.
///
/// # Errors
/// If one of them cannot be read.
pub fn unconverted(database: &Database) -> Result<Option<Vec<Record>>, DatabaseError> {
    let read = database.begin_read()?;
    let table = match read.open_table(RECORDS) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if table.get(TOMBSTONE.0)?.is_some() {
        return Ok(None);
    }
    let mut records = Vec::new();
    for entry in table.iter()? {
        let (key, value) = entry?;
        records.push(decode(value.value(), key.value())?);
    }
    Ok((!records.is_empty()).then_some(records))
}

/// Notes that the records of before Raft are in the log, and keeps coordinators of that time away.
///
/// # Errors
/// If it may not be durable.
pub fn close_records(database: &Database) -> Result<(), DatabaseError> {
    let write = database.begin_write()?;
    {
        let mut table = write.open_table(RECORDS)?;
        table.retain(|_, _| false)?;
        table.insert(TOMBSTONE.0, TOMBSTONE.1)?;
    }
    write.commit()?;
    Ok(())
}

/// Reads a value of [`META`].
///
/// # Errors
/// If it cannot be read.
pub fn meta<T: DeserializeOwned>(
    database: &Database,
    name: &str,
) -> Result<Option<T>, DatabaseError> {
    let read = database.begin_read()?;
    let table = match read.open_table(META) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    table.get(name)?.map(|value| decode(value.value(), name)).transpose()
}

/// Writes a value of [`META`] within a transaction.
///
/// # Errors
/// If it cannot be written.
pub fn put_meta(
    write: &redb::WriteTransaction,
    name: &str,
    value: &impl Serialize,
) -> Result<(), DatabaseError> {
    write.open_table(META)?.insert(name, encode(value, name)?.as_slice())?;
    Ok(())
}

/// Reads JSON of something that the error names.
///
/// # Errors
/// If the bytes are no such JSON.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, DatabaseError> {
    serde_json::from_slice(bytes)
        .map_err(|source| DatabaseError::Value { what: what.to_owned(), source })
}

/// Writes JSON of something that the error names.
///
/// # Errors
/// If the value cannot be written as JSON.
pub fn encode(value: &impl Serialize, what: &str) -> Result<Vec<u8>, DatabaseError> {
    serde_json::to_vec(value)
        .map_err(|source| DatabaseError::Value { what: what.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use rackferry_fleet::Numbers;

    use super::*;

    fn old_log(path: &Path) -> Record {
        let record = Record::Numbers(Numbers { epoch: 7, ..Numbers::default() });
        let database = open(path).unwrap();
        let write = database.begin_write().unwrap();
        let value = serde_json::to_vec(&record).unwrap();
        write.open_table(RECORDS).unwrap().insert("\"Numbers\"", value.as_slice()).unwrap();
        write.commit().unwrap();
        record
    }

    #[test]
    fn an_old_log_is_found_until_it_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let record = old_log(&path);
        let database = open(&path).unwrap();
        assert_eq!(unconverted(&database).unwrap(), Some(vec![record]));
        close_records(&database).unwrap();
        assert_eq!(unconverted(&database).unwrap(), None);
    }

    #[test]
    fn a_coordinator_of_before_cannot_read_a_closed_log() {
        assert!(serde_json::from_slice::<Record>(TOMBSTONE.1).is_err());
    }

    #[test]
    fn a_second_process_is_kept_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let _open = open(&path).unwrap();
        assert!(open(&path).is_err());
    }
}
