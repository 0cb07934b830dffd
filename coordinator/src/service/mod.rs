//! The gRPC services of a coordinator.

mod access;
mod agent;
mod audit;
mod backups;
mod check;
mod cluster;
mod enrolment;
mod evacuation;
mod event;
mod expulsion;
mod health;
mod inventory;
mod majority;
mod migration;
mod page;
mod raft;
mod watch;

use std::time::Duration;

use rackferry_fleet::Refusal;
use rackferry_proto::{
    FILE_DESCRIPTOR_SET, Reason, refuse, refuse_not_leader,
    v1::{
        agent_service_server::AgentServiceServer, check_service_server::CheckServiceServer,
        cluster_service_server::ClusterServiceServer,
        enrolment_service_server::EnrolmentServiceServer,
        evacuation_service_server::EvacuationServiceServer,
        event_service_server::EventServiceServer, inventory_service_server::InventoryServiceServer,
        join_service_server::JoinServiceServer, migration_service_server::MigrationServiceServer,
        raft_service_server::RaftServiceServer,
    },
};
use rackferry_tls::{Admission, Tls, grpc};
use tokio::net::TcpListener;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, transport::Server};

use crate::{
    convert,
    driver::Handle,
    gate::Away,
    raft::{Applied, Identity, MESSAGE_LIMIT, Network, NodeId, Raft},
};

/// How often a silent peer is asked whether it is there, and how long it may take to answer. A peer that
/// does not is disconnected; ownership does not depend on it.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// What goes with an inventory file in its message.
const ROOM: usize = 4096;
/// See [`KEEPALIVE`].
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(10);

/// What the services need beside the fleet.
pub struct Doors {
    /// Which coordinator this is.
    pub id: NodeId,
    /// The cluster that the coordinator is in.
    pub identity: Identity,
    /// The replicated log.
    pub raft: Raft,
    /// The way to the other coordinators.
    pub network: Network,
    /// What the log has come to.
    pub applied: Applied,
    /// The certificates, unless TLS is off.
    pub tls: Option<Tls>,
    /// How many callers are taken.
    pub admission: Admission,
    /// Cancelled when the services close.
    pub shutdown: CancellationToken,
}

/// Serves every service until the shutdown. Not cancel safe.
///
/// # Errors
/// If the listener fails.
pub async fn serve(handle: Handle, doors: Doors, listener: TcpListener) -> anyhow::Result<()> {
    let Doors { id, identity, raft, network, applied, tls, admission, shutdown } = doors;
    let (reporter, health_service) = tonic_health::server::health_reporter();
    let health = health::Health::of(&raft, reporter).await;
    tokio::spawn(health.keep(shutdown.clone()));
    let refusals = handle.refusals().clone();
    let agents = AgentServiceServer::new(agent::Agents::new(handle.clone(), shutdown.clone()));
    let evacuations = EvacuationServiceServer::new(evacuation::Evacuations::new(
        handle.clone(),
        shutdown.clone(),
    ));
    let migrations =
        MigrationServiceServer::new(migration::Migrations::new(handle.clone(), shutdown.clone()));
    let checks = CheckServiceServer::new(check::Checks::new(handle.clone()));
    let inventory =
        InventoryServiceServer::new(inventory::Inventory::new(handle.clone(), tls.clone()))
            .max_decoding_message_size(rackferry_inventory::SIZE_LIMIT + ROOM);
    let enrolment =
        enrolment::Enrolments::new(handle.clone(), tls.clone(), raft.metrics(), network.clone());
    let enrolments = EnrolmentServiceServer::new(enrolment.clone());
    let events = EventServiceServer::new(event::Events::new(handle.clone(), shutdown.clone()));
    let cluster = ClusterServiceServer::new(cluster::Clusters::new(
        handle,
        raft.clone(),
        network,
        backups::Backups::new(applied, identity.clone()),
    ));
    let log = RaftServiceServer::new(raft::Log::new(id, identity, raft))
        .max_decoding_message_size(MESSAGE_LIMIT);
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let (members, newcomers) = grpc::incoming(listener, tls, admission);
    // A caller without a certificate finds this one service, at doors of its own.
    let joining = Server::builder()
        .concurrency_limit_per_connection(1)
        .add_service(JoinServiceServer::new(enrolment))
        .serve_with_incoming_shutdown(
            ReceiverStream::new(newcomers),
            shutdown.clone().cancelled_owned(),
        );
    let serving = Server::builder()
        .layer(access::Guarded::new(refusals))
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_ANSWER))
        .add_service(health_service)
        .add_service(reflection)
        .add_service(agents)
        .add_service(evacuations)
        .add_service(migrations)
        .add_service(inventory)
        .add_service(checks)
        .add_service(cluster)
        .add_service(events)
        .add_service(enrolments)
        .add_service(log)
        .serve_with_incoming_shutdown(ReceiverStream::new(members), shutdown.cancelled_owned());
    tokio::try_join!(serving, joining)?;
    Ok(())
}

pub use expulsion::{denial, view as expelled};

fn going_down() -> Status {
    Away::ShuttingDown.into()
}

impl From<Away> for Status {
    fn from(away: Away) -> Self {
        match &away {
            Away::ShuttingDown => refuse(Reason::ShuttingDown, away.to_string()),
            Away::NotLeader { leader } => refuse_not_leader(leader.as_deref()),
        }
    }
}

/// What a turn gives: refused by the fleet, or a value.
fn answer<T>(answer: Result<T, Refusal>) -> Result<T, Status> {
    answer.map_err(|refusal| convert::refusal(&refusal))
}

/// How long after it has begun to lead a coordinator waits for agents before it plans: all of them dial again.
const AGENTS_RETURN: Duration = Duration::from_secs(5);
/// How often the coordinator looks whether the agents are back.
const RETURN_LOOK: Duration = Duration::from_millis(100);

/// Returns once no agent is expected back, or the wait is over: what is planned before would leave hosts out.
///
/// # Errors
/// If this coordinator does not lead.
async fn agents_back(handle: &Handle) -> Result<(), Away> {
    let within = AGENTS_RETURN.as_nanos() as u64;
    while handle.ask(move |fleet, now| fleet.awaits_agents(now, within)).await? {
        tokio::time::sleep(RETURN_LOOK).await;
    }
    Ok(())
}

/// How often moves are planned for one request, if what they were planned by changes before they start.
const PLANS: usize = 3;

/// Why moves did not start.
enum Begun {
    /// What they were planned by has changed.
    Changed(Refusal),
    /// The moves are refused.
    Refused(Status),
}

impl From<Refusal> for Begun {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::PlanChanged(_) => Self::Changed(refusal),
            other => Self::Refused(convert::refusal(&other)),
        }
    }
}

impl From<Away> for Begun {
    fn from(away: Away) -> Self {
        Self::Refused(away.into())
    }
}

impl From<Status> for Begun {
    fn from(status: Status) -> Self {
        Self::Refused(status)
    }
}

/// Plans, checks and starts: the moves that were checked are those that start. If the site has changed in between, all of
/// it is done again.
async fn planned_anew<T, F: Future<Output = Result<T, Begun>>>(
    begin: impl Fn() -> F,
) -> Result<T, Status> {
    let mut plans = 1;
    loop {
        match begin().await {
            Ok(value) => return Ok(value),
            Err(Begun::Refused(status)) => return Err(status),
            Err(Begun::Changed(_)) if plans < PLANS => plans += 1,
            Err(Begun::Changed(refusal)) => return Err(convert::refusal(&refusal)),
        }
    }
}
