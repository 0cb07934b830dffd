//! The connection to the coordinator that leads.

use std::time::{Duration, Instant};

use rackferry_proto::reason_of;
use rackferry_proto::v1::{
    self, GetClusterRequest, check_service_client::CheckServiceClient,
    cluster_service_client::ClusterServiceClient, enrolment_service_client::EnrolmentServiceClient,
    evacuation_service_client::EvacuationServiceClient, event_service_client::EventServiceClient,
    inventory_service_client::InventoryServiceClient,
    migration_service_client::MigrationServiceClient,
};
use rackferry_tls::{Tls, grpc};
use tonic::{Code, transport::Channel};

use crate::exit::Failure;

/// How long connecting may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How long a coordinator may take to name the leader.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// How often a silent coordinator is asked whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// How long a leader is looked for, if there are coordinators at all: longer than an election takes.
const FIND_WITHIN: Duration = Duration::from_secs(10);
/// The pause between two rounds.
const RETRY: Duration = Duration::from_millis(300);

/// Addresses of coordinators, and the caller's certificate.
pub struct Coordinators {
    /// At least one.
    pub addresses: Vec<String>,
    /// The own certificate, unless TLS is off.
    pub tls: Option<Tls>,
}

/// A connected coordinator.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
}

/// What is found at an address.
enum Found {
    /// The leader, or a coordinator that knows of no others.
    Leader(Client),
    /// A coordinator that names the leader; empty if it knows none.
    Follower(Client, String),
}

impl Client {
    /// Connects to the coordinator that leads, whichever of the addresses answers. Cancel safe.
    ///
    /// # Errors
    /// If an address is none, no coordinator answers, or none leads for too long.
    pub async fn connect(known: &Coordinators) -> Result<Self, Failure> {
        let begin = Instant::now();
        loop {
            if let (Some(leader), _) = Self::look(known).await? {
                return Ok(leader);
            }
            if begin.elapsed() > FIND_WITHIN {
                return Err(Failure::NoLeader(known.addresses.join(", ")));
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Connects to the leader, or to another coordinator that answers. Cancel safe.
    ///
    /// # Errors
    /// If an address is none or no coordinator answers.
    pub async fn connect_any(known: &Coordinators) -> Result<Self, Failure> {
        let (leader, other) = Self::look(known).await?;
        leader.or(other).ok_or_else(|| Failure::NoLeader(known.addresses.join(", ")))
    }

    /// One round of the addresses: the leader, and another coordinator.
    async fn look(known: &Coordinators) -> Result<(Option<Self>, Option<Self>), Failure> {
        let (mut other, mut failure) = (None, None);
        for address in &known.addresses {
            match Self::ask(address, known).await {
                Ok(Found::Leader(leader)) => return Ok((Some(leader), other)),
                Ok(Found::Follower(follower, leader)) => {
                    other = Some(follower);
                    if !leader.is_empty()
                        && let Ok(Found::Leader(leader)) = Self::ask(&leader, known).await
                    {
                        return Ok((Some(leader), other));
                    }
                }
                Err(error @ Failure::Address(_)) => return Err(error),
                Err(error) => failure = Some(error),
            }
        }
        match (other, failure) {
            (None, Some(failure)) => Err(failure),
            (other, _) => Ok((None, other)),
        }
    }

    async fn ask(address: &str, known: &Coordinators) -> Result<Found, Failure> {
        let client = Self::dial(address, known.tls.as_ref()).await?;
        let mut cluster = client.cluster();
        let asked = cluster.get_cluster(GetClusterRequest {});
        let cluster = match tokio::time::timeout(ANSWER_WITHIN, asked).await {
            Ok(Ok(answer)) => answer.into_inner().cluster.ok_or(Failure::Answer("cluster"))?,
            // One of before there were others.
            Ok(Err(status)) if status.code() == Code::Unimplemented => {
                return Ok(Found::Leader(client));
            }
            // It hung up at the first words.
            Ok(Err(status)) if known.tls.is_none() && reason_of(&status).is_none() => {
                return Err(Failure::NoTls(address.to_owned()));
            }
            Ok(Err(status)) => return Err(status.into()),
            Err(_) => return Err(tonic::Status::unavailable(format!("{address} is silent")).into()),
        };
        let v1::Cluster { node_id, leader_id, leader_addr, .. } = cluster;
        if node_id == leader_id {
            return Ok(Found::Leader(client));
        }
        Ok(Found::Follower(client, leader_addr))
    }

    async fn dial(address: &str, tls: Option<&Tls>) -> Result<Self, Failure> {
        let endpoint = grpc::endpoint(address)
            .map_err(|_| Failure::Address(address.to_owned()))?
            .connect_timeout(CONNECT_WITHIN)
            .http2_keep_alive_interval(KEEPALIVE);
        let channel = grpc::connect(&endpoint, tls)
            .await
            .map_err(|source| Failure::Unreachable { address: address.to_owned(), source })?;
        Ok(Self { channel })
    }

    pub fn evacuations(&self) -> EvacuationServiceClient<Channel> {
        EvacuationServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_LIMIT)
    }

    pub fn migrations(&self) -> MigrationServiceClient<Channel> {
        MigrationServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_LIMIT)
    }

    pub fn inventory(&self) -> InventoryServiceClient<Channel> {
        InventoryServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_LIMIT)
    }

    pub fn checks(&self) -> CheckServiceClient<Channel> {
        CheckServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_LIMIT)
    }

    pub fn events(&self) -> EventServiceClient<Channel> {
        EventServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_LIMIT)
    }

    pub fn enrolment(&self) -> EnrolmentServiceClient<Channel> {
        EnrolmentServiceClient::new(self.channel.clone())
    }

    pub fn cluster(&self) -> ClusterServiceClient<Channel> {
        ClusterServiceClient::new(self.channel.clone())
    }
}

/// The largest answer: half a KiB for each of 100,000 VMs.
const ANSWER_LIMIT: usize = 64 << 20;
