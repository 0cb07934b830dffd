//! Answers for programs: the model's views, with `result_code` beside them.

use std::collections::BTreeMap;

use rackferry_model::view;
use rackferry_proto::v1;
use serde::Serialize;

use super::{
    follow,
    plan::{by_target, movable},
};
use crate::exit::{self, Code, Failure};

/// A value with the result beside it.
#[derive(Serialize)]
struct Resulting<T> {
    result_code: Code,
    #[serde(flatten)]
    value: T,
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("values of plain structs can be written")
}

pub fn resulting(result_code: Code, value: impl Serialize) -> String {
    text(&Resulting { result_code, value })
}

/// Views of messages under their name.
fn list<T, V>(name: &'static str, all: &[T]) -> BTreeMap<&'static str, Vec<V>>
where
    T: Clone,
    V: From<T>,
{
    BTreeMap::from([(name, views(all))])
}

fn views<T: Clone, V: From<T>>(all: &[T]) -> Vec<V> {
    all.iter().cloned().map(V::from).collect()
}

/// A value as one line. Strings in JSON hold no ends of lines.
pub fn line(text: &str) -> String {
    text.lines().map(str::trim_start).collect()
}

/// One evacuation as an answer. `staying` were left out of it.
pub fn evacuation(one: &v1::Evacuation, staying: &[v1::StayingVm], code: Code) -> String {
    resulting(code, evacuation_view(one, staying))
}

/// One evacuation that is still waited for: there is no result yet.
pub fn evacuation_snapshot(one: &v1::Evacuation, staying: &[v1::StayingVm]) -> String {
    text(&evacuation_view(one, staying))
}

/// Without its own result: the command's stands beside it.
fn evacuation_view(one: &v1::Evacuation, staying: &[v1::StayingVm]) -> view::Evacuation {
    view::Evacuation { staying: views(staying), result_code: None, ..one.clone().into() }
}

/// All evacuations.
pub fn evacuations(all: &[v1::Evacuation]) -> String {
    resulting(Code::Done, list::<_, view::Evacuation>("evacuations", all))
}

/// One migration as an answer.
pub fn migration(one: &v1::Migration, code: Code) -> String {
    resulting(code, view::Migration::from(one.clone()))
}

/// One migration that is still waited for: there is no result yet.
pub fn migration_snapshot(one: &v1::Migration) -> String {
    text(&view::Migration::from(one.clone()))
}

/// Migrations.
pub fn migrations(all: &[v1::Migration]) -> String {
    resulting(Code::Done, list::<_, view::Migration>("migrations", all))
}

/// An evacuation that was started and is not waited for.
pub fn detached_evacuation(one: &v1::Evacuation, staying: &[v1::StayingVm]) -> String {
    detached(&one.id, evacuation_view(one, staying))
}

/// A migration that was started and is not waited for.
pub fn detached_migration(one: &v1::Migration) -> String {
    detached(&one.id, view::Migration::from(one.clone()))
}

fn detached(id: &str, value: impl Serialize) -> String {
    #[derive(Serialize)]
    struct Detached<T> {
        follow: String,
        #[serde(flatten)]
        value: T,
    }
    resulting(Code::Done, Detached { follow: follow::command(id), value })
}

/// Events.
pub fn events(all: &[v1::Event]) -> String {
    resulting(Code::Done, list::<_, view::Event>("events", all))
}

/// One event as it comes: there is no result yet.
pub fn event(one: &v1::Event) -> String {
    text(&view::Event::from(one.clone()))
}

/// The coordinators.
pub fn cluster(cluster: &v1::Cluster) -> String {
    resulting(Code::Done, view::Cluster::from(cluster.clone()))
}

/// VMs.
pub fn vms(all: &[v1::Vm]) -> String {
    resulting(Code::Done, list::<_, view::Vm>("vms", all))
}

/// One VM with every copy of it.
pub fn vm(detail: &v1::GetVmResponse) -> String {
    resulting(exit::of_problems(&detail.problems), view::VmDetail::from(detail.clone()))
}

/// Hosts.
pub fn hosts(all: &[v1::Host]) -> String {
    resulting(Code::Done, list::<_, view::Host>("hosts", all))
}

/// Links with their limits and their use.
pub fn links(all: &[v1::LinkStatus]) -> String {
    resulting(Code::Done, list::<_, view::Link>("links", all))
}

/// The inventory, and hosts that differ from it.
pub fn inventory(inventory: &v1::GetInventoryResponse) -> String {
    resulting(Code::Done, view::Inventory::from(inventory.clone()))
}

/// What an import has done.
pub fn imported(changed: bool, summary: &v1::InventorySummary) -> String {
    #[derive(Serialize)]
    struct Imported {
        changed: bool,
        summary: view::Summary,
    }
    resulting(Code::Done, Imported { changed, summary: (*summary).into() })
}

/// A file without mistakes.
pub fn checked(summary: &v1::InventorySummary) -> String {
    let summary = view::Summary::from(*summary);
    resulting(Code::Done, BTreeMap::from([("summary", summary)]))
}

/// Problems of the site, and what was removed.
pub fn problems(all: &[v1::Problem], repaired: &[v1::Problem]) -> String {
    #[derive(Serialize)]
    struct All {
        problems: Vec<view::Problem>,
        repaired: Vec<view::Problem>,
    }
    let value = All { problems: views(all), repaired: views(repaired) };
    resulting(exit::of_problems(all), value)
}

/// What keeps VMs from moving.
pub fn checks(vms: &[v1::VmCheck]) -> String {
    resulting(exit::of_checks(vms), list::<_, view::VmCheck>("vms", vms))
}

/// What would be done, and where that is written.
pub fn plan(
    plan: &v1::Evacuation,
    blocked: &[v1::VmCheck],
    file: Option<&str>,
    code: Code,
) -> String {
    #[derive(Serialize)]
    struct Host<'a> {
        host: &'a str,
        vms: usize,
        memory_bytes: u64,
    }
    #[derive(Serialize)]
    struct Plan<'a> {
        file: Option<&'a str>,
        sources: &'a [String],
        targets: &'a [String],
        moves: Vec<view::PlannedMove>,
        hosts: Vec<Host<'a>>,
        blocked: Vec<view::VmCheck>,
        left_out: Vec<view::Staying>,
    }
    let movable = movable(plan, blocked);
    let hosts = by_target(&movable).into_iter();
    let hosts = hosts.map(|(host, (vms, memory_bytes))| Host { host, vms, memory_bytes });
    let value = Plan {
        file,
        sources: &plan.sources,
        targets: &plan.targets,
        moves: movable.iter().map(|&one| one.clone().into()).collect(),
        hosts: hosts.collect(),
        blocked: views(blocked),
        left_out: views(&plan.left_out),
    };
    resulting(code, value)
}

/// A token, and when it expires.
pub fn token(created: &v1::CreateTokenResponse) -> String {
    #[derive(Serialize)]
    struct Token<'a> {
        token: &'a str,
        expires_unix_ms: u64,
    }
    let v1::CreateTokenResponse { token, expires_unix_ms } = created;
    resulting(Code::Done, Token { token, expires_unix_ms: *expires_unix_ms })
}

/// A backup that was written.
pub fn backup(file: &std::path::Path, bytes: usize) -> String {
    #[derive(Serialize)]
    struct Backup {
        file: String,
        bytes: usize,
    }
    resulting(Code::Done, Backup { file: file.display().to_string(), bytes })
}

/// Certificates that are expelled.
pub fn expelled(all: &[v1::ExpelledCertificate]) -> String {
    #[derive(Serialize)]
    struct Certificate {
        name: String,
        serial: Option<String>,
        by: String,
        expelled_unix_ms: u64,
    }
    impl From<v1::ExpelledCertificate> for Certificate {
        fn from(one: v1::ExpelledCertificate) -> Self {
            let v1::ExpelledCertificate { name, serial, by, expelled_unix_ms } = one;
            Self { name, serial: (!serial.is_empty()).then_some(serial), by, expelled_unix_ms }
        }
    }
    resulting(Code::Done, list::<_, Certificate>("expelled", all))
}

/// Why a command failed.
pub fn failure(failure: &Failure) -> String {
    #[derive(Serialize)]
    struct Error {
        error: String,
        reason: Option<&'static str>,
    }
    let reason = failure.reason().map(|reason| reason.as_str());
    resulting(failure.code(), Error { error: failure.text(), reason })
}
