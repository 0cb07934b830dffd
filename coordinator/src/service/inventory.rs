//! Hosts and VMs.

use rackferry_proto::v1::{
    ListHostsRequest, ListHostsResponse, ListVmsRequest, ListVmsResponse,
    inventory_service_server::InventoryService,
};
use tonic::{Request, Response, Status};

use crate::{convert, driver::Handle};

/// The door for looking.
pub struct Inventory {
    handle: Handle,
}

impl Inventory {
    pub fn new(handle: Handle) -> Self {
        Self { handle }
    }
}

#[tonic::async_trait]
impl InventoryService for Inventory {
    async fn list_hosts(
        &self,
        request: Request<ListHostsRequest>,
    ) -> Result<Response<ListHostsResponse>, Status> {
        let rack = request.into_inner().rack;
        let hosts = self.handle.ask(|fleet, _, _| fleet.hosts()).await?;
        let hosts = hosts.into_iter().map(convert::host);
        let hosts = hosts.filter(|host| rack.is_empty() || host.rack == rack).collect();
        Ok(Response::new(ListHostsResponse { hosts }))
    }

    async fn list_vms(
        &self,
        request: Request<ListVmsRequest>,
    ) -> Result<Response<ListVmsResponse>, Status> {
        let ListVmsRequest { rack, host } = request.into_inner();
        let vms = self.handle.ask(|fleet, _, _| fleet.vms()).await?;
        let vms = vms.into_iter().map(convert::vm);
        let vms = vms
            .filter(|vm| rack.is_empty() || vm.rack == rack)
            .filter(|vm| host.is_empty() || vm.host == host)
            .collect();
        Ok(Response::new(ListVmsResponse { vms }))
    }
}
