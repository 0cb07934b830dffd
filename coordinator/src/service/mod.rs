//! The gRPC doors.

mod agent;
mod evacuation;
mod inventory;
mod migration;

use std::time::Duration;

use rackferry_fleet::Refusal;
use rackferry_proto::{
    FILE_DESCRIPTOR_SET, Reason, refuse,
    v1::{
        agent_service_server::AgentServiceServer,
        evacuation_service_server::EvacuationServiceServer,
        inventory_service_server::InventoryServiceServer,
        migration_service_server::MigrationServiceServer,
    },
};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, transport::Server};

use crate::{
    convert,
    driver::{Gone, Handle},
};

/// How often a silent peer is asked whether it is there, and how long it may take to answer. A peer that
/// does not is disconnected; ownership does not depend on it.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// See [`KEEPALIVE`].
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(10);

/// Serves every service until `shutdown`. Not cancel safe.
///
/// # Errors
/// If the listener fails.
pub async fn serve(
    handle: Handle,
    listener: TcpListenerStream,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let (health, health_service) = tonic_health::server::health_reporter();
    let agents = AgentServiceServer::new(agent::Agents::new(handle.clone(), shutdown.clone()));
    let evacuations = EvacuationServiceServer::new(evacuation::Evacuations::new(
        handle.clone(),
        shutdown.clone(),
    ));
    let migrations = MigrationServiceServer::new(migration::Migrations::new(handle.clone()));
    let inventory = InventoryServiceServer::new(inventory::Inventory::new(handle));
    health.set_serving::<AgentServiceServer<agent::Agents>>().await;
    health.set_serving::<EvacuationServiceServer<evacuation::Evacuations>>().await;
    health.set_serving::<MigrationServiceServer<migration::Migrations>>().await;
    health.set_serving::<InventoryServiceServer<inventory::Inventory>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_ANSWER))
        .add_service(health_service)
        .add_service(reflection)
        .add_service(agents)
        .add_service(evacuations)
        .add_service(migrations)
        .add_service(inventory)
        .serve_with_incoming_shutdown(listener, shutdown.cancelled_owned())
        .await?;
    Ok(())
}

fn going_down() -> Status {
    refuse(Reason::ShuttingDown, Gone.to_string())
}

impl From<Gone> for Status {
    fn from(_: Gone) -> Self {
        going_down()
    }
}

/// What a turn gives: refused by the fleet, or a value.
fn answer<T>(answer: Result<T, Refusal>) -> Result<T, Status> {
    answer.map_err(|refusal| convert::refusal(&refusal))
}
