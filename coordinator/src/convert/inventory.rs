//! The inventory, links and their limits.

use rackferry_fleet::{Fleet, LaneView, Link, LinkView, Listed, Topology};
use rackferry_inventory::Inventory;
use rackferry_model::name::RECEIVED_NAME_LIMIT;
use rackferry_proto::{Reason, refuse, v1};
use tonic::Status;

use super::{limit::limit, view::host};

/// The label whose value is a group of VMs that never share a host.
const ANTI_AFFINITY: &str = "anti_affinity";

/// Reads a file that is to be imported: its text, what the fleet decides by, and how much it is.
///
/// # Errors
/// If it has a mistake; the message says where.
pub fn import(
    message: v1::ImportInventoryRequest,
) -> Result<(String, Topology, v1::InventorySummary), Status> {
    let v1::ImportInventoryRequest { name, text } = message;
    let name =
        if name.is_empty() || name.len() > RECEIVED_NAME_LIMIT { "inventory" } else { &name };
    let inventory = rackferry_inventory::read(name, &text)
        .map_err(|mistakes| refuse(Reason::InvalidInventory, mistakes.to_string()))?;
    Ok((text, topology(&inventory), summary(&inventory)))
}

fn topology(inventory: &Inventory) -> Topology {
    let racks = inventory.racks.iter().map(|rack| {
        let hosts = rack.hosts.iter().map(|host| host.name.as_str().into());
        (rack.name.as_str().into(), hosts.collect())
    });
    let links = inventory.links.iter().map(|link| Link {
        name: link.name.as_str().into(),
        a: link.a.clone(),
        b: link.b.clone(),
        rate: link.rate,
        cost: link.cost,
    });
    let hosts = inventory.racks.iter().flat_map(|rack| &rack.hosts);
    let headroom = hosts.filter_map(|host| Some((host.name.as_str().into(), host.mem_headroom?)));
    let groups = inventory
        .vms
        .iter()
        .filter_map(|vm| Some((vm.name.as_str().into(), vm.labels.get(ANTI_AFFINITY)?.clone())));
    Topology {
        racks: racks.collect(),
        links: links.collect(),
        headroom: headroom.collect(),
        groups: groups.collect(),
    }
}

fn summary(inventory: &Inventory) -> v1::InventorySummary {
    v1::InventorySummary {
        racks: inventory.racks.len() as u32,
        hosts: inventory.racks.iter().map(|rack| rack.hosts.len() as u32).sum(),
        spines: inventory.spines.len() as u32,
        links: inventory.links.len() as u32,
        policies: inventory.policies.len() as u32,
        vms: inventory.vms.len() as u32,
    }
}

/// How much is in a file that was imported.
pub fn summary_of(text: &str) -> Option<v1::InventorySummary> {
    rackferry_inventory::read("inventory", text).ok().as_ref().map(summary)
}

/// The inventory as it stands, against what agents say; without its summary, for a file takes time to be read.
pub fn inventory(fleet: &Fleet) -> v1::GetInventoryResponse {
    let Some(known) = fleet.inventory() else { return v1::GetInventoryResponse::default() };
    let hosts = fleet.hosts();
    let away = |name: &&rackferry_fleet::HostName| {
        !hosts.iter().any(|host| host.name == **name && host.connection.is_some())
    };
    let racks = known.topology.racks.iter().map(|(name, listed)| v1::InventoryRack {
        name: name.to_string(),
        hosts: listed.iter().map(ToString::to_string).collect(),
        away: listed.iter().filter(away).map(ToString::to_string).collect(),
    });
    let racks = racks.collect();
    let strange = hosts.iter().filter(|host| host.listed != Listed::Yes).cloned();
    v1::GetInventoryResponse {
        text: known.text.clone(),
        imported_unix_ms: known.imported.unix_ms(),
        summary: None,
        racks,
        links: links(fleet),
        strangers: strange.map(host).collect(),
    }
}

/// Every link with its limit and its use.
pub fn links(fleet: &Fleet) -> Vec<v1::LinkStatus> {
    fleet.links().into_iter().map(link).collect()
}

fn link(view: LinkView) -> v1::LinkStatus {
    let limit = view.limit.map(|of| limit(&view.name, of));
    let [forth, back] = view.lanes.map(|lane| Some(self::lane(lane)));
    let status = v1::LinkStatus {
        name: view.name.to_string(),
        limit,
        forth,
        back,
        ..v1::LinkStatus::default()
    };
    match view.link {
        None => status,
        Some(Link { a, b, rate, cost, .. }) => {
            v1::LinkStatus { a, b, bytes_per_second: rate, cost, ..status }
        }
    }
}

fn lane(view: LaneView) -> v1::LaneStatus {
    v1::LaneStatus { moves: view.moves, allotted_bytes_per_second: view.allotted }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headroom_and_groups_are_what_the_fleet_decides_by() {
        let text = "
version: 1
defaults: { mem_headroom: 10% }
racks:
  - name: r1
    hosts: [{ name: h1 }, { name: h2, mem_headroom: 25% }]
vms:
  - { name: 'db-[1-2]', labels: { anti_affinity: db } }
  - { name: web, labels: { tier: front } }
";
        let message =
            v1::ImportInventoryRequest { name: "site.yaml".to_owned(), text: text.to_owned() };
        let (_, topology, _) = import(message).unwrap();
        let headroom: Vec<_> = topology.headroom.iter().map(|(h, p)| (h.as_str(), *p)).collect();
        assert_eq!(headroom, [("h1", 10), ("h2", 25)]);
        let groups: Vec<_> =
            topology.groups.iter().map(|(v, g)| (v.to_string(), g.as_str())).collect();
        assert_eq!(groups, [("db-1".to_owned(), "db"), ("db-2".to_owned(), "db")]);
    }
}
