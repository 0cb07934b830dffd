//! evacuate: show the plan, ask, start, wait.

use std::io::{BufRead, IsTerminal, Write};

use rackferry_proto::{
    Reason,
    v1::{CreateEvacuationRequest, Evacuation},
};

use super::{Context, request_id, watch};
use crate::{
    args::Evacuate,
    client::Client,
    exit::{Code, Failure},
    render,
};

pub async fn run(context: &Context, args: Evacuate) -> Result<Code, Failure> {
    let request = CreateEvacuationRequest {
        sources: args.sources,
        targets: args.to,
        options: Some(args.how.options()),
        request_id: request_id(args.wait.request_id.clone()),
        validate_only: false,
        link_limits: args.link_limit.into_iter().map(Into::into).collect(),
        deadline_ms: args
            .deadline
            .map_or(0, |after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
    };
    // A plan is for somebody who can still say no.
    if !args.yes && context.is_interactive() && std::io::stdin().is_terminal() {
        let plan = CreateEvacuationRequest { validate_only: true, ..request.clone() };
        let Some(plan) = create(context, plan).await? else { return Ok(Code::Done) };
        eprintln!("{}", render::evacuation::plan(&plan));
        if !ask()? {
            return Err(Failure::Declined);
        }
    }
    let Some(evacuation) = create(context, request).await? else { return Ok(Code::Done) };
    if args.wait.detach {
        context.print(
            || render::evacuation::detached(&evacuation.id),
            || render::json::evacuation(&evacuation),
        );
        return Ok(Code::Done);
    }
    let id = evacuation.id.clone();
    watch::to_the_deadline(context, &id, args.wait.timeout).await
}

/// Nothing to move is as good as done.
async fn create(
    context: &Context,
    request: CreateEvacuationRequest,
) -> Result<Option<Evacuation>, Failure> {
    let create =
        async |client: Client| client.evacuations().create_evacuation(request.clone()).await;
    match context.call(create).await {
        Ok(answer) => answer.into_inner().evacuation.map(Some).ok_or(Failure::Answer("evacuation")),
        Err(failure) => {
            if failure.reason() != Some(Reason::NothingToMove) {
                return Err(failure);
            }
            context.print(
                || "Nothing to move.".to_owned(),
                || render::json::evacuation(&Evacuation::default()),
            );
            Ok(None)
        }
    }
}

fn ask() -> Result<bool, Failure> {
    eprint!("Start? [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
