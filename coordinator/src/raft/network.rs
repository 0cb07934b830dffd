//! Calls to other coordinators.
#![allow(clippy::result_large_err, reason = "the errors are those of openraft's traits")]

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
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
use rackferry_tls::{Tls, grpc};
use serde::{Serialize, de::DeserializeOwned};
use tonic::{Status, transport::Channel};

use super::{Identity, MESSAGE_LIMIT, MESSAGE_VERSION, NodeId, Types, command::LATEST};

/// Connecting takes no longer on a healthy network.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// How often a silent peer is asked whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(2);
/// How long a silent peer may take to answer.
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(2);
/// How often a peer that cannot be reached is tried.
const RETRY: Duration = Duration::from_millis(200);

/// A coordinator that has not answered for so long does not: it is called with every heartbeat.
const ANSWERED_WITHIN: Duration = Duration::from_secs(3);

type Failed<E> = RPCError<NodeId, BasicNode, E>;

/// Connections to the other coordinators; one for each address, dialled when needed.
#[derive(Clone)]
pub struct Network {
    identity: Identity,
    tls: Option<Tls>,
    /// By address. Held for a look only, never over an await.
    known: Arc<Mutex<HashMap<String, Known>>>,
}

struct Known {
    channel: Channel,
    /// The last call came to nothing.
    away: bool,
    /// When it answered last.
    answered: Option<Instant>,
    /// The latest version of an entry that it reads, as it said last; 0 before.
    reads: u32,
}

impl Network {
    pub fn new(identity: Identity, tls: Option<Tls>) -> Self {
        Self { identity, tls, known: Arc::default() }
    }

    fn channel(&self, addr: &str) -> Result<Channel, tonic::transport::Error> {
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(addr) {
            return Ok(known.channel.clone());
        }
        let endpoint = grpc::endpoint(addr)?
            .connect_timeout(CONNECT_WITHIN)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE_ANSWER)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        let channel = grpc::connect_lazy(&endpoint, self.tls.as_ref());
        all.insert(
            addr.to_owned(),
            Known { channel: channel.clone(), away: false, answered: None, reads: 0 },
        );
        Ok(channel)
    }

    /// The latest version of an entry that every one of these coordinators reads, as far as they have said.
    pub fn read_by_all<'a>(&self, addrs: impl IntoIterator<Item = &'a str>) -> u32 {
        let all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let reads = |addr: &str| all.get(addr).map_or(0, |known| known.reads);
        addrs.into_iter().map(reads).min().unwrap_or(LATEST)
    }

    /// Whether this coordinator has answered lately.
    pub fn answers(&self, addr: &str) -> bool {
        let all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let answered = all.get(addr).and_then(|known| known.answered);
        answered.is_some_and(|at| at.elapsed() < ANSWERED_WITHIN)
    }

    fn note_version(&self, addr: &str, reads: u32) {
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get_mut(addr) {
            known.reads = reads;
        }
    }

    /// Tells the operator when a coordinator goes or comes, and not with every call.
    fn note(&self, target: NodeId, addr: &str, failed: Option<&Status>) {
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = all.get_mut(addr) else { return };
        if failed.is_none() {
            known.answered = Some(Instant::now());
        }
        if std::mem::replace(&mut known.away, failed.is_some()) == failed.is_some() {
            return;
        }
        match failed {
            Some(status) => {
                tracing::warn!(coordinator = target, addr, why = status.message(), "not reached");
            }
            None => tracing::info!(coordinator = target, addr, "reached again"),
        }
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: NodeId, node: &BasicNode) -> Peer {
        Peer { target, addr: node.addr.clone(), network: self.clone() }
    }
}

/// The connection to another coordinator.
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

    fn cluster(&self) -> String {
        self.network.identity.name().to_owned()
    }

    /// What the peer's answer says.
    fn answer<T, E>(&self, answer: Result<Vec<u8>, Status>) -> Result<T, Failed<E>>
    where
        T: DeserializeOwned,
        E: DeserializeOwned + std::error::Error,
    {
        self.network.note(self.target, &self.addr, answer.as_ref().err());
        // Whatever it was, it is tried again after a pause.
        let answer = answer.map_err(|status| Unreachable::new(&status))?;
        let answer: Result<T, E> =
            serde_json::from_slice(&answer).map_err(|error| NetworkError::new(&error))?;
        answer.map_err(|error| RemoteError::new(self.target, error).into())
    }
}

fn message(value: &impl Serialize) -> Result<Vec<u8>, NetworkError> {
    serde_json::to_vec(value).map_err(|error| NetworkError::new(&error))
}

impl RaftNetwork<Types> for Peer {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, Failed<RaftError<NodeId>>> {
        let message = message(&request)?;
        let (version, to, cluster) = (MESSAGE_VERSION, self.target, self.cluster());
        let request = v1::AppendEntriesRequest { version, to, cluster, message };
        let answer = self.client()?.append_entries(request).await.map(|answer| {
            let v1::AppendEntriesResponse { message, reads } = answer.into_inner();
            self.network.note_version(&self.addr, reads);
            message
        });
        self.answer(answer)
    }

    async fn install_snapshot(
        &mut self,
        mut request: InstallSnapshotRequest<Types>,
        _: RPCOption,
    ) -> Result<InstallSnapshotResponse<NodeId>, Failed<RaftError<NodeId, InstallSnapshotError>>>
    {
        let data = std::mem::take(&mut request.data);
        let message = message(&request)?;
        let (version, to, cluster) = (MESSAGE_VERSION, self.target, self.cluster());
        let request = v1::InstallSnapshotRequest { version, to, cluster, message, data };
        let answer = self.client()?.install_snapshot(request).await;
        self.answer(answer.map(|answer| answer.into_inner().message))
    }

    async fn vote(
        &mut self,
        request: VoteRequest<NodeId>,
        _: RPCOption,
    ) -> Result<VoteResponse<NodeId>, Failed<RaftError<NodeId>>> {
        let message = message(&request)?;
        let (version, to, cluster) = (MESSAGE_VERSION, self.target, self.cluster());
        let request = v1::VoteRequest { version, to, cluster, message };
        let answer = self.client()?.vote(request).await;
        self.answer(answer.map(|answer| answer.into_inner().message))
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(RETRY))
    }
}
