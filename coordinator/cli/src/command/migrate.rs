//! migrate: one VM.

use rackferry_proto::v1::CreateMigrationRequest;

use super::{Context, request_id, watch_one};
use crate::{
    args::Migrate,
    client::Client,
    exit::{Code, Failure},
    render,
};

pub async fn run(context: &Context, args: Migrate) -> Result<Code, Failure> {
    let request = CreateMigrationRequest {
        vm: args.vm,
        target_host: args.to,
        options: Some(args.how.options().into()),
        request_id: request_id(args.wait.request_id),
    };
    let create = async |client: Client| client.migrations().create_migration(request.clone()).await;
    let answer = context.call(create).await?;
    let migration = answer.into_inner().migration.ok_or(Failure::Answer("migration"))?;
    if args.wait.follow.detach {
        context.print(
            || render::migration::detached(&migration),
            || render::json::detached_migration(&migration),
        );
        return Ok(Code::Done);
    }
    watch_one::to_the_end(context, migration, args.wait.follow.timeout).await
}
