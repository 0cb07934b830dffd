//! The inventory, links and their limits.

use insta::assert_snapshot;
use rackferry_proto::v1;

use super::{host::hosts, running};
use crate::render::{evacuation, json, site};

pub(super) fn links() -> Vec<v1::LinkStatus> {
    use v1::link_limit::Limit;
    let limit = |limit| Some(v1::LinkLimit { link: "core0".to_owned(), limit: Some(limit) });
    let core = v1::LinkStatus {
        name: "core0".to_owned(),
        a: "r1".to_owned(),
        b: "r2".to_owned(),
        bytes_per_second: 125_000_000,
        cost: 1,
        limit: limit(Limit::Percent(40)),
        forth: Some(v1::LaneStatus { moves: 3, allotted_bytes_per_second: 49_999_998 }),
        back: Some(v1::LaneStatus::default()),
    };
    let free = v1::LinkStatus { name: "core1".to_owned(), limit: None, ..core.clone() };
    let gone = v1::LinkStatus {
        name: "old".to_owned(),
        limit: limit(Limit::BytesPerSecond(25_000_000)),
        ..v1::LinkStatus::default()
    };
    vec![core, free, gone]
}

#[test]
fn links_and_limits() {
    assert_snapshot!("links", site::links(&links()));
    assert_snapshot!("json_links", json::links(&links()));
    assert_eq!(site::links(&[]), "No links. Import an inventory first.");
    let limited =
        v1::Evacuation { link_limits: vec![links()[0].limit.clone().unwrap()], ..running() };
    assert!(evacuation::summary(&limited).contains("limits  core0 40 %"));
}

#[test]
fn the_inventory() {
    let summary =
        v1::InventorySummary { racks: 2, hosts: 3, spines: 0, links: 1, policies: 2, vms: 9 };
    let rack = |name: &str, hosts: &[&str], away: &[&str]| v1::InventoryRack {
        name: name.to_owned(),
        hosts: hosts.iter().map(ToString::to_string).collect(),
        away: away.iter().map(ToString::to_string).collect(),
    };
    let inventory = v1::GetInventoryResponse {
        text: "version: 1".to_owned(),
        imported_unix_ms: 1_000_000,
        summary: Some(summary),
        racks: vec![rack("r1", &["r1-h1", "r1-h2"], &["r1-h2"]), rack("r2", &["r2-h1"], &[])],
        links: links(),
        strangers: vec![hosts()[2].clone(), hosts()[3].clone()],
    };
    assert_snapshot!("inventory", site::inventory(&inventory));
    assert_snapshot!("json_inventory", json::inventory(&inventory));
    let none = v1::GetInventoryResponse::default();
    assert_eq!(
        site::inventory(&none),
        "No inventory. Import one with: rackferry inventory import FILE"
    );
    assert_snapshot!("imported", site::imported(true, &summary));
    assert_snapshot!("json_imported", json::imported(true, &summary));
    assert!(site::imported(false, &summary).starts_with("unchanged"));
    assert!(site::checked("f.yaml", &summary).starts_with("f.yaml: no mistakes"));
}
