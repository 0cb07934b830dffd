//! migrate: one VM.

use rackferry_proto::v1::{CreateMigrationRequest, Migration};

use super::{
    Context,
    follow::{MigrationWork, follow},
    request_id,
};
use crate::{
    args::Migrate,
    client::Client,
    exit::{self, Code, Failure},
    progress::Progress,
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
        print_unfinished(context, &migration);
        return Ok(Code::Done);
    }
    let mut progress = Progress::new(context.is_interactive());
    let work = MigrationWork(&migration.id);
    let last = follow(context, &work, args.wait.follow.timeout, |snapshot| {
        progress.show_one(snapshot);
        let is_last = snapshot.ended_unix_ms > 0;
        if !is_last {
            context.print_snapshot(|| render::json::migration(snapshot, Code::StillRunning));
        }
        is_last
    });
    let last = last.await?;
    progress.finish();
    let migration = last.unwrap_or(migration);
    if migration.ended_unix_ms == 0 {
        print_unfinished(context, &migration);
        return Ok(Code::StillRunning);
    }
    let code = exit::of_migration(&migration);
    context.print(
        || render::migration::outcome(&migration),
        || render::json::migration(&migration, code),
    );
    Ok(code)
}

fn print_unfinished(context: &Context, migration: &Migration) {
    context.print(
        || render::evacuation::detached(&migration.id),
        || render::json::migration(migration, Code::StillRunning),
    );
}
