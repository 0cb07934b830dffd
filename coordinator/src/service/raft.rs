//! The gRPC service that other coordinators call.

use openraft::raft::InstallSnapshotRequest;
use rackferry_proto::{
    Reason, refuse,
    v1::{self, raft_service_server::RaftService},
};
use serde::{Serialize, de::DeserializeOwned};
use tonic::{Request, Response, Status};

use crate::raft::{
    Identity, MESSAGE_VERSION, NodeId, Raft, SNAPSHOT_LIMIT, Types, command::LATEST,
};

/// The service of the replicated log.
pub struct Log {
    id: NodeId,
    identity: Identity,
    raft: Raft,
}

impl Log {
    pub fn new(id: NodeId, identity: Identity, raft: Raft) -> Self {
        Self { id, identity, raft }
    }

    async fn open<T: DeserializeOwned>(
        &self,
        version: u32,
        to: NodeId,
        cluster: &str,
        message: &[u8],
    ) -> Result<T, Status> {
        if version != MESSAGE_VERSION {
            let text = format!("messages of version {version}, this is version {MESSAGE_VERSION}");
            return Err(refuse(Reason::InvalidArgument, text));
        }
        if to != self.id {
            let text = format!("this is coordinator {}, not {to}", self.id);
            return Err(refuse(Reason::UnknownNode, text));
        }
        if let Err(foreign) = self.identity.check(cluster).await {
            tracing::warn!(%foreign, "a message of the log is refused");
            return Err(refuse(Reason::InvalidArgument, foreign.to_string()));
        }
        serde_json::from_slice(message)
            .map_err(|error| refuse(Reason::InvalidArgument, error.to_string()))
    }
}

fn close(answer: &impl Serialize) -> Result<Vec<u8>, Status> {
    serde_json::to_vec(answer).map_err(|error| Status::internal(error.to_string()))
}

#[tonic::async_trait]
impl RaftService for Log {
    async fn append_entries(
        &self,
        request: Request<v1::AppendEntriesRequest>,
    ) -> Result<Response<v1::AppendEntriesResponse>, Status> {
        let v1::AppendEntriesRequest { version, to, cluster, message } = request.into_inner();
        let message = self.open(version, to, &cluster, &message).await?;
        let answer = self.raft.append_entries(message).await;
        Ok(Response::new(v1::AppendEntriesResponse { message: close(&answer)?, reads: LATEST }))
    }

    async fn vote(
        &self,
        request: Request<v1::VoteRequest>,
    ) -> Result<Response<v1::VoteResponse>, Status> {
        let v1::VoteRequest { version, to, cluster, message } = request.into_inner();
        let answer = self.raft.vote(self.open(version, to, &cluster, &message).await?).await;
        Ok(Response::new(v1::VoteResponse { message: close(&answer)? }))
    }

    async fn install_snapshot(
        &self,
        request: Request<v1::InstallSnapshotRequest>,
    ) -> Result<Response<v1::InstallSnapshotResponse>, Status> {
        let v1::InstallSnapshotRequest { version, to, cluster, message, data } =
            request.into_inner();
        let mut part: InstallSnapshotRequest<Types> =
            self.open(version, to, &cluster, &message).await?;
        part.data = data;
        // Room is made for everything up to the end of the part.
        if part.offset.saturating_add(part.data.len() as u64) > SNAPSHOT_LIMIT {
            return Err(refuse(Reason::InvalidArgument, "a snapshot beyond all bounds"));
        }
        let answer = self.raft.install_snapshot(part).await;
        Ok(Response::new(v1::InstallSnapshotResponse { message: close(&answer)? }))
    }
}
