//! Single migrations for people.

use rackferry_model::view;
use rackferry_proto::v1::{Migration, MigrationEnd, Phase};

use super::{
    dash, evacuation,
    follow::{command, goes_on},
    table, word,
};
use crate::units::{bytes, millis};

/// Columns of every list of migrations: what identifies one and how far it is.
pub const COLUMNS: [&str; 11] =
    ["id", "vm", "from", "to", "phase", "attempt", "age", "pass1", "remain", "rate", "eta"];
/// Of them, those that hold numbers.
pub const NUMBERS: [&str; 6] = ["attempt", "age", "pass1", "remain", "rate", "eta"];

/// The cells of [`COLUMNS`].
pub fn cells(one: &Migration, now_unix_ms: u64) -> Vec<String> {
    vec![
        one.id.clone(),
        one.vm.clone(),
        one.source_host.clone(),
        one.target_host.clone(),
        word::phase(one.phase()),
        one.attempt.to_string(),
        age(one, now_unix_ms),
        evacuation::pass1(one),
        dash(one.remaining_bytes, bytes(one.remaining_bytes)),
        dash(one.send_bytes_per_second, rate(one.send_bytes_per_second)),
        eta(one),
    ]
}

/// Migrations, the latest last.
pub fn list(migrations: &[Migration], now_unix_ms: u64) -> String {
    if migrations.is_empty() {
        return "No migrations.".to_owned();
    }
    let rows = migrations.iter().map(|one| {
        let mut row = cells(one, now_unix_ms);
        row.push(dash(one.evacuation_id.as_str(), one.evacuation_id.clone()));
        row.push(evacuation::wait_or_reason(one));
        row
    });
    let header = [&COLUMNS[..], &["evacuation", "wait or reason"]].concat();
    table(&header, &NUMBERS, rows)
}

/// One migration as it stands: what there is to say, a line each.
pub fn detail(one: &Migration, now_unix_ms: u64) -> String {
    let mut text = format!(
        "{}  VM {}  {} -> {}  {}",
        one.id,
        one.vm,
        place(&one.source_host, &one.source_rack),
        place(&one.target_host, &one.target_rack),
        word::phase(one.phase())
    );
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            text += &format!("\n  {name:<11} {value}");
        }
    };
    line("evacuation", one.evacuation_id.clone());
    line("attempt", one.attempt.to_string());
    line("age", age(one, now_unix_ms));
    line("memory", bytes(one.memory_bytes));
    line("pass", pass(one));
    line("rate", rates(one));
    line("stop", stop(one));
    line("waits", one.wait_reason.as_ref().map(evacuation::wait).unwrap_or_default());
    line("reason", one.reason.clone());
    match one.counters {
        Some(counters) if counters.logical_bytes > 0 => {
            text + "\n" + &evacuation::transfer(&counters)
        }
        _ => text,
    }
}

/// What was started while the command does not wait.
pub fn detached(one: &Migration) -> String {
    format!(
        "{}: VM {} moves from {} to {}; follow it with: {}; stop it with: rackferry cancel {}",
        one.id,
        one.vm,
        one.source_host,
        one.target_host,
        command(&one.id),
        one.id
    )
}

fn place(host: &str, rack: &str) -> String {
    format!("{host} ({rack})")
}

/// Since it was asked for, to its end or until now.
fn age(one: &Migration, now_unix_ms: u64) -> String {
    let end = if one.ended_unix_ms > 0 { one.ended_unix_ms } else { now_unix_ms };
    // Clocks differ.
    millis(end.saturating_sub(one.created_unix_ms))
}

/// How long the pass still takes; blank if it is not known.
fn eta(one: &Migration) -> String {
    view::Migration::from(one.clone()).eta_ms.map(millis).unwrap_or_default()
}

fn rate(bytes_per_second: u64) -> String {
    format!("{}/s", bytes(bytes_per_second))
}

fn pass(one: &Migration) -> String {
    if one.round == 0 {
        return String::new();
    }
    let left = bytes(one.remaining_bytes);
    format!("{}, {left} left; first pass {}", one.round, evacuation::pass1(one))
}

fn rates(one: &Migration) -> String {
    if one.send_bytes_per_second == 0 {
        return String::new();
    }
    let mut text = rate(one.send_bytes_per_second);
    let eta = eta(one);
    if !eta.is_empty() {
        text += &format!(", ETA {eta}");
    }
    text + &format!("; the guest writes {}", rate(one.dirty_bytes_per_second))
}

/// How long the VM would be stopped now, and how long it may be.
fn stop(one: &Migration) -> String {
    let view = view::Migration::from(one.clone());
    let part = |name: &str, ms: Option<u32>| ms.map(|ms| format!("{name} {ms} ms"));
    let parts = [part("forecast", view.predicted_stop_ms), part("limit", view.stop_limit_ms)];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// A move at its end.
pub fn outcome(one: &Migration) -> String {
    let transfer = evacuation::transfer(&one.counters.unwrap_or_default());
    match one.phase() {
        Phase::Done if one.end() != MigrationEnd::Ended => format!(
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

/// What a move waits for that may need an operator.
pub fn stuck(one: &Migration) -> String {
    let why = one.wait_reason.as_ref().map(evacuation::wait);
    let why = why.map_or_else(String::new, |why| format!(": {why}"));
    format!("{}: VM {} is {}{why}", one.id, one.vm, word::phase(one.phase()))
}

/// The same of a migration that is watched alone.
pub fn stuck_alone(one: &Migration) -> String {
    format!("{}\nLook with: rackferry doctor\n{}", stuck(one), goes_on(&one.id))
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
