//! force-switchover: one migration.

use rackferry_model::MigrationId;
use rackferry_proto::v1::ForceSwitchoverRequest;

use super::Context;
use crate::{
    client::Client,
    exit::{Code, Failure},
    render,
};

pub async fn run(context: &Context, id: String) -> Result<Code, Failure> {
    if id.parse::<MigrationId>().is_err() {
        return Err(Failure::Migration(id));
    }
    let request = ForceSwitchoverRequest { id };
    let force = async |client: Client| client.migrations().force_switchover(request.clone()).await;
    let answer = context.call(force).await?;
    let migration = answer.into_inner().migration.ok_or(Failure::Answer("migration"))?;
    context.print(
        || render::migration::forced(&migration),
        || render::json::migration(&migration, Code::Done),
    );
    Ok(Code::Done)
}
