//! vm list, host list.

use rackferry_proto::v1::{ListHostsRequest, ListVmsRequest};

use super::Context;
use crate::{
    client::Client,
    exit::{Code, Failure},
    render,
};

pub async fn vms(context: &Context, rack: String, host: String) -> Result<Code, Failure> {
    let mut request = ListVmsRequest { rack, host, ..Default::default() };
    let mut vms = Vec::new();
    loop {
        let list = async |client: Client| client.inventory().list_vms(request.clone()).await;
        let page = context.call(list).await?.into_inner();
        vms.extend(page.vms);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    context.print(|| render::inventory::vms(&vms), || render::json::vms(&vms));
    Ok(Code::Done)
}

pub async fn hosts(context: &Context, rack: String) -> Result<Code, Failure> {
    let mut request = ListHostsRequest { rack, ..Default::default() };
    let mut hosts = Vec::new();
    loop {
        let list = async |client: Client| client.inventory().list_hosts(request.clone()).await;
        let page = context.call(list).await?.into_inner();
        hosts.extend(page.hosts);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    context.print(|| render::inventory::hosts(&hosts), || render::json::hosts(&hosts));
    Ok(Code::Done)
}
