//! host declare-dead, host forget, vm forget: what no agent can say any more.

use rackferry_proto::v1::{DeclareHostDeadRequest, ForgetHostRequest, ForgetVmRequest};

use super::{Context, confirm, list};
use crate::{
    client::Client,
    exit::{Code, Failure},
    render,
};

pub async fn declare_dead(context: &Context, host: String, yes: bool) -> Result<Code, Failure> {
    let hosts = list::all_hosts(context, String::new()).await?;
    let known = hosts.into_iter().find(|known| known.name == host);
    // Said again, it must not be taken for the installation that has taken the place.
    let installation_id = known.map(|known| known.installation_id).unwrap_or_default();
    if !yes {
        eprintln!(
            "{host} must be powered off for good: VMs that still run there would run twice.\n\
             What moved to it and may have run there is lost, even where a stopped copy is left."
        );
        confirm::type_name(&host)?;
    }
    let request = DeclareHostDeadRequest { host, installation_id };
    let declare =
        async |client: Client| client.inventory().declare_host_dead(request.clone()).await;
    let answer = context.call(declare).await?.into_inner();
    let host = answer.host.ok_or(Failure::Answer("host"))?;
    let hosts = std::slice::from_ref(&host);
    context.print(|| render::site::declared_dead(&host), || render::json::hosts(hosts));
    Ok(Code::Done)
}

pub async fn forget_host(context: &Context, host: String) -> Result<Code, Failure> {
    let request = ForgetHostRequest { host };
    let forget = async |client: Client| client.inventory().forget_host(request.clone()).await;
    context.call(forget).await?;
    context.print(|| render::site::forgotten(&request.host), || render::json::hosts(&[]));
    Ok(Code::Done)
}

pub async fn forget_vm(context: &Context, vm: String) -> Result<Code, Failure> {
    let request = ForgetVmRequest { vm };
    let forget = async |client: Client| client.inventory().forget_vm(request.clone()).await;
    context.call(forget).await?;
    context.print(|| render::site::forgotten(&request.vm), || render::json::vms(&[]));
    Ok(Code::Done)
}
