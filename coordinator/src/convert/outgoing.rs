//! What agents are told.

use rackferry_fleet::{Generation, Member, MigrationId, Order};
use rackferry_proto::v1::{self, ConnectResponse, connect_response::Message};

use crate::key::DomainKey;

/// An order as its message; the key goes with a welcome.
pub fn order(order: Order, key: &DomainKey, incarnation: u64) -> ConnectResponse {
    ConnectResponse { message: Some(message(order, key, incarnation)) }
}

fn message(order: Order, key: &DomainKey, incarnation: u64) -> Message {
    match order {
        Order::Welcome(id) => {
            let domain_key = key.expose().to_vec();
            Message::Welcome(v1::Welcome { host_id: id.0, domain_key, incarnation })
        }
        Order::KeepDead(migration, generation) => {
            Message::KeepDead(keep_dead(migration, generation))
        }
        Order::ForgetVm(vm) => Message::ForgetVm(v1::ForgetVm { vm: vm.to_string() }),
        Order::RackView { epoch, members, open } => Message::RackView(v1::RackView {
            epoch,
            members: members.into_iter().map(member).collect(),
            open_crossings: open.into_iter().map(|crossing| crossing.0).collect(),
        }),
        Order::PrepareTarget {
            migration,
            vm,
            generation,
            source,
            spec_toml,
            cpu_properties,
            memory_bytes,
            options,
        } => Message::PrepareTarget(v1::PrepareTarget {
            migration_id: migration.to_string(),
            session: migration.0,
            vm: vm.to_string(),
            generation: generation.0,
            source_host: source.to_string(),
            spec_toml,
            cpu_properties,
            memory_bytes,
            options: Some(options.into()),
        }),
        Order::StartSource { migration, vm, generation, crossing, target, options, rate } => {
            Message::StartSource(v1::StartSource {
                migration_id: migration.to_string(),
                session: migration.0,
                vm: vm.to_string(),
                generation: generation.0,
                crossing: crossing.0,
                target_host_id: target.id.0,
                target_host: target.host.to_string(),
                target_page_addr: target.page_addr,
                options: Some(options.into()),
                bytes_per_second: on_the_wire(rate),
            })
        }
        Order::ForceSwitchover(migration) => Message::ForceSwitchover(force_switchover(migration)),
        Order::SetRate(migration, rate) => Message::SetRate(set_rate(migration, rate)),
        Order::CommitDecision { migration, generation, refusal } => {
            Message::CommitDecision(v1::CommitDecision {
                migration_id: migration.to_string(),
                generation: generation.0,
                granted: refusal.is_none(),
                reason: refusal.unwrap_or_default(),
            })
        }
        Order::Cancel(migration, reason) => Message::Cancel(cancel(migration, reason)),
        Order::ResumeTarget(migration, generation) => {
            Message::ResumeTarget(resume_target(migration, generation))
        }
        Order::DiscardTarget(migration, reason) => {
            Message::DiscardTarget(discard_target(migration, reason))
        }
        Order::SwitchoverGrant(migration) => Message::SwitchoverGrant(grant(migration)),
        Order::ReleaseSource { migration, generation, resume } => {
            Message::ReleaseSource(release_source(migration, generation, resume))
        }
    }
}

fn keep_dead(migration: MigrationId, generation: Generation) -> v1::KeepDead {
    v1::KeepDead { migration_id: migration.to_string(), generation: generation.0 }
}

fn resume_target(migration: MigrationId, generation: Generation) -> v1::ResumeTarget {
    v1::ResumeTarget { migration_id: migration.to_string(), generation: generation.0 }
}

fn release_source(
    migration: MigrationId,
    generation: Generation,
    resume: bool,
) -> v1::ReleaseSource {
    let (migration_id, generation) = (migration.to_string(), generation.0);
    v1::ReleaseSource { migration_id, generation, resume }
}

fn discard_target(migration: MigrationId, reason: String) -> v1::DiscardTarget {
    v1::DiscardTarget { migration_id: migration.to_string(), reason }
}

fn force_switchover(migration: MigrationId) -> v1::ForceSwitchover {
    v1::ForceSwitchover { migration_id: migration.to_string() }
}

fn cancel(migration: MigrationId, reason: String) -> v1::CancelMigration {
    v1::CancelMigration { migration_id: migration.to_string(), reason }
}

fn grant(migration: MigrationId) -> v1::SwitchoverGrant {
    v1::SwitchoverGrant { migration_id: migration.to_string() }
}

fn set_rate(migration: MigrationId, rate: Option<u64>) -> v1::SetRate {
    v1::SetRate { migration_id: migration.to_string(), bytes_per_second: on_the_wire(rate) }
}

/// In messages 0 stands for no limit; so nothing, which rounding may leave, is one byte.
fn on_the_wire(rate: Option<u64>) -> u64 {
    rate.map_or(0, |rate| rate.max(1))
}

fn member(member: Member) -> v1::RackMember {
    v1::RackMember {
        receives: Some(member.receives),
        host_id: member.id.0,
        host: member.host.to_string(),
        page_addr: member.page_addr,
    }
}
