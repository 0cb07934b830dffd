//! Calls to other coordinators.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use openraft::{
    BasicNode,
    error::{InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable},
    network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest,
        InstallSnapshotResponse, VoteRequest, VoteResponse,
    },
};
use rackferry_proto::v1::{self, raft_service_client::RaftServiceClient};
use serde::{Serialize, de::DeserializeOwned};
use tonic::{
    Code, Response, Status,
    transport::{Channel, Endpoint},
};

use super::{MESSAGE_LIMIT, MESSAGE_VERSION, NodeId, Types};

/// Connecting takes no longer on a healthy network.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// How often a silent peer is asked whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(2);
/// How long it may take to answer.
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(2);
/// How often one that cannot be reached is tried.
const RETRY: Duration = Duration::from_millis(200);

type Failed<E> = RPCError<NodeId, BasicNode, E>;

/// Connections to the other coordinators; one for each address, dialled when needed.
#[derive(Clone, Default)]
pub struct Network {
    /// Held for a look only, never over an await.
    channels: Arc<Mutex<HashMap<String, Channel>>>,
}

impl Network {
    fn channel(&self, addr: &str) -> Result<Channel, tonic::transport::Error> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(addr) {
            return Ok(channel.clone());
        }
        let channel = Endpoint::from_shared(format!("http://{addr}"))?
            .connect_timeout(CONNECT_WITHIN)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE_ANSWER)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true)
            .connect_lazy();
        channels.insert(addr.to_owned(), channel.clone());
        Ok(channel)
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: NodeId, node: &BasicNode) -> Peer {
        Peer { target, addr: node.addr.clone(), network: self.clone() }
    }
}

/// Another coordinator.
pub struct Peer {
    target: NodeId,
    addr: String,
    network: Network,
}

impl Peer {
    fn client(&self) -> Result<RaftServiceClient<Channel>, Unreachable> {
        let channel = self.network.channel(&self.addr).map_err(|error| Unreachable::new(&error))?;
        Ok(RaftServiceClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT))
    }

    /// What the peer's answer says.
    fn answer<T, E>(&self, answer: &[u8]) -> Result<T, Failed<E>>
    where
        T: DeserializeOwned,
        E: DeserializeOwned + std::error::Error,
    {
        let answer: Result<T, E> =
            serde_json::from_slice(answer).map_err(|error| NetworkError::new(&error))?;
        answer.map_err(|error| RemoteError::new(self.target, error).into())
    }
}

fn message(value: &impl Serialize) -> Result<Vec<u8>, NetworkError> {
    serde_json::to_vec(value).map_err(|error| NetworkError::new(&error))
}

/// A call that came to nothing; one that could not even begin is tried again after a pause.
fn failed<E: std::error::Error>(status: &Status) -> Failed<E> {
    match status.code() {
        Code::Unavailable | Code::Unknown | Code::FailedPrecondition | Code::Unimplemented => {
            Unreachable::new(status).into()
        }
        _ => NetworkError::new(status).into(),
    }
}

impl RaftNetwork<Types> for Peer {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, Failed<RaftError<NodeId>>> {
        let message = message(&request)?;
        let request =
            v1::AppendEntriesRequest { version: MESSAGE_VERSION, to: self.target, message };
        let answer = self.client()?.append_entries(request).await.map(Response::into_inner);
        self.answer(&answer.map_err(|status| failed(&status))?.message)
    }

    async fn install_snapshot(
        &mut self,
        mut request: InstallSnapshotRequest<Types>,
        _: RPCOption,
    ) -> Result<InstallSnapshotResponse<NodeId>, Failed<RaftError<NodeId, InstallSnapshotError>>>
    {
        let data = std::mem::take(&mut request.data);
        let message = message(&request)?;
        let request =
            v1::InstallSnapshotRequest { version: MESSAGE_VERSION, to: self.target, message, data };
        let answer = self.client()?.install_snapshot(request).await.map(Response::into_inner);
        self.answer(&answer.map_err(|status| failed(&status))?.message)
    }

    async fn vote(
        &mut self,
        request: VoteRequest<NodeId>,
        _: RPCOption,
    ) -> Result<VoteResponse<NodeId>, Failed<RaftError<NodeId>>> {
        let message = message(&request)?;
        let request = v1::VoteRequest { version: MESSAGE_VERSION, to: self.target, message };
        let answer = self.client()?.vote(request).await.map(Response::into_inner);
        self.answer(&answer.map_err(|status| failed(&status))?.message)
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(RETRY))
    }
}
