//! cancel: an evacuation or a migration.

use rackferry_proto::v1::{CancelEvacuationRequest, CancelMigrationRequest};

use super::Context;
use crate::{
    args::Cancel,
    exit::{Code, Failure},
    render,
};

pub async fn run(context: &Context, args: Cancel) -> Result<Code, Failure> {
    let id = args.id;
    if id.starts_with("evac-") {
        let request = CancelEvacuationRequest { id };
        let answer = context.client.evacuations().cancel_evacuation(request).await?;
        let evacuation = answer.into_inner().evacuation.ok_or(Failure::Answer("evacuation"))?;
        context.print(
            || render::evacuation::cancelled(&evacuation),
            || render::json::evacuation(&evacuation),
        );
    } else if id.starts_with("mig-") {
        let request = CancelMigrationRequest { id };
        let answer = context.client.migrations().cancel_migration(request).await?;
        let migration = answer.into_inner().migration.ok_or(Failure::Answer("migration"))?;
        context.print(
            || render::migration::cancelled(&migration),
            || render::json::migration(&migration, Code::of_migration(&migration)),
        );
    } else {
        return Err(Failure::Name(id));
    }
    Ok(Code::Done)
}
