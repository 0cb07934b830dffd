//! What a client was told is on record from then on.

use rackferry_fleet::{Change, End, EvacuationId, HostName, Key, MigrationId, Record, Stage};

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
    /// This token of a host is used up.
    TokenUsed(HostName, String),
}

impl Acknowledged {
    /// The record that keeps it, if it is one that may be forgotten once what it is about has ended.
    pub(super) fn kept_by(&self) -> Option<Key> {
        match self {
            Self::Evacuation(id, _) | Self::Cancelled(id) => Some(Key::Evacuation(*id)),
            Self::Migration(id, _) => Some(Key::Migration(*id)),
            Self::TokenUsed(..) => None,
        }
    }
}

/// What had ended when it was forgotten holds no answer any more.
pub(super) fn forgotten(world: &mut World, change: &Change) -> Option<String> {
    let Change::Remove(key) = change else { return None };
    let ended = match world.truth.records.get(key)? {
        Record::Evacuation(record) => record.ended.is_some(),
        Record::Migration(record) => matches!(record.stage, Stage::Ended { .. }),
        _ => return None,
    };
    if !ended {
        return Some(format!("{key:?} is forgotten, and has not ended"));
    }
    world.watch.acknowledged.retain(|said| said.kept_by().as_ref() != Some(key));
    world.watch.forgotten.insert(key.clone());
    if let Some(Record::Migration(record)) = world.truth.records.get(key)
        && matches!(record.stage, Stage::Ended { end: End::Lost | End::Ended, .. })
    {
        world.watch.lost.insert(key.clone());
    }
    None
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
        Acknowledged::TokenUsed(host, digest) => matches!(
            records.get(&Key::Token(host.clone())),
            Some(Record::Token(token)) if token.digest == *digest
        ),
    });
    broken.map(|said| format!("{said:?} was answered and is not on record"))
}
