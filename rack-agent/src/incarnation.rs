//! The incarnation of the cluster of coordinators that this host has met last, kept in the state directory. A cluster that
//! began anew (`recover`, `restore`) has a higher one; the coordinators of the one before are refused, because two
//! clusters that decide are two owners of one VM.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::vm::write_durably;

const FILE: &str = "cluster.json";

#[derive(Debug, Default, Serialize, Deserialize)]
struct Line {
    incarnation: u64,
}

/// A coordinator cannot be followed.
#[derive(Debug, Error)]
pub enum NotFollowed {
    /// Another cluster has taken the place of the coordinator's.
    #[error(
        "this coordinator is of a cluster that another one has replaced (incarnation {theirs}, replaced by {met}): stop it, and \
         empty its folder before it joins again. If the new one is gone for good, restore a backup (docs/operations.md)"
    )]
    Replaced {
        /// The coordinator's incarnation.
        theirs: u64,
        /// The highest that this host has met.
        met: u64,
    },
    /// The higher incarnation cannot be written down.
    #[error("cannot write down which cluster this is: {0:#}")]
    Unwritten(anyhow::Error),
}

/// The highest incarnation that this host has met.
#[derive(Debug)]
pub struct Incarnation {
    state_dir: PathBuf,
    met: u64,
}

impl Incarnation {
    /// Reads it; 0 before any cluster began anew.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn open(state_dir: &Path) -> anyhow::Result<Self> {
        let path = state_dir.join(FILE);
        let line = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).with_context(|| {
                format!("{} is damaged: remove it if only one cluster runs", path.display())
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Line::default(),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        Ok(Self { state_dir: state_dir.to_owned(), met: line.incarnation })
    }

    /// Follows a coordinator, whose incarnation is durable when this returns: it waits for the disk, once for each time
    /// that a cluster begins anew.
    ///
    /// # Errors
    /// See [`NotFollowed`].
    pub fn follow(&mut self, theirs: u64) -> Result<(), NotFollowed> {
        if theirs < self.met {
            return Err(NotFollowed::Replaced { theirs, met: self.met });
        }
        if theirs > self.met {
            let keep = || -> anyhow::Result<()> {
                let text = serde_json::to_vec(&Line { incarnation: theirs })?;
                Ok(write_durably(&self.state_dir, FILE, &text)?)
            };
            keep().map_err(NotFollowed::Unwritten)?;
            self.met = theirs;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_that_was_replaced_is_refused_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut known = Incarnation::open(dir.path()).unwrap();
        known.follow(0).unwrap();
        assert!(!dir.path().join(FILE).exists(), "nothing was written");
        known.follow(5).unwrap();
        assert!(matches!(known.follow(4), Err(NotFollowed::Replaced { theirs: 4, met: 5 })));
        let mut again = Incarnation::open(dir.path()).unwrap();
        assert!(again.follow(0).is_err());
        again.follow(5).unwrap();
        again.follow(6).unwrap();
    }

    #[test]
    fn a_file_that_is_damaged_is_no_first_time() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(Incarnation::open(dir.path()).unwrap_err().to_string().contains(FILE));
    }
}
