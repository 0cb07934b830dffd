//! Hosts, VMs, links.

use rackferry_fleet::{Act, Done, Fleet, HostName, Installation, Refusal, VmName};
use rackferry_proto::v1::{
    AcceptVmSpecRequest, AcceptVmSpecResponse, CordonHostsRequest, CordonHostsResponse,
    DeclareHostDeadRequest, DeclareHostDeadResponse, ForgetHostRequest, ForgetHostResponse,
    ForgetVmRequest, ForgetVmResponse, GetInventoryRequest, GetInventoryResponse, GetVmRequest,
    GetVmResponse, Host, ImportInventoryRequest, ImportInventoryResponse, ListHostsRequest,
    ListHostsResponse, ListLinksRequest, ListLinksResponse, ListProblemsRequest,
    ListProblemsResponse, ListVmsRequest, ListVmsResponse, RepairProblemsRequest,
    RepairProblemsResponse, SetLinkLimitsRequest, SetLinkLimitsResponse, UncordonHostsRequest,
    UncordonHostsResponse, inventory_service_server::InventoryService,
};
use rackferry_tls::Tls;
use tonic::{Request, Response, Status};

use super::{answer, audit::recorded, page::Page};
use crate::{convert, doctor, driver::Handle};

/// The door for what there is.
pub struct Inventory {
    handle: Handle,
    tls: Option<Tls>,
}

impl Inventory {
    pub fn new(handle: Handle, tls: Option<Tls>) -> Self {
        Self { handle, tls }
    }

    async fn cordon(
        &self,
        places: Vec<String>,
        cordoned: bool,
        act: Act,
    ) -> Result<Vec<Host>, Status> {
        let places = convert::places(places, "places")?;
        let turn = move |fleet: &mut Fleet, now, out: &mut _| {
            let cordoned = fleet.cordon(&places, cordoned, now, out)?;
            let mut hosts = fleet.hosts();
            hosts.retain(|host| cordoned.contains(&host.name));
            let hosts: Vec<Host> = hosts.into_iter().map(convert::host).collect();
            let count = hosts.len();
            Ok(Done::new(hosts, format!("{count} hosts")))
        };
        answer(self.handle.act(act, turn).await?)
    }
}

#[tonic::async_trait]
impl InventoryService for Inventory {
    async fn list_hosts(
        &self,
        request: Request<ListHostsRequest>,
    ) -> Result<Response<ListHostsResponse>, Status> {
        let ListHostsRequest { rack, page_size, page_token } = request.into_inner();
        let page = Page::new(page_size, &page_token, |token| Some(HostName::from(token)))?;
        let published = self.handle.published().await?;
        let hosts = published.hosts().into_iter();
        let hosts = hosts.filter(|host| rack.is_empty() || host.rack.as_str() == rack);
        let (hosts, next_page_token) = page.cut(hosts, |host| host.name.clone(), |_| 1);
        let hosts = hosts.into_iter().cloned().map(convert::host).collect();
        Ok(Response::new(ListHostsResponse { hosts, next_page_token }))
    }

    async fn list_vms(
        &self,
        request: Request<ListVmsRequest>,
    ) -> Result<Response<ListVmsResponse>, Status> {
        let ListVmsRequest { rack, host, page_size, page_token } = request.into_inner();
        let page = Page::new(page_size, &page_token, |token| Some(VmName::from(token)))?;
        let published = self.handle.published().await?;
        let vms = published.vms().into_iter();
        let vms = vms
            .filter(|vm| rack.is_empty() || vm.rack.as_str() == rack)
            .filter(|vm| host.is_empty() || vm.owner.as_str() == host);
        let (vms, next_page_token) = page.cut(vms, |vm| vm.name.clone(), |_| 1);
        let vms = vms.into_iter().cloned().map(convert::vm).collect();
        Ok(Response::new(ListVmsResponse { vms, next_page_token }))
    }

    async fn get_vm(
        &self,
        request: Request<GetVmRequest>,
    ) -> Result<Response<GetVmResponse>, Status> {
        let name = VmName::new(request.into_inner().vm);
        let look = move |fleet: &Fleet, _| {
            let detail = fleet.vm_detail(&name, env!("CARGO_PKG_VERSION"));
            detail.map(convert::vm_detail).ok_or(Refusal::UnknownVm(name))
        };
        Ok(Response::new(answer(self.handle.ask(look).await?)?))
    }

    async fn import_inventory(
        &self,
        request: Request<ImportInventoryRequest>,
    ) -> Result<Response<ImportInventoryResponse>, Status> {
        recorded(&self.handle, request, |message, act| async move {
            let (text, topology, summary) = convert::import(message)?;
            let turn = move |fleet: &mut Fleet, now, out: &mut _| {
                let changed = fleet.import_inventory(text, topology, now, out);
                Ok(Done::new(changed, if changed { "" } else { "the same as before" }))
            };
            let changed = answer(self.handle.act(act, turn).await?)?;
            Ok(ImportInventoryResponse { changed, summary: Some(summary) })
        })
        .await
    }

    async fn get_inventory(
        &self,
        _: Request<GetInventoryRequest>,
    ) -> Result<Response<GetInventoryResponse>, Status> {
        let mut inventory = self.handle.ask(|fleet, _| convert::inventory(fleet)).await?;
        inventory.summary = convert::summary_of(&inventory.text);
        Ok(Response::new(inventory))
    }

    async fn list_links(
        &self,
        _: Request<ListLinksRequest>,
    ) -> Result<Response<ListLinksResponse>, Status> {
        let links = self.handle.ask(|fleet, _| convert::links(fleet)).await?;
        Ok(Response::new(ListLinksResponse { links }))
    }

    async fn set_link_limits(
        &self,
        request: Request<SetLinkLimitsRequest>,
    ) -> Result<Response<SetLinkLimitsResponse>, Status> {
        recorded(&self.handle, request, |message, act| async move {
            let limits = convert::link_limits(message.limits)?;
            let turn = move |fleet: &mut Fleet, now, out: &mut _| {
                fleet.set_limits(&limits, now, out)?;
                Ok(Done::new(convert::links(fleet), ""))
            };
            let links = answer(self.handle.act(act, turn).await?)?;
            Ok(SetLinkLimitsResponse { links })
        })
        .await
    }

    async fn cordon_hosts(
        &self,
        request: Request<CordonHostsRequest>,
    ) -> Result<Response<CordonHostsResponse>, Status> {
        recorded(&self.handle, request, |message, act| async move {
            let hosts = self.cordon(message.places, true, act).await?;
            Ok(CordonHostsResponse { hosts })
        })
        .await
    }

    async fn uncordon_hosts(
        &self,
        request: Request<UncordonHostsRequest>,
    ) -> Result<Response<UncordonHostsResponse>, Status> {
        recorded(&self.handle, request, |message, act| async move {
            let hosts = self.cordon(message.places, false, act).await?;
            Ok(UncordonHostsResponse { hosts })
        })
        .await
    }

    async fn declare_host_dead(
        &self,
        request: Request<DeclareHostDeadRequest>,
    ) -> Result<Response<DeclareHostDeadResponse>, Status> {
        recorded(&self.handle, request, |message, act| async move {
            let DeclareHostDeadRequest { host, installation_id } = message;
            let name = HostName::new(host);
            let meant = Some(installation_id).filter(|id| !id.is_empty()).map(Installation::new);
            let turn = move |fleet: &mut Fleet, now, out: &mut _| {
                fleet.declare_dead(&name, meant.as_ref(), now, out)?;
                let host = fleet.hosts().into_iter().find(|host| host.name == name);
                Ok(Done::new(host.map(convert::host), ""))
            };
            let host = answer(self.handle.act(act, turn).await?)?;
            Ok(DeclareHostDeadResponse { host })
        })
        .await
    }

    async fn forget_host(
        &self,
        request: Request<ForgetHostRequest>,
    ) -> Result<Response<ForgetHostResponse>, Status> {
        recorded(&self.handle, request, |message, act| async move {
            let name = HostName::new(message.host);
            let turn = move |fleet: &mut Fleet, now, out: &mut _| {
                fleet.forget_host(&name, now, out).map(|()| Done::new((), ""))
            };
            answer(self.handle.act(act, turn).await?)?;
            Ok(ForgetHostResponse {})
        })
        .await
    }

    async fn forget_vm(
        &self,
        request: Request<ForgetVmRequest>,
    ) -> Result<Response<ForgetVmResponse>, Status> {
        recorded(&self.handle, request, |message, act| async move {
            let name = VmName::new(message.vm);
            let turn = move |fleet: &mut Fleet, now, out: &mut _| {
                fleet.forget_vm(&name, now, out).map(|()| Done::new((), ""))
            };
            answer(self.handle.act(act, turn).await?)?;
            Ok(ForgetVmResponse {})
        })
        .await
    }

    async fn accept_vm_spec(
        &self,
        request: Request<AcceptVmSpecRequest>,
    ) -> Result<Response<AcceptVmSpecResponse>, Status> {
        recorded(&self.handle, request, |message, act| async move {
            let AcceptVmSpecRequest { vm, spec_toml } = message;
            let name = VmName::new(vm);
            let turn = move |fleet: &mut Fleet, now, out: &mut _| {
                let host = fleet.accept_spec(&name, &spec_toml, now, out)?;
                Ok(Done::new((), format!("as {host} reports it")))
            };
            answer(self.handle.act(act, turn).await?)?;
            Ok(AcceptVmSpecResponse {})
        })
        .await
    }

    async fn list_problems(
        &self,
        _: Request<ListProblemsRequest>,
    ) -> Result<Response<ListProblemsResponse>, Status> {
        let problems = doctor::problems(&self.handle, self.tls.as_ref()).await?;
        Ok(Response::new(ListProblemsResponse { problems }))
    }

    async fn repair_problems(
        &self,
        request: Request<RepairProblemsRequest>,
    ) -> Result<Response<RepairProblemsResponse>, Status> {
        recorded(&self.handle, request, |_, act| async move {
            let turn = |fleet: &mut Fleet, now, out: &mut _| {
                let repaired = fleet.repair(now, out);
                let count = repaired.len();
                Ok(Done::new(repaired, format!("{count} leftovers removed")))
            };
            let repaired = answer(self.handle.act(act, turn).await?)?;
            let repaired = repaired.into_iter().map(convert::problem).collect();
            Ok(RepairProblemsResponse { repaired })
        })
        .await
    }
}
