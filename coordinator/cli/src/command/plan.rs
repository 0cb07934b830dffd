//! plan and apply: what would be done, kept in a file, and done later.

use std::path::PathBuf;

use rackferry_proto::v1::CreateEvacuationRequest;

use super::{Context, evacuate, request_id};
use crate::{
    args::{Apply, Plan},
    exit::{Code, Failure},
    plan_file, render,
};

pub async fn plan(context: &Context, args: Plan) -> Result<Code, Failure> {
    let id = request_id(None);
    let path = args.out.unwrap_or_else(|| PathBuf::from(format!("plan-{}.json", &id[..8])));
    let options = args.what.how.options();
    let request = args.what.request(id);
    let ask = CreateEvacuationRequest { validate_only: true, ..request.clone() };
    let Some(answer) = evacuate::create(context, ask).await? else { return Ok(Code::Done) };
    let evacuation = answer.evacuation.ok_or(Failure::Answer("evacuation"))?;
    let blocked = answer.blocked;
    let file = if blocked.is_empty() {
        plan_file::Plan::new(request, options, &evacuation).write(&path)?;
        Some(path.display().to_string())
    } else {
        None
    };
    let saved = || match &file {
        Some(file) => format!("\nSaved {file}. Start it with: rackferry apply {file}"),
        None => String::new(),
    };
    let code = match (&file, evacuation.left_out.is_empty()) {
        (None, _) => Code::NotFeasible,
        (Some(_), true) => Code::Done,
        (Some(_), false) => Code::Incomplete,
    };
    context.print(
        || render::plan::screen(&evacuation, &blocked, &[]) + &saved(),
        || render::json::plan(&evacuation, &blocked, file.as_deref(), code),
    );
    Ok(code)
}

pub async fn apply(context: &Context, args: Apply) -> Result<Code, Failure> {
    let plan = plan_file::Plan::read(&args.file)?;
    evacuate::start(context, plan.request(), &args.follow).await
}
