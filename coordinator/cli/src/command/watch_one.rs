//! Shows a single migration until it has ended.

use std::time::Duration;

use rackferry_proto::v1::Migration;

use super::{
    Context,
    follow::{MigrationWork, Next, follow},
};
use crate::{
    ending,
    exit::{Code, Failure},
    progress::Progress,
    render,
};

/// Shows a migration until it has ended, then what became of it. `migration` is how it stood at first.
///
/// # Errors
/// If it is not known, or the coordinator is away for too long.
pub async fn to_the_end(
    context: &Context,
    migration: Migration,
    timeout: Option<Duration>,
) -> Result<Code, Failure> {
    let mut progress = Progress::new(context.is_interactive());
    let work = MigrationWork(&migration.id);
    let last = follow(context, &work, timeout, |snapshot| {
        progress.show_one(snapshot);
        if snapshot.ended_unix_ms > 0 {
            return Next::Ends;
        }
        context.print_snapshot(|| render::json::migration_snapshot(snapshot));
        if ending::is_stuck_one(snapshot) { Next::Stuck } else { Next::GoesOn }
    });
    let last = last.await?;
    progress.finish();
    let migration = last.unwrap_or(migration);
    let code = ending::of_migration(&migration);
    let text = || {
        if migration.ended_unix_ms > 0 {
            render::migration::outcome(&migration)
        } else if ending::is_stuck_one(&migration) {
            render::migration::stuck_alone(&migration)
        } else {
            render::follow::goes_on(&migration.id)
        }
    };
    context.print(text, || render::json::migration(&migration, code));
    Ok(code)
}
