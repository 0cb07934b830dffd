//! The coordinators for people.

use rackferry_proto::v1::Cluster;

use super::{table, word};

/// The coordinators, the leader, and how far the others are behind.
pub fn status(cluster: &Cluster) -> String {
    let rows = cluster.nodes.iter().map(|node| {
        let behind = match node.matched_index {
            Some(matched) => cluster.last_log_index.saturating_sub(matched).to_string(),
            None => "-".to_owned(),
        };
        vec![node.id.to_string(), node.addr.clone(), word::role(node.role()), behind]
    });
    let table = table(&["id", "address", "role", "behind"], &["id", "behind"], rows);
    let leader = match cluster.leader_id {
        0 => "No coordinator leads".to_owned(),
        id => format!("Coordinator {id} leads"),
    };
    format!(
        "{leader}, as coordinator {} sees it: term {}, log up to {}, applied up to {}, snapshot up to {}.\n\n{table}",
        cluster.node_id,
        cluster.term,
        cluster.last_log_index,
        cluster.applied_index,
        cluster.snapshot_index,
    )
}
