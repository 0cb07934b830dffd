//! A backup: the records as the log has them at one entry, in a file of its own. It holds the key of the dedup domain.

use std::io::Read;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;

use super::{
    LogId, SNAPSHOT_LIMIT,
    offline::Seed,
    snapshot::{Contents, SnapshotError},
    state::Kept,
};

/// The version of the format that this coordinator writes and reads.
const FORMAT: u32 = 1;
/// Records repeat names; more effort gains little.
const LEVEL: i32 = 3;

/// A backup cannot be made or read.
#[derive(Debug, Error)]
pub enum BackupError {
    /// The file is no backup.
    #[error("it is no backup of a coordinator, or it is damaged")]
    Damaged(#[source] std::io::Error),
    /// The file is larger than any log.
    #[error("it is larger than a log can be")]
    TooLarge,
    /// A later coordinator wrote the file.
    #[error(
        "a backup of format {0}, written by a later coordinator; this one reads format {FORMAT}"
    )]
    Later(u32),
    /// The contents cannot be read.
    #[error("its contents")]
    Contents(#[from] SnapshotError),
    /// The frame of the contents cannot be read or written.
    #[error("it is no backup of a coordinator")]
    Format(#[from] serde_json::Error),
}

/// The frame of a backup.
#[derive(Serialize, Deserialize)]
struct Frame<C> {
    rackferry_backup: u32,
    taken_unix_ms: u64,
    cluster: String,
    last: LogId,
    contents: C,
}

#[derive(Deserialize)]
struct Header {
    rackferry_backup: u32,
}

/// A backup that was read.
pub struct Backup {
    /// When it was taken, milliseconds of Unix.
    pub taken_unix_ms: u64,
    /// The cluster that it was taken of.
    pub cluster: String,
    /// What a new cluster begins with.
    pub seed: Seed,
}

/// Writes a backup of what is applied.
///
/// # Errors
/// If a record cannot be written as JSON, or nothing is applied yet.
pub fn write(kept: Kept, cluster: &str, taken_unix_ms: u64) -> Result<Vec<u8>, BackupError> {
    let nothing = || BackupError::Damaged(std::io::Error::other("nothing is in the log yet"));
    let frame = Frame {
        rackferry_backup: FORMAT,
        taken_unix_ms,
        cluster: cluster.to_owned(),
        last: kept.last.ok_or_else(nothing)?,
        contents: Contents::new(kept.domain_key, kept.records, None),
    };
    let text = serde_json::to_vec(&frame)?;
    let mut encoder = zstd::Encoder::new(Vec::new(), LEVEL).map_err(BackupError::Damaged)?;
    encoder.include_checksum(true).map_err(BackupError::Damaged)?;
    std::io::Write::write_all(&mut encoder, &text).map_err(BackupError::Damaged)?;
    encoder.finish().map_err(BackupError::Damaged)
}

/// Reads a backup.
///
/// # Errors
/// If it is none, damaged, or of a later format.
pub fn read(bytes: &[u8]) -> Result<Backup, BackupError> {
    let mut text = Vec::new();
    let decoder = zstd::Decoder::new(bytes).map_err(BackupError::Damaged)?;
    decoder.take(SNAPSHOT_LIMIT + 1).read_to_end(&mut text).map_err(BackupError::Damaged)?;
    if text.len() as u64 > SNAPSHOT_LIMIT {
        return Err(BackupError::TooLarge);
    }
    let Header { rackferry_backup } = serde_json::from_slice(&text)?;
    if rackferry_backup != FORMAT {
        return Err(BackupError::Later(rackferry_backup));
    }
    let frame: Frame<Box<RawValue>> = serde_json::from_slice(&text)?;
    let contents = Contents::decode(frame.contents.get().as_bytes())?;
    let (domain_key, records) = (contents.domain_key, contents.records);
    let seed = Seed { domain_key, records, last: frame.last };
    Ok(Backup { taken_unix_ms: frame.taken_unix_ms, cluster: frame.cluster, seed })
}

#[cfg(test)]
mod tests {
    use openraft::testing::log_id;
    use rackferry_fleet::{Numbers, Record};

    use super::*;
    use crate::key::DomainKey;

    fn backup() -> Vec<u8> {
        let records = vec![Record::Numbers(Numbers { epoch: 7, ..Numbers::default() })];
        let domain_key = Some(DomainKey::of([9; 32]));
        let kept = Kept { last: Some(log_id(3, 1, 20)), domain_key, records };
        write(kept, "1@c1:7400", 1000).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let read = read(&backup()).unwrap();
        assert_eq!((read.taken_unix_ms, read.cluster.as_str()), (1000, "1@c1:7400"));
        assert_eq!((read.seed.last, read.seed.records.len()), (log_id(3, 1, 20), 1));
        assert_eq!(read.seed.domain_key, Some(DomainKey::of([9; 32])));
    }

    #[test]
    fn what_is_damaged_or_no_backup_is_refused() {
        let whole = backup();
        for bytes in [&whole[..0], &whole[..whole.len() - 1], b"something else"] {
            assert!(read(bytes).is_err());
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            if let Ok(read) = read(&damaged) {
                // Bits of a frame's header that mean nothing.
                assert_eq!(read.seed.last, log_id(3, 1, 20), "at {at}");
            }
        }
        let later = br#"{"rackferry_backup":2,"what":"ever"}"#;
        let later = zstd::encode_all(&later[..], 0).unwrap();
        assert!(matches!(read(&later), Err(BackupError::Later(2))));
    }
}
