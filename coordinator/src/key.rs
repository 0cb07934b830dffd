//! The key of the dedup domain: made once, readable by its owner only, never shown.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use rand::{TryRngCore, rngs::OsRng};
use serde::{Deserialize, Serialize};

const LENGTH: usize = 32;

/// The key of a dedup domain. It is written to the log, so that every coordinator has the same.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainKey([u8; LENGTH]);

impl DomainKey {
    #[cfg(test)]
    pub fn of(bytes: [u8; LENGTH]) -> Self {
        Self(bytes)
    }

    /// The secret itself, for agents.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for DomainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DomainKey(..)")
    }
}

/// Reads the key, or makes one. A crash in between leaves none or a whole one.
///
/// # Errors
/// If the file cannot be read or made, has another length, or others may read it.
pub fn load_or_create(path: &Path) -> io::Result<DomainKey> {
    match File::open(path) {
        Ok(file) => load(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(path),
        Err(error) => Err(error),
    }
}

fn load(mut file: File) -> io::Result<DomainKey> {
    let metadata = file.metadata()?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(io::Error::other("others than its owner may read it"));
    }
    if metadata.len() != LENGTH as u64 {
        return Err(io::Error::other(format!("it has {} bytes, not {LENGTH}", metadata.len())));
    }
    let mut key = [0; LENGTH];
    file.read_exact(&mut key)?;
    Ok(DomainKey(key))
}

fn create(path: &Path) -> io::Result<DomainKey> {
    let mut key = [0; LENGTH];
    OsRng.try_fill_bytes(&mut key).map_err(io::Error::other)?;
    let new = path.with_extension("new");
    // Half of a key that an earlier crash may have left.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(&key)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    if let Some(dir) = path.parent() {
        File::open(dir)?.sync_all()?;
    }
    Ok(DomainKey(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let made = load_or_create(&path).unwrap();
        assert_eq!(load_or_create(&path).unwrap(), made);
        assert_ne!(made.expose(), [0; LENGTH]);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_key_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        load_or_create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(load_or_create(&path).is_err());
    }

    #[test]
    fn a_short_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        load_or_create(&path).unwrap();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(31).unwrap();
        assert!(load_or_create(&path).is_err());
    }

    #[test]
    fn it_is_not_shown() {
        assert_eq!(format!("{:?}", DomainKey([7; LENGTH])), "DomainKey(..)");
    }
}
