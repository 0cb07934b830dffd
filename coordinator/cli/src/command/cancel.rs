//! cancel: an evacuation or a migration.

use rackferry_model::{EvacuationId, MigrationId};
use rackferry_proto::v1::{CancelEvacuationRequest, CancelMigrationRequest};

use super::Context;
use crate::{
    args::Cancel,
    client::Client,
    exit::{Code, Failure},
    render,
};

pub async fn run(context: &Context, args: Cancel) -> Result<Code, Failure> {
    let id = args.id;
    if id.parse::<EvacuationId>().is_ok() {
        let request = CancelEvacuationRequest { id };
        let cancel =
            async |client: Client| client.evacuations().cancel_evacuation(request.clone()).await;
        let answer = context.call(cancel).await?;
        let evacuation = answer.into_inner().evacuation.ok_or(Failure::Answer("evacuation"))?;
        context.print(
            || render::evacuation::cancelled(&evacuation),
            || render::json::evacuation(&evacuation, &[], Code::Done),
        );
    } else if id.parse::<MigrationId>().is_ok() {
        let request = CancelMigrationRequest { id };
        let cancel =
            async |client: Client| client.migrations().cancel_migration(request.clone()).await;
        let answer = context.call(cancel).await?;
        let migration = answer.into_inner().migration.ok_or(Failure::Answer("migration"))?;
        context.print(
            || render::migration::cancelled(&migration),
            || render::json::migration(&migration, Code::Done),
        );
    } else {
        return Err(Failure::Name(id));
    }
    Ok(Code::Done)
}
