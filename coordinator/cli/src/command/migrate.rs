//! migrate: one VM.

use std::time::{Duration, Instant};

use rackferry_proto::v1::{CreateMigrationRequest, GetMigrationRequest, Migration};

use super::{Context, request_id};
use crate::{
    args::Migrate,
    client::Client,
    exit::{Code, Failure},
    progress::Progress,
    render,
};

/// How often it is asked for.
const POLL: Duration = Duration::from_millis(250);
/// How long a coordinator may be away.
const PATIENCE: Duration = Duration::from_secs(60);

pub async fn run(context: &Context, args: Migrate) -> Result<Code, Failure> {
    let request = CreateMigrationRequest {
        vm: args.vm,
        target_host: args.to,
        options: Some(args.how.options()),
        request_id: request_id(args.wait.request_id),
    };
    let create = async |client: Client| client.migrations().create_migration(request.clone()).await;
    let answer = context.call(create).await?;
    let mut migration = answer.into_inner().migration.ok_or(Failure::Answer("migration"))?;
    if args.wait.patience.detach {
        print_unfinished(context, &migration);
        return Ok(Code::Done);
    }
    let deadline = args.wait.patience.timeout.map(|timeout| Instant::now() + timeout);
    let mut progress = Progress::new(context.is_interactive());
    let mut client = context.client.clone();
    let mut away_since = None;
    while migration.ended_unix_ms == 0 {
        progress.show_one(&migration);
        let interrupted = tokio::select! {
            () = tokio::time::sleep(POLL) => false,
            interrupt = tokio::signal::ctrl_c() => { interrupt?; true }
        };
        if interrupted || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            progress.finish();
            print_unfinished(context, &migration);
            return Ok(Code::StillRunning);
        }
        match get(&client, &migration.id).await {
            Ok(now) => {
                if now != migration && now.ended_unix_ms == 0 {
                    context.print_snapshot(|| render::json::migration(&now, Code::StillRunning));
                }
                migration = now;
                away_since = None;
            }
            Err(failure) => {
                let since = *away_since.get_or_insert_with(Instant::now);
                if failure.code() != Code::Unreachable || since.elapsed() > PATIENCE {
                    return Err(failure);
                }
                if let Ok(again) = Client::connect(&context.coordinators).await {
                    client = again;
                }
            }
        }
    }
    progress.finish();
    context.print(
        || render::migration::outcome(&migration),
        || render::json::migration(&migration, Code::of_migration(&migration)),
    );
    Ok(Code::of_migration(&migration))
}

async fn get(client: &Client, id: &str) -> Result<Migration, Failure> {
    let request = GetMigrationRequest { id: id.to_owned() };
    let answer = client.migrations().get_migration(request).await?;
    answer.into_inner().migration.ok_or(Failure::Answer("migration"))
}

fn print_unfinished(context: &Context, migration: &Migration) {
    context.print(
        || render::evacuation::detached(&migration.id),
        || render::json::migration(migration, Code::StillRunning),
    );
}
