//! pause, resume, cordon, uncordon.

use rackferry_model::EvacuationId;
use rackferry_proto::v1::{
    CordonHostsRequest, PauseEvacuationRequest, ResumeEvacuationRequest, UncordonHostsRequest,
};

use super::Context;
use crate::{
    client::Client,
    exit::{Code, Failure},
    render,
};

pub async fn pause(context: &Context, id: String, paused: bool) -> Result<Code, Failure> {
    if id.parse::<EvacuationId>().is_err() {
        return Err(Failure::Evacuation(id));
    }
    let evacuation = if paused {
        let request = PauseEvacuationRequest { id };
        let pause =
            async |client: Client| client.evacuations().pause_evacuation(request.clone()).await;
        context.call(pause).await?.into_inner().evacuation
    } else {
        let request = ResumeEvacuationRequest { id };
        let resume =
            async |client: Client| client.evacuations().resume_evacuation(request.clone()).await;
        context.call(resume).await?.into_inner().evacuation
    };
    let evacuation = evacuation.ok_or(Failure::Answer("evacuation"))?;
    context.print(
        || render::evacuation::held(&evacuation),
        || render::json::evacuation(&evacuation, &[], Code::Done),
    );
    Ok(Code::Done)
}

pub async fn cordon(
    context: &Context,
    places: Vec<String>,
    cordoned: bool,
) -> Result<Code, Failure> {
    let hosts = if cordoned {
        let request = CordonHostsRequest { places };
        let cordon = async |client: Client| client.inventory().cordon_hosts(request.clone()).await;
        context.call(cordon).await?.into_inner().hosts
    } else {
        let request = UncordonHostsRequest { places };
        let open = async |client: Client| client.inventory().uncordon_hosts(request.clone()).await;
        context.call(open).await?.into_inner().hosts
    };
    context.print(|| render::site::cordoned(&hosts, cordoned), || render::json::hosts(&hosts));
    Ok(Code::Done)
}
