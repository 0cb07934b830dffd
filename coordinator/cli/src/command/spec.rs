//! vm spec, vm accept-spec: how a VM is started elsewhere, and what its host would have instead.

use rackferry_proto::v1::{AcceptVmSpecRequest, GetVmRequest, GetVmResponse};

use super::{Context, confirm};
use crate::{
    client::Client,
    exit::{Code, Failure},
    render,
};

pub async fn show(context: &Context, vm: String) -> Result<Code, Failure> {
    let detail = get(context, vm).await?;
    context.print(|| render::spec::file(&detail), || render::spec::json(&detail));
    Ok(Code::Done)
}

pub async fn accept(context: &Context, vm: String, yes: bool) -> Result<Code, Failure> {
    let detail = get(context, vm.clone()).await?;
    if !yes && let Some(difference) = render::spec::difference(&detail) {
        eprintln!("{difference}");
        confirm::accept()?;
    }
    // What was shown: if the agent says something else by now, nothing is accepted.
    let spec_toml = detail.specs.clone().unwrap_or_default().reported_toml;
    let request = AcceptVmSpecRequest { vm: vm.clone(), spec_toml };
    let accept = async |client: Client| client.inventory().accept_vm_spec(request.clone()).await;
    context.call(accept).await?;
    let now = get(context, vm).await?;
    context.print(|| render::spec::accepted(&now), || render::spec::json(&now));
    Ok(Code::Done)
}

async fn get(context: &Context, vm: String) -> Result<GetVmResponse, Failure> {
    let request = GetVmRequest { vm };
    let get = async |client: Client| client.inventory().get_vm(request.clone()).await;
    Ok(context.call(get).await?.into_inner())
}
