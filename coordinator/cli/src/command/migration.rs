//! migration list, migration show.

use rackferry_model::MigrationId;
use rackferry_proto::v1::{GetMigrationRequest, ListMigrationsRequest};

use super::{Context, watch_one};
use crate::{
    args::Migration,
    client::Client,
    ending,
    exit::{Code, Failure},
    render,
    units::now_unix_ms,
};

pub async fn run(context: &Context, args: Migration) -> Result<Code, Failure> {
    match args {
        Migration::List { all } => list(context, all).await,
        Migration::Show { id, watch } => show(context, id, watch).await,
    }
}

async fn list(context: &Context, all: bool) -> Result<Code, Failure> {
    let page = async |client: Client, page_token| {
        let request = ListMigrationsRequest { active_only: !all, page_token, ..Default::default() };
        let page = client.migrations().list_migrations(request).await?.into_inner();
        Ok((page.migrations, page.next_page_token))
    };
    let migrations = context.pages(page).await?;
    context.print(
        || render::migration::list(&migrations, now_unix_ms()),
        || render::json::migrations(&migrations),
    );
    Ok(Code::Done)
}

async fn show(context: &Context, id: String, watch: bool) -> Result<Code, Failure> {
    if id.parse::<MigrationId>().is_err() {
        return Err(Failure::Migration(id));
    }
    let request = GetMigrationRequest { id };
    let get = async |client: Client| client.migrations().get_migration(request.clone()).await;
    let answer = context.call(get).await?;
    let migration = answer.into_inner().migration.ok_or(Failure::Answer("migration"))?;
    if watch {
        return watch_one::to_the_end(context, migration, None).await;
    }
    let code = ending::of_migration(&migration);
    context.print(
        || render::migration::detail(&migration, now_unix_ms()),
        || render::json::migration(&migration, code),
    );
    Ok(code)
}
