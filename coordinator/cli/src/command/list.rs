//! vm list, host list.

use rackferry_proto::v1::{ListHostsRequest, ListVmsRequest};

use super::Context;
use crate::{
    client::Client,
    exit::{Code, Failure},
    render,
};

pub async fn vms(context: &Context, rack: String, host: String) -> Result<Code, Failure> {
    let request = ListVmsRequest { rack, host };
    let list = async |client: Client| client.inventory().list_vms(request.clone()).await;
    let vms = context.call(list).await?.into_inner().vms;
    context.print(|| render::inventory::vms(&vms), || render::json::vms(&vms));
    Ok(Code::Done)
}

pub async fn hosts(context: &Context, rack: String) -> Result<Code, Failure> {
    let request = ListHostsRequest { rack };
    let list = async |client: Client| client.inventory().list_hosts(request.clone()).await;
    let hosts = context.call(list).await?.into_inner().hosts;
    context.print(|| render::inventory::hosts(&hosts), || render::json::hosts(&hosts));
    Ok(Code::Done)
}
