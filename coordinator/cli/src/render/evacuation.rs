//! Evacuations for people.

use rackferry_proto::v1::{
    Evacuation, EvacuationState, EvacuationTotals, LinkLimit, Migration, MigrationEnd, Phase,
    TransferCounters, WaitCode, WaitReason,
};

use super::{
    dash,
    follow::goes_on,
    left::{left_out, remaining, sources_stay_cordoned},
    migration::{COLUMNS, NUMBERS, cells, stuck as stuck_one},
    table, word,
};
use crate::{
    ending::is_stuck_one,
    units::{bytes, millis, saved_percent},
};

/// Its deadline has passed.
pub fn overdue(evacuation: &Evacuation) -> String {
    let totals = totals_of(evacuation);
    format!(
        "{}: deadline passed, {} of {} VMs moved. {}",
        evacuation.id,
        totals.done,
        totals.vms,
        goes_on(&evacuation.id)
    )
}

/// Only VMs that may need an operator are left.
pub fn stuck(evacuation: &Evacuation) -> String {
    let totals = totals_of(evacuation);
    let mut text = format!(
        "{}: {} of {} VMs moved; an operator is needed:",
        evacuation.id, totals.done, totals.vms
    );
    for one in evacuation.migrations.iter().filter(|one| is_stuck_one(one)) {
        text += &format!("\n  {}", stuck_one(one));
    }
    text + &format!("\nLook with: rackferry doctor\n{}", goes_on(&evacuation.id))
}

/// Its state, and whether it is late.
fn state(evacuation: &Evacuation) -> String {
    let late = if evacuation.overdue { ", deadline passed" } else { "" };
    format!("{}{late}", word::state(evacuation.state()))
}

/// What becomes of a cancelled evacuation.
pub fn cancelled(evacuation: &Evacuation) -> String {
    let totals = totals_of(evacuation);
    let left = totals.vms - totals.done.min(totals.vms);
    format!(
        "{} {}: {} of {} VMs moved, {left} stay unless they are switching already",
        evacuation.id,
        word::state(evacuation.state()),
        totals.done,
        totals.vms,
    )
}

/// What pausing or resuming an evacuation has made of it.
pub fn held(evacuation: &Evacuation) -> String {
    let totals = totals_of(evacuation);
    let (id, under_way) = (&evacuation.id, totals.copying + totals.switching);
    match evacuation.state() {
        EvacuationState::Paused => format!(
            "{id} paused: {under_way} moves under way finish, {} wait; go on with: rackferry resume {id}",
            totals.queued
        ),
        state => format!(
            "{id} {}: {under_way} moves under way, {} queued",
            word::state(state),
            totals.queued
        ),
    }
}

/// All evacuations, the latest last.
pub fn list(evacuations: &[Evacuation]) -> String {
    if evacuations.is_empty() {
        return "No evacuations.".to_owned();
    }
    let rows = evacuations.iter().map(|one| {
        let totals = totals_of(one);
        vec![
            one.id.clone(),
            one.sources.join(","),
            one.targets.join(","),
            state(one),
            format!("{}/{}", totals.done, totals.vms),
            (totals.failed + totals.uncertain).to_string(),
            bytes(totals.memory_bytes),
        ]
    });
    table(
        &["id", "from", "to", "state", "done", "failed", "memory"],
        &["done", "failed", "memory"],
        rows,
    )
}

/// One evacuation as it stands.
pub fn detail(evacuation: &Evacuation, now_unix_ms: u64) -> String {
    let rows = evacuation.migrations.iter().map(|one| {
        let mut row = cells(one, now_unix_ms);
        row.push(dash(one.round, one.round.to_string()));
        row.push(ratio(one));
        row.push(wait_or_reason(one));
        row
    });
    let header = [&COLUMNS[..], &["round", "dirty/send", "wait or reason"]].concat();
    let numbers = [&NUMBERS[..], &["round", "dirty/send"]].concat();
    let table = table(&header, &numbers, rows);
    format!("{}\n{table}{}{}", summary(evacuation), left_out(evacuation), remaining(evacuation))
}

/// Why a migration waits, or why its VM stayed.
pub fn wait_or_reason(one: &Migration) -> String {
    one.wait_reason.as_ref().map_or_else(|| one.reason.clone(), wait)
}

/// The lines above the table.
pub fn summary(evacuation: &Evacuation) -> String {
    let totals = totals_of(evacuation);
    let counters = totals.counters.unwrap_or_default();
    let mut vms = format!(
        "done {} · copying {} · switching {} · queued {} · failed {}",
        totals.done, totals.copying, totals.switching, totals.queued, totals.failed
    );
    if totals.uncertain > 0 {
        vms.push_str(&format!(" · OPERATOR NEEDED {}", totals.uncertain));
    }
    format!(
        "{}  {} -> {}  {}\n  VMs     {vms}\n  memory  {} of {} moved · sent {}{}\n{}",
        evacuation.id,
        evacuation.sources.join(","),
        evacuation.targets.join(","),
        state(evacuation),
        bytes(totals.memory_done_bytes),
        bytes(totals.memory_bytes),
        bytes(counters.wire_bytes),
        saved(&counters).map(|percent| format!(" · saved {percent}")).unwrap_or_default(),
        limits(&evacuation.link_limits),
    )
}

/// The line with limits of its own, if it has any.
fn limits(limits: &[LinkLimit]) -> String {
    let each = limits.iter().map(|limit| format!("{} {}", limit.link, super::site::limit(limit)));
    let each: Vec<String> = each.collect();
    if each.is_empty() { String::new() } else { format!("  limits  {}\n", each.join(" · ")) }
}

/// One evacuation at its end.
pub fn outcome(evacuation: &Evacuation) -> String {
    let rows = evacuation.migrations.iter().map(|one| {
        let moved = one.phase() == Phase::Done;
        vec![
            one.vm.clone(),
            one.source_host.clone(),
            one.target_host.clone(),
            outcome_of(one),
            time(one),
            if moved { format!("{} ms", one.blackout_ms) } else { "-".to_owned() },
            bytes(one.counters.unwrap_or_default().wire_bytes),
            one.reason.clone(),
        ]
    });
    let header = ["vm", "from", "to", "outcome", "time", "blackout", "sent", "reason"];
    let numbers = ["time", "blackout", "sent"];
    let totals = totals_of(evacuation);
    let duration = evacuation.ended_unix_ms.saturating_sub(evacuation.created_unix_ms);
    format!(
        "{}\n\n{} {}: {} of {} VMs moved in {}\n{}{}{}{}",
        table(&header, &numbers, rows),
        evacuation.id,
        state(evacuation),
        totals.done,
        totals.vms,
        millis(duration),
        transfer(&totals.counters.unwrap_or_default()),
        left_out(evacuation),
        remaining(evacuation),
        sources_stay_cordoned(evacuation),
    )
}

/// What went over the link, and what did not have to.
pub fn transfer(counters: &TransferCounters) -> String {
    let line = |name: &str, value: u64| format!("  {name:<12}{:>11}\n", bytes(value));
    let mut text = line("logical", counters.logical_bytes);
    text += &line("zero", counters.zero_bytes);
    text += &line("duplicate", counters.duplicate_bytes);
    text += &line("raw", counters.raw_bytes);
    text += &line("on the wire", counters.wire_bytes);
    text += &format!("  {:<12}{:>11}", "saved", saved(counters).unwrap_or_else(|| "-".to_owned()));
    text
}

fn saved(counters: &TransferCounters) -> Option<String> {
    let percent = saved_percent(counters.logical_bytes, counters.wire_bytes)?;
    Some(format!("{percent:.1} %"))
}

/// What became of a VM: where it runs now is what people want to know.
pub fn outcome_of(one: &Migration) -> String {
    match one.phase() {
        Phase::Done if one.end() == MigrationEnd::Ended => "ended".to_owned(),
        Phase::Done => "moved".to_owned(),
        Phase::RolledBack => format!("stays on {}", one.source_host),
        Phase::Failed => "lost".to_owned(),
        phase => word::phase(phase),
    }
}

/// How long it took from the first order.
pub fn time(one: &Migration) -> String {
    if one.started_unix_ms == 0 || one.ended_unix_ms == 0 {
        return "-".to_owned();
    }
    millis(one.ended_unix_ms.saturating_sub(one.started_unix_ms))
}

/// How much of the first pass is over.
pub fn pass1(one: &Migration) -> String {
    let percent = (one.pass1_ratio.clamp(0.0, 1.0) * 100.0).floor();
    dash(one.started_unix_ms, format!("{percent} %"))
}

/// How fast the guest writes against how fast pages leave; from 1 on it never converges.
fn ratio(one: &Migration) -> String {
    if one.send_bytes_per_second == 0 {
        return "-".to_owned();
    }
    let ratio = one.dirty_bytes_per_second as f64 / one.send_bytes_per_second as f64;
    format!("{ratio:.2}{}", if ratio >= 0.9 { " !" } else { "" })
}

/// Why it waits, with the numbers.
pub fn wait(reason: &WaitReason) -> String {
    let WaitReason { detail, limit, used, .. } = reason;
    match reason.code() {
        WaitCode::SourceBusy => format!("{used} of {limit} moves leave {detail}"),
        WaitCode::FleetBusy => format!("{used} of {limit} moves are under way"),
        WaitCode::TargetBusy => format!("{used} of {limit} moves reach {detail}"),
        WaitCode::SourceDisconnected | WaitCode::TargetDisconnected => {
            format!("agent of {detail} is not connected")
        }
        WaitCode::SwitchoverSlot => format!("switchover slot ({used}/{limit} used on {detail})"),
        WaitCode::TargetDiscard => format!("{detail} still has a copy"),
        WaitCode::NoRoom => format!("no memory free on {detail}"),
        WaitCode::VmNotRunning => format!("not running on {detail}"),
        WaitCode::LinkFull => format!("{used} of {limit} moves cross link {detail}"),
        WaitCode::EvacuationPaused => format!("{detail} is paused ({used} moves under way)"),
        WaitCode::TargetCordoned => format!("{detail} is cordoned"),
        WaitCode::RetryBackoff => {
            format!("tries again soon, {used} of {limit} attempts rolled back: {detail}")
        }
        WaitCode::AntiAffinity => format!("kept apart, group {detail}"),
        WaitCode::Unspecified => detail.clone(),
    }
}

fn totals_of(evacuation: &Evacuation) -> EvacuationTotals {
    evacuation.totals.unwrap_or_default()
}
