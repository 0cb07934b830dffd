//! What a client was told is on record from then on.

use rackferry_fleet::{EvacuationId, Key, MigrationId, Record};

use crate::world::World;

/// Something a client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acknowledged {
    /// This evacuation is under way, for this request.
    Evacuation(EvacuationId, String),
    /// This move is.
    Migration(MigrationId, String),
    /// This evacuation is stopped.
    Cancelled(EvacuationId),
}

pub(super) fn check(world: &World) -> Option<String> {
    let records = &world.truth.records;
    let broken = world.watch.acknowledged.iter().find(|said| match said {
        Acknowledged::Evacuation(id, request) => !matches!(
            records.get(&Key::Evacuation(*id)),
            Some(Record::Evacuation(record)) if record.request == *request
        ),
        Acknowledged::Migration(id, request) => !matches!(
            records.get(&Key::Migration(*id)),
            Some(Record::Migration(record)) if record.request.as_ref() == Some(request)
        ),
        Acknowledged::Cancelled(id) => !matches!(
            records.get(&Key::Evacuation(*id)),
            Some(Record::Evacuation(record)) if record.cancelled || record.ended.is_some()
        ),
    });
    broken.map(|said| format!("{said:?} was answered and is not on record"))
}
