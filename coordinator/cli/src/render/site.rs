//! The inventory, links and their limits, for people.

use rackferry_inventory::unit::show_rate;
use rackferry_proto::v1::{
    GetInventoryResponse, Host, InventorySummary, LaneStatus, LinkLimit, LinkStatus,
    link_limit::Limit,
};

use super::{inventory::hosts, table};

/// Links, what they may carry, and what moves cross them.
pub fn links(links: &[LinkStatus]) -> String {
    if links.is_empty() {
        return "No links. Import an inventory first.".to_owned();
    }
    let rows = links.iter().map(|link| {
        let known = !link.a.is_empty();
        let way =
            |from: &str, to: &str| if known { format!("{from} -> {to}") } else { "-".to_owned() };
        vec![
            link.name.clone(),
            way(&link.a, &link.b),
            if known { show_rate(link.bytes_per_second) } else { "not in inventory".to_owned() },
            link.limit.as_ref().map_or_else(|| "off".to_owned(), |of| shown(of, link)),
            used(link.forth.as_ref()),
            used(link.back.as_ref()),
        ]
    });
    let header = ["link", "forth", "rate", "limit", "moves forth", "moves back"];
    table(&header, &["rate", "limit", "moves forth", "moves back"], rows)
}

/// A limit, and what it comes to.
fn shown(of: &LinkLimit, link: &LinkStatus) -> String {
    match of.limit {
        Some(Limit::Percent(percent)) if !link.a.is_empty() => {
            let rate = link.bytes_per_second / 100 * u64::from(percent);
            format!("{} ({percent} %)", show_rate(rate))
        }
        _ => limit(of),
    }
}

/// A limit.
pub fn limit(limit: &LinkLimit) -> String {
    match limit.limit {
        None => "off".to_owned(),
        Some(Limit::Percent(percent)) => format!("{percent} %"),
        Some(Limit::BytesPerSecond(rate)) => show_rate(rate),
    }
}

fn used(lane: Option<&LaneStatus>) -> String {
    match lane.copied().unwrap_or_default() {
        LaneStatus { moves: 0, .. } => "-".to_owned(),
        LaneStatus { moves, allotted_bytes_per_second: 0 } => moves.to_string(),
        LaneStatus { moves, allotted_bytes_per_second: rate } => {
            format!("{moves} at {}", show_rate(rate))
        }
    }
}

/// The inventory, and what is not as it says.
pub fn inventory(inventory: &GetInventoryResponse) -> String {
    let Some(summary) = inventory.summary.as_ref().filter(|_| !inventory.text.is_empty()) else {
        return "No inventory. Import one with: rackferry inventory import FILE".to_owned();
    };
    let rows = inventory.racks.iter().map(|rack| {
        let connected = rack.hosts.len() - rack.away.len().min(rack.hosts.len());
        let hosts = rack.hosts.len().to_string();
        vec![rack.name.clone(), hosts, connected.to_string(), rack.away.join(", ")]
    });
    let racks = table(&["rack", "hosts", "connected", "away"], &["hosts", "connected"], rows);
    let mut text = format!("{}\n\n{racks}\n\n{}", counts(summary), links(&inventory.links));
    if !inventory.strangers.is_empty() {
        text += &format!("\n\nNot as the inventory says:\n{}", hosts(&inventory.strangers));
    }
    text
}

/// What an import has done.
pub fn imported(changed: bool, summary: &InventorySummary) -> String {
    let word = if changed { "imported" } else { "unchanged" };
    format!("{word}: {}", counts(summary))
}

/// A file without mistakes.
pub fn checked(name: &str, summary: &InventorySummary) -> String {
    format!("{name}: no mistakes; {}", counts(summary))
}

fn counts(summary: &InventorySummary) -> String {
    let InventorySummary { racks, hosts, spines, links, policies, vms } = summary;
    format!(
        "{racks} racks, {hosts} hosts, {spines} spines, {links} links, {policies} policies, labels of {vms} VMs"
    )
}

/// A host that was declared dead.
pub fn declared_dead(host: &Host) -> String {
    match host.vms {
        0 => format!("{0} is dead; rackferry host forget {0} removes it from lists", host.name),
        vms => format!(
            "{0} is dead; it owns {vms} VMs: start each elsewhere from its disks, or rackferry vm forget VM",
            host.name
        ),
    }
}

/// A host or a VM that was forgotten.
pub fn forgotten(name: &str) -> String {
    format!("{name} is forgotten")
}

/// Hosts that were cordoned, or opened again.
pub fn cordoned(hosts: &[Host], cordoned: bool) -> String {
    let names: Vec<&str> = hosts.iter().map(|host| host.name.as_str()).collect();
    format!("{}: {}", if cordoned { "cordoned" } else { "open" }, names.join(", "))
}
