//! restore: bring VMs back.

use rackferry_model::EvacuationId;
use rackferry_proto::v1::{RestoreEvacuationRequest, RestoreEvacuationResponse};

use super::{Context, confirm, evacuate, request_id};
use crate::{
    args::Restore,
    client::Client,
    exit::{Code, Failure},
    render,
};

pub async fn run(context: &Context, args: Restore) -> Result<Code, Failure> {
    if args.evacuation.parse::<EvacuationId>().is_err() {
        return Err(Failure::Evacuation(args.evacuation));
    }
    let request = RestoreEvacuationRequest {
        id: args.evacuation,
        options: Some(args.how.options().into()),
        request_id: request_id(args.wait.request_id),
        validate_only: false,
    };
    if !args.yes {
        let plan = RestoreEvacuationRequest { validate_only: true, ..request.clone() };
        let plan = restore(context, plan).await?;
        let evacuation = plan.evacuation.ok_or(Failure::Answer("evacuation"))?;
        eprintln!("{}", render::plan::screen(&evacuation, &plan.blocked, &plan.staying));
        if !plan.blocked.is_empty() {
            return Ok(Code::NotFeasible);
        }
        confirm::agree()?;
    }
    let answer = restore(context, request).await?;
    let evacuation = answer.evacuation.ok_or(Failure::Answer("evacuation"))?;
    if args.yes && !answer.staying.is_empty() {
        eprintln!("{}", render::plan::staying(&answer.staying));
    }
    evacuate::follow(context, &evacuation, &answer.staying, &args.wait.follow).await
}

async fn restore(
    context: &Context,
    request: RestoreEvacuationRequest,
) -> Result<RestoreEvacuationResponse, Failure> {
    let restore =
        async |client: Client| client.evacuations().restore_evacuation(request.clone()).await;
    Ok(context.call(restore).await?.into_inner())
}
