//! Single moves for people.

use rackferry_proto::v1::{Migration, Phase};

use super::{evacuation, word};

/// A move at its end.
pub fn outcome(one: &Migration) -> String {
    let transfer = evacuation::transfer(&one.counters.unwrap_or_default());
    match one.phase() {
        Phase::Done => format!(
            "{}: VM {} moved from {} to {} in {}, blackout {} ms\n{transfer}",
            one.id,
            one.vm,
            one.source_host,
            one.target_host,
            evacuation::time(one),
            one.blackout_ms,
        ),
        _ => format!("{}: VM {} {}: {}", one.id, one.vm, evacuation::outcome_of(one), one.reason),
    }
}

/// What becomes of a move whose VM is to be stopped.
pub fn forced(one: &Migration) -> String {
    let (id, vm) = (&one.id, &one.vm);
    if one.ended_unix_ms > 0 {
        return format!("{id} is over: VM {vm} {}", evacuation::outcome_of(one));
    }
    format!("{id}: VM {vm} is stopped as soon as its first pass is over, for as long as it takes")
}

/// What becomes of a cancelled move.
pub fn cancelled(one: &Migration) -> String {
    let phase = word::phase(one.phase());
    match one.phase() {
        Phase::Switching | Phase::Announcing => {
            format!("{}: VM {} is {phase} and goes on to {}", one.id, one.vm, one.target_host)
        }
        _ => format!("{}: VM {} {phase}", one.id, one.vm),
    }
}
