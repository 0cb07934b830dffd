//! Snapshots of every screen, by what it is about; and what several are about.

mod check;
mod cluster;
mod doctor;
mod evacuation;
mod event;
mod host;
mod json;
mod migration;
mod plan;
mod site;
mod vm;

use rackferry_proto::v1;

const GIB: u64 = 1 << 30;

/// When the screens are looked at: 75 s after everything was asked for.
const NOW: u64 = 1_075_000;

fn one(vm: &str, phase: v1::Phase) -> v1::Migration {
    v1::Migration {
        id: format!("mig-{vm}"),
        vm: vm.to_owned(),
        evacuation_id: "evac-1".to_owned(),
        source_host: "r1-h1".to_owned(),
        source_rack: "r1".to_owned(),
        target_host: "r2-h1".to_owned(),
        target_rack: "r2".to_owned(),
        memory_bytes: GIB,
        generation: 7,
        attempt: 1,
        phase: phase.into(),
        created_unix_ms: 1_000_000,
        ..v1::Migration::default()
    }
}

fn moved() -> v1::Migration {
    v1::Migration {
        pass1_ratio: 1.0,
        started_unix_ms: 1_001_000,
        ended_unix_ms: 1_013_400,
        blackout_ms: 42,
        qemu_downtime_ms: 35,
        end: v1::MigrationEnd::Moved.into(),
        counters: Some(v1::TransferCounters {
            logical_bytes: 2 * GIB,
            zero_bytes: GIB,
            duplicate_bytes: GIB - (GIB >> 3),
            raw_bytes: GIB >> 3,
            wire_bytes: GIB >> 4,
            supplied_bytes: 4096,
        }),
        ..one("web-1", v1::Phase::Done)
    }
}

fn copying() -> v1::Migration {
    v1::Migration {
        pass1_ratio: 0.789,
        started_unix_ms: 1_001_000,
        round: 2,
        remaining_bytes: GIB >> 2,
        dirty_bytes_per_second: 93 << 20,
        send_bytes_per_second: 100 << 20,
        ..one("db-3", v1::Phase::Copying)
    }
}

fn queued() -> v1::Migration {
    v1::Migration {
        wait_reason: Some(v1::WaitReason {
            code: v1::WaitCode::TargetBusy.into(),
            detail: "r2-h1".to_owned(),
            limit: 2,
            used: 2,
        }),
        ..one("ci-88", v1::Phase::Queued)
    }
}

fn failed() -> v1::Migration {
    v1::Migration {
        started_unix_ms: 1_001_000,
        ended_unix_ms: 1_002_000,
        reason: "the agent of r2-h1 was restarted".to_owned(),
        end: v1::MigrationEnd::RolledBack.into(),
        ..one("api-12", v1::Phase::RolledBack)
    }
}

fn running() -> v1::Evacuation {
    v1::Evacuation {
        id: "evac-1".to_owned(),
        sources: vec!["r1".to_owned()],
        targets: vec!["r2".to_owned(), "r3".to_owned()],
        state: v1::EvacuationState::Running.into(),
        created_unix_ms: 1_000_000,
        migrations: vec![moved(), copying(), queued(), failed()],
        totals: Some(v1::EvacuationTotals {
            vms: 4,
            queued: 1,
            copying: 1,
            done: 1,
            failed: 1,
            memory_bytes: 4 * GIB,
            memory_done_bytes: GIB,
            counters: moved().counters,
            ..v1::EvacuationTotals::default()
        }),
        ..v1::Evacuation::default()
    }
}

fn incomplete() -> v1::Evacuation {
    let totals = v1::EvacuationTotals {
        vms: 2,
        done: 1,
        failed: 1,
        memory_bytes: 2 * GIB,
        memory_done_bytes: GIB,
        counters: moved().counters,
        ..v1::EvacuationTotals::default()
    };
    v1::Evacuation {
        state: v1::EvacuationState::Incomplete.into(),
        result_code: 4,
        ended_unix_ms: 1_075_000,
        migrations: vec![moved(), failed()],
        totals: Some(totals),
        ..running()
    }
}
