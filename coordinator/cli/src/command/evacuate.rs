//! evacuate: show the plan, ask, start, wait.

use rackferry_proto::{
    Reason,
    v1::{CreateEvacuationRequest, CreateEvacuationResponse, Evacuation, StayingVm},
};

use super::{Context, confirm, request_id, watch};
use crate::{
    args::{Evacuate, Follow},
    client::Client,
    exit::{Code, Failure},
    render,
};

pub async fn run(context: &Context, args: Evacuate) -> Result<Code, Failure> {
    let request = args.what.request(request_id(args.wait.request_id));
    if !args.yes {
        let plan = CreateEvacuationRequest { validate_only: true, ..request.clone() };
        let Some(plan) = create(context, plan).await? else { return Ok(Code::Done) };
        let evacuation = plan.evacuation.ok_or(Failure::Answer("evacuation"))?;
        eprintln!("{}", render::plan::screen(&evacuation, &plan.blocked, &[]));
        if !plan.blocked.is_empty() {
            return Ok(Code::NotFeasible);
        }
        confirm::agree()?;
    }
    start(context, request, &args.wait.follow).await
}

/// Starts it, and waits for its end.
pub async fn start(
    context: &Context,
    request: CreateEvacuationRequest,
    how: &Follow,
) -> Result<Code, Failure> {
    let Some(answer) = create(context, request).await? else { return Ok(Code::Done) };
    let evacuation = answer.evacuation.ok_or(Failure::Answer("evacuation"))?;
    follow(context, &evacuation, &[], how).await
}

/// Waits for the end of what was started, if that is wanted. `staying` were left out.
pub async fn follow(
    context: &Context,
    evacuation: &Evacuation,
    staying: &[StayingVm],
    how: &Follow,
) -> Result<Code, Failure> {
    if how.detach {
        context.print(
            || render::follow::goes_on(&evacuation.id),
            || render::json::detached_evacuation(evacuation, staying),
        );
        return Ok(Code::Done);
    }
    watch::to_the_deadline(context, &evacuation.id, staying, how.timeout).await
}

/// Nothing to move is as good as done.
pub async fn create(
    context: &Context,
    request: CreateEvacuationRequest,
) -> Result<Option<CreateEvacuationResponse>, Failure> {
    let create =
        async |client: Client| client.evacuations().create_evacuation(request.clone()).await;
    match context.call(create).await {
        Ok(answer) => Ok(Some(answer.into_inner())),
        Err(failure) => {
            if failure.reason() != Some(Reason::NothingToMove) {
                return Err(failure);
            }
            context.print(
                || "Nothing to move.".to_owned(),
                || render::json::evacuation(&Evacuation::default(), &[], Code::Done),
            );
            Ok(None)
        }
    }
}
