//! Coordinators.

use insta::assert_snapshot;
use rackferry_proto::v1;

use crate::render::{cluster, json};

fn coordinators() -> v1::Cluster {
    let node = |id: u64, role: v1::NodeRole, matched_index| v1::ClusterNode {
        id,
        addr: format!("10.0.0.{id}:7400"),
        role: role.into(),
        matched_index,
    };
    v1::Cluster {
        node_id: 1,
        leader_id: 1,
        leader_addr: "10.0.0.1:7400".to_owned(),
        term: 4,
        last_log_index: 1200,
        applied_index: 1200,
        snapshot_index: 1000,
        purged_index: 0,
        nodes: vec![
            node(1, v1::NodeRole::Leader, Some(1200)),
            node(2, v1::NodeRole::Follower, Some(1198)),
            node(3, v1::NodeRole::Learner, None),
        ],
    }
}

#[test]
fn the_coordinators() {
    assert_snapshot!("cluster", cluster::status(&coordinators()));
    assert_snapshot!("json_cluster", json::cluster(&coordinators()));
    let leaderless = v1::Cluster { leader_id: 0, ..coordinators() };
    assert!(cluster::status(&leaderless).starts_with("No coordinator leads"));
}
