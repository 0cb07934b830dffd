//! vm list, host list.

use rackferry_proto::v1::{Host, ListHostsRequest, ListVmsRequest};

use super::Context;
use crate::{
    client::Client,
    exit::{Code, Failure},
    render,
};

pub async fn vms(context: &Context, rack: String, host: String) -> Result<Code, Failure> {
    let request = ListVmsRequest { rack, host, ..ListVmsRequest::default() };
    let page = async |client: Client, page_token| {
        let request = ListVmsRequest { page_token, ..request.clone() };
        let page = client.inventory().list_vms(request).await?.into_inner();
        Ok((page.vms, page.next_page_token))
    };
    let vms = context.pages(page).await?;
    context.print(|| render::inventory::vms(&vms), || render::json::vms(&vms));
    Ok(Code::Done)
}

pub async fn hosts(context: &Context, rack: String) -> Result<Code, Failure> {
    let hosts = all_hosts(context, rack).await?;
    context.print(|| render::inventory::hosts(&hosts), || render::json::hosts(&hosts));
    Ok(Code::Done)
}

/// Every host of a rack, or of all if it is empty.
pub async fn all_hosts(context: &Context, rack: String) -> Result<Vec<Host>, Failure> {
    let request = ListHostsRequest { rack, ..ListHostsRequest::default() };
    let page = async |client: Client, page_token| {
        let request = ListHostsRequest { page_token, ..request.clone() };
        let page = client.inventory().list_hosts(request).await?.into_inner();
        Ok((page.hosts, page.next_page_token))
    };
    context.pages(page).await
}
