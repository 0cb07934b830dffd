//! Which coordinators form the cluster, and how that changes.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use openraft::{
    BasicNode, ChangeMembers,
    error::{ChangeMembershipError, ClientWriteError, RaftError},
};
use rackferry_fleet::{Act, Done};
use rackferry_proto::{
    Reason, refuse,
    v1::{
        AddNodeRequest, AddNodeResponse, BackupClusterRequest, Cluster, ClusterNode,
        GetClusterRequest, GetClusterResponse, NodeRole, RemoveNodeRequest, RemoveNodeResponse,
        cluster_service_server::ClusterService,
    },
};
use tokio::time::timeout;
use tonic::{Request, Response, Status};

use crate::{
    driver::Handle,
    gate::leader_elsewhere,
    raft::{Metrics, Network, NodeId, Raft},
};

use super::{
    answer,
    audit::recorded,
    backups::{Backups, Parts},
    majority::Voters,
};

/// How long a change of the members may take. What was begun goes on; asked again, it is finished.
const CHANGE_WITHIN: Duration = Duration::from_secs(20);
/// How far behind a newcomer may be when it gets its vote.
const CLOSE: u64 = 100;
/// The longest address of a coordinator, in bytes.
const ADDR_LIMIT: usize = 255;

/// What events say of a change that has begun.
const BEGUN: &str = "begun";
/// The same of one that is complete.
const DONE: &str = "done";

/// The service for the members of the cluster.
pub struct Clusters {
    handle: Handle,
    raft: Raft,
    network: Network,
    backups: Backups,
}

impl Clusters {
    pub fn new(handle: Handle, raft: Raft, network: Network, backups: Backups) -> Self {
        Self { handle, raft, network, backups }
    }

    fn view(&self) -> Cluster {
        view(&self.raft.metrics().borrow())
    }

    /// Writes down what is about to begin, and later that it is done: members are no records of the fleet, so no write has
    /// both. The coordinator that is removed may not be there to write the second.
    async fn tell(&self, act: &Act, detail: &'static str) -> Result<(), Status> {
        answer(self.handle.act(act.clone(), move |_, _, _| Ok(Done::new((), detail))).await?)
    }

    async fn add(&self, id: NodeId, addr: String, act: &Act) -> Result<(), Status> {
        let members = self.raft.metrics().borrow().membership_config.membership().clone();
        let clash = members.nodes().find(|(known, node)| (**known == id) != (node.addr == addr));
        if let Some((known, node)) = clash {
            let text = format!("coordinator {known} is at {}", node.addr);
            return Err(refuse(Reason::InvalidArgument, text));
        }
        if members.voter_ids().any(|voter| voter == id) {
            return Ok(());
        }
        let lonely = members.nodes().find(|(_, node)| is_everywhere(&node.addr));
        if let Some((known, node)) = lonely {
            let text = format!(
                "coordinator {known} cannot be reached at {}: give it cluster.peers with its address",
                node.addr
            );
            return Err(refuse(Reason::InvalidArgument, text));
        }
        self.tell(act, BEGUN).await?;
        self.raft.add_learner(id, BasicNode::new(addr), false).await.map_err(refused)?;
        let mut metrics = self.raft.metrics();
        let close = metrics.wait_for(|seen| matched(seen, id).is_some_and(|at| is_close(seen, at)));
        close.await.map_err(|_| self.handle.away())?;
        let voters = ChangeMembers::AddVoterIds(BTreeSet::from([id]));
        self.raft.change_membership(voters, true).await.map_err(refused)?;
        Ok(())
    }

    async fn remove(&self, id: NodeId, act: &Act) -> Result<(), Status> {
        let members = self.raft.metrics().borrow().membership_config.membership().clone();
        if members.get_node(&id).is_none() {
            return Err(refuse(Reason::UnknownNode, format!("there is no coordinator {id}")));
        }
        let ids = BTreeSet::from([id]);
        let change = if members.voter_ids().any(|voter| voter == id) {
            let left = Voters::of(&self.raft.metrics().borrow(), &self.network).without(id);
            left.check_majority(
                &format!("removing coordinator {id}"),
                "Remove those first, or bring them back.",
            )?;
            ChangeMembers::RemoveVoters(ids)
        } else {
            ChangeMembers::RemoveNodes(ids)
        };
        self.tell(act, BEGUN).await?;
        self.raft.change_membership(change, false).await.map_err(refused)?;
        Ok(())
    }
}

/// `0.0.0.0` and the like: good for listening, not for calling.
fn is_everywhere(addr: &str) -> bool {
    addr.parse::<SocketAddr>().is_ok_and(|addr| addr.ip().is_unspecified())
}

/// How far a node's log is known to be the leader's.
fn matched(metrics: &Metrics, id: NodeId) -> Option<u64> {
    Some(metrics.replication.as_ref()?.get(&id)?.as_ref()?.index)
}

fn is_close(metrics: &Metrics, matched: u64) -> bool {
    matched + CLOSE >= metrics.last_log_index.unwrap_or_default()
}

fn refused(error: RaftError<NodeId, ClientWriteError<NodeId, BasicNode>>) -> Status {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(to)) => {
            let leader = to.leader_node.map(|node| node.addr);
            rackferry_proto::refuse_not_leader(leader.as_deref())
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => match error {
            ChangeMembershipError::InProgress(_) => {
                refuse(Reason::MembershipBusy, "another change of the members is under way")
            }
            ChangeMembershipError::EmptyMembership(_) => {
                refuse(Reason::InvalidArgument, "the last coordinator cannot be removed")
            }
            ChangeMembershipError::LearnerNotFound(error) => {
                refuse(Reason::UnknownNode, error.to_string())
            }
        },
        RaftError::Fatal(fatal) => Status::internal(fatal.to_string()),
    }
}

fn late(_: tokio::time::error::Elapsed) -> Status {
    refuse(Reason::MembershipBusy, "it takes long and goes on; look at the status, or ask again")
}

fn view(metrics: &Metrics) -> Cluster {
    let members = metrics.membership_config.membership();
    let voters: BTreeSet<NodeId> = members.voter_ids().collect();
    let leader = metrics.current_leader;
    let nodes = members.nodes().map(|(&id, node)| {
        let role = match voters.contains(&id) {
            _ if leader == Some(id) => NodeRole::Leader,
            true => NodeRole::Follower,
            false => NodeRole::Learner,
        };
        let matched_index = matched(metrics, id);
        ClusterNode { id, addr: node.addr.clone(), role: role.into(), matched_index }
    });
    let itself = leader.filter(|&id| id == metrics.id).and_then(|id| members.get_node(&id));
    Cluster {
        node_id: metrics.id,
        leader_id: leader.unwrap_or_default(),
        leader_addr: itself
            .map(|node| node.addr.clone())
            .or_else(|| leader_elsewhere(metrics))
            .unwrap_or_default(),
        term: metrics.current_term,
        last_log_index: metrics.last_log_index.unwrap_or_default(),
        applied_index: metrics.last_applied.map_or(0, |id| id.index),
        snapshot_index: metrics.snapshot.map_or(0, |id| id.index),
        purged_index: metrics.purged.map_or(0, |id| id.index),
        nodes: nodes.collect(),
    }
}

#[tonic::async_trait]
impl ClusterService for Clusters {
    type BackupClusterStream = Parts;

    async fn backup_cluster(
        &self,
        request: Request<BackupClusterRequest>,
    ) -> Result<Response<Parts>, Status> {
        self.handle.admit().await?;
        recorded(&self.handle, request, |_, act| async move {
            // Who took the key of the domain is written down. Whatever was answered before is in the backup.
            answer(self.handle.act(act, |_, _, _| Ok(Done::new((), ""))).await?)?;
            self.backups.make().await
        })
        .await
    }

    async fn get_cluster(
        &self,
        _: Request<GetClusterRequest>,
    ) -> Result<Response<GetClusterResponse>, Status> {
        Ok(Response::new(GetClusterResponse { cluster: Some(self.view()) }))
    }

    async fn add_node(
        &self,
        request: Request<AddNodeRequest>,
    ) -> Result<Response<AddNodeResponse>, Status> {
        self.handle.admit().await?;
        recorded(&self.handle, request, |message, act| async move {
            let AddNodeRequest { id, addr } = message;
            let host_and_port = addr.rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok()
            });
            if id == 0 || addr.len() > ADDR_LIMIT || !host_and_port {
                let text = "a coordinator has a number above 0 and an address host:port";
                return Err(refuse(Reason::InvalidArgument, text));
            }
            timeout(CHANGE_WITHIN, self.add(id, addr, &act)).await.map_err(late)??;
            self.tell(&act, DONE).await?;
            Ok(AddNodeResponse { cluster: Some(self.view()) })
        })
        .await
    }

    async fn remove_node(
        &self,
        request: Request<RemoveNodeRequest>,
    ) -> Result<Response<RemoveNodeResponse>, Status> {
        self.handle.admit().await?;
        recorded(&self.handle, request, |message, act| async move {
            timeout(CHANGE_WITHIN, self.remove(message.id, &act)).await.map_err(late)??;
            // It may have removed itself.
            let _ = self.tell(&act, DONE).await;
            Ok(RemoveNodeResponse { cluster: Some(self.view()) })
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_to_listen_on_is_none_to_call() {
        assert!(is_everywhere("0.0.0.0:7400") && is_everywhere("[::]:7400"));
        assert!(!is_everywhere("10.0.0.1:7400") && !is_everywhere("c1.example:7400"));
    }
}
