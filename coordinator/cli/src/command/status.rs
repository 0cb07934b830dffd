//! status: what goes on.

use rackferry_proto::v1::{GetEvacuationRequest, ListEvacuationsRequest};

use super::{Context, watch};
use crate::{
    args::Status,
    client::Client,
    ending,
    exit::{Code, Failure},
    render,
    units::now_unix_ms,
};

pub async fn run(context: &Context, args: Status) -> Result<Code, Failure> {
    let Some(id) = args.evacuation else { return all(context, args.watch).await };
    if args.watch {
        return watch::to_the_end(context, &id, &[], None).await;
    }
    let request = GetEvacuationRequest { id };
    let get = async |client: Client| client.evacuations().get_evacuation(request.clone()).await;
    let answer = context.call(get).await?;
    let evacuation = answer.into_inner().evacuation.ok_or(Failure::Answer("evacuation"))?;
    let code = ending::of_evacuation(&evacuation);
    context.print(
        || render::evacuation::detail(&evacuation, now_unix_ms()),
        || render::json::evacuation(&evacuation, &[], code),
    );
    Ok(code)
}

async fn all(context: &Context, watch_latest: bool) -> Result<Code, Failure> {
    let page = async |client: Client, page_token| {
        let request = ListEvacuationsRequest { page_token, ..ListEvacuationsRequest::default() };
        let page = client.evacuations().list_evacuations(request).await?.into_inner();
        Ok((page.evacuations, page.next_page_token))
    };
    let evacuations = context.pages(page).await?;
    if watch_latest {
        let active = evacuations.iter().rev().find(|one| !ending::is_over(one));
        if let Some(latest) = active {
            return watch::to_the_end(context, &latest.id, &[], None).await;
        }
    }
    context.print(
        || render::evacuation::list(&evacuations),
        || render::json::evacuations(&evacuations),
    );
    Ok(Code::Done)
}
