//! doctor: what is not as it should be.

use std::time::{Duration, Instant};

use rackferry_proto::v1::{ListProblemsRequest, Problem, RepairProblemsRequest};

use super::Context;
use crate::{
    args::Doctor,
    client::Client,
    exit::{self, Code, Failure},
    render,
};

/// How long leftovers may take to go: an agent reports every 2 s.
const GONE_WITHIN: Duration = Duration::from_secs(5);
/// How often they are looked for.
const LOOK: Duration = Duration::from_millis(300);

pub async fn run(context: &Context, args: Doctor) -> Result<Code, Failure> {
    let repaired = if args.repair { repair(context).await? } else { Vec::new() };
    let mut problems = list(context).await?;
    let begin = Instant::now();
    while repaired.iter().any(|one| is_among(one, &problems)) && begin.elapsed() < GONE_WITHIN {
        tokio::time::sleep(LOOK).await;
        problems = list(context).await?;
    }
    context.print(
        || render::doctor::problems(&problems, &repaired),
        || render::json::problems(&problems, &repaired),
    );
    Ok(exit::of_problems(&problems))
}

fn is_among(one: &Problem, problems: &[Problem]) -> bool {
    let is_same =
        |other: &Problem| (one.code, &one.host, &one.vm) == (other.code, &other.host, &other.vm);
    problems.iter().any(is_same)
}

async fn list(context: &Context) -> Result<Vec<Problem>, Failure> {
    let list =
        async |client: Client| client.inventory().list_problems(ListProblemsRequest {}).await;
    Ok(context.call(list).await?.into_inner().problems)
}

async fn repair(context: &Context) -> Result<Vec<Problem>, Failure> {
    let repair =
        async |client: Client| client.inventory().repair_problems(RepairProblemsRequest {}).await;
    Ok(context.call(repair).await?.into_inner().repaired)
}
