//! Which cluster this is: two that were formed apart must never mix their logs.
//!
//! A cluster is named by its first members, which all that form it together agree on. One that joins takes
//! the name of the first coordinator that calls it, and keeps it.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use thiserror::Error;

use super::{DatabaseError, LogStore, NodeId};

/// The longest name: nine members with long addresses.
const LIMIT: usize = 4096;

/// A message is not for this cluster.
#[derive(Debug, Error)]
pub enum Foreign {
    /// The sender's cluster has another name.
    #[error("another cluster: this one was formed by {ours}, not by {theirs}")]
    Other {
        /// The name of this cluster.
        ours: String,
        /// The name of the sender's cluster.
        theirs: String,
    },
    /// The sender's cluster has no name.
    #[error("a cluster without a name")]
    Nameless,
    /// The name of the cluster cannot be written down.
    #[error("writing down which cluster this is")]
    Database(#[from] DatabaseError),
}

/// The name of the cluster, once there is one.
#[derive(Clone)]
pub struct Identity {
    log: LogStore,
    name: Arc<OnceLock<String>>,
}

impl Identity {
    /// Reads the name that the log has.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn open(log: &LogStore) -> Result<Self, DatabaseError> {
        let name = log.cluster()?.map_or_else(OnceLock::new, OnceLock::from);
        Ok(Self { log: log.clone(), name: Arc::new(name) })
    }

    /// The name; empty before there is one.
    pub fn name(&self) -> &str {
        self.name.get().map_or("", String::as_str)
    }

    /// Forms the cluster of these members, unless there is one. Not cancel safe.
    ///
    /// # Errors
    /// If it cannot be written.
    pub async fn form(&self, members: &BTreeMap<NodeId, String>) -> Result<(), DatabaseError> {
        if self.name().is_empty() {
            let members: Vec<_> = members.iter().map(|(id, addr)| format!("{id}@{addr}")).collect();
            self.take(members.join(",")).await?;
        }
        Ok(())
    }

    /// Checks the sender of a message; the first one is believed by a coordinator that joins.
    ///
    /// # Errors
    /// If it belongs to another cluster.
    pub async fn check(&self, theirs: &str) -> Result<(), Foreign> {
        if theirs.is_empty() || theirs.len() > LIMIT {
            return Err(Foreign::Nameless);
        }
        if self.name().is_empty() {
            self.take(theirs.to_owned()).await?;
        }
        let ours = self.name();
        if ours == theirs {
            return Ok(());
        }
        Err(Foreign::Other { ours: ours.to_owned(), theirs: theirs.to_owned() })
    }

    async fn take(&self, name: String) -> Result<(), DatabaseError> {
        // The first one in memory wins, and the file follows it before any peer is answered.
        let name = self.name.get_or_init(|| name).clone();
        self.log.save_cluster(name).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_name_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let log = LogStore::open(&path, 1).unwrap();
        let identity = Identity::open(&log).unwrap();
        assert!(matches!(identity.check("").await, Err(Foreign::Nameless)));
        identity.check("1@a:1").await.unwrap();
        assert!(matches!(identity.check("2@b:1").await, Err(Foreign::Other { .. })));
        identity.form(&BTreeMap::from([(1, "c:1".to_owned())])).await.unwrap();
        assert_eq!(identity.name(), "1@a:1");
        drop((identity, log));
        let again = Identity::open(&LogStore::open(&path, 1).unwrap()).unwrap();
        assert_eq!(again.name(), "1@a:1");
    }
}
