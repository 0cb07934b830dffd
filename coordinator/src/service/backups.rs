//! Backups of a running coordinator: what is applied, read at one entry and sent in parts.

use rackferry_proto::v1::BackupClusterResponse;
use tonic::Status;

use crate::{
    driver::now,
    raft::{Applied, Identity, backup},
};

/// A part of a backup, in bytes.
const PART: usize = 1 << 20;

/// Parts of a backup, for a client.
pub type Parts = tokio_stream::Iter<std::vec::IntoIter<Result<BackupClusterResponse, Status>>>;

/// Makes backups.
pub struct Backups {
    applied: Applied,
    identity: Identity,
}

impl Backups {
    pub fn new(applied: Applied, identity: Identity) -> Self {
        Self { applied, identity }
    }

    /// What is applied by now, in parts.
    pub async fn make(&self) -> Result<Parts, Status> {
        let (kept, cluster) = (self.applied.kept(), self.identity.name().to_owned());
        let made =
            tokio::task::spawn_blocking(move || backup::write(kept, &cluster, now().unix_ms()));
        let bytes = made
            .await
            .map_err(|error| Status::internal(error.to_string()))?
            .map_err(|error| Status::internal(error.to_string()))?;
        tracing::info!(bytes = bytes.len(), "a backup is made");
        let part = |part: &[u8]| Ok(BackupClusterResponse { part: part.to_vec() });
        let parts: Vec<_> = bytes.chunks(PART).map(part).collect();
        Ok(tokio_stream::iter(parts))
    }
}
