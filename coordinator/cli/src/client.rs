//! The connection to the coordinator.

use std::time::Duration;

use rackferry_proto::v1::{
    evacuation_service_client::EvacuationServiceClient,
    inventory_service_client::InventoryServiceClient,
    migration_service_client::MigrationServiceClient,
};
use tonic::transport::{Channel, Endpoint};

use crate::exit::Failure;

/// How long connecting may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How often a silent coordinator is asked whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// A connected coordinator.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
}

impl Client {
    /// Connects. Cancel safe.
    ///
    /// # Errors
    /// If the address is none or nobody answers there.
    pub async fn connect(address: &str) -> Result<Self, Failure> {
        let uri =
            if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
        let endpoint = Endpoint::from_shared(uri)
            .map_err(|_| Failure::Address(address.to_owned()))?
            .connect_timeout(CONNECT_WITHIN)
            .http2_keep_alive_interval(KEEPALIVE);
        let channel = endpoint
            .connect()
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
}

/// The largest answer: half a KiB for each of 100,000 VMs.
const ANSWER_LIMIT: usize = 64 << 20;
