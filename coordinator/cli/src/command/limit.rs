//! limit set, limit show.

use rackferry_proto::v1::{ListLinksRequest, SetLinkLimitsRequest};

use super::Context;
use crate::{
    args::Limit,
    client::Client,
    exit::{Code, Failure},
    render,
};

pub async fn run(context: &Context, args: Limit) -> Result<Code, Failure> {
    let links = match args {
        Limit::Set { limits } => {
            let limits = limits.into_iter().map(Into::into).collect();
            let request = SetLinkLimitsRequest { limits };
            let set =
                async |client: Client| client.inventory().set_link_limits(request.clone()).await;
            context.call(set).await?.into_inner().links
        }
        Limit::Show => {
            let list =
                async |client: Client| client.inventory().list_links(ListLinksRequest {}).await;
            context.call(list).await?.into_inner().links
        }
    };
    context.print(|| render::site::links(&links), || render::json::links(&links));
    Ok(Code::Done)
}
