//! Hosts.

use insta::assert_snapshot;
use rackferry_proto::v1;

use super::GIB;
use crate::render::inventory;

pub(super) fn hosts() -> Vec<v1::Host> {
    let host = v1::Host {
        name: "r1-h1".to_owned(),
        rack: "r1".to_owned(),
        host_id: 1,
        page_addr: "10.0.0.1:7401".to_owned(),
        memory_bytes: 64 * GIB,
        memory_free_bytes: 12 * GIB,
        connected: true,
        agent_version: "0.1.0".to_owned(),
        vms: 24,
        outgoing: 2,
        incoming: 0,
        cordoned: false,
        declared_dead: false,
        installation_id: String::new(),
        listed: v1::Listed::Unspecified.into(),
        listed_rack: String::new(),
    };
    let away = v1::Host {
        name: "r1-h2".to_owned(),
        connected: false,
        declared_dead: true,
        ..host.clone()
    };
    let cordoned = v1::Host {
        name: "r1-h3".to_owned(),
        cordoned: true,
        listed: v1::Listed::No.into(),
        ..host.clone()
    };
    let elsewhere = v1::Host {
        name: "r1-h4".to_owned(),
        listed: v1::Listed::Elsewhere.into(),
        listed_rack: "r2".to_owned(),
        ..host.clone()
    };
    vec![host, away, cordoned, elsewhere]
}

#[test]
fn lists() {
    assert_snapshot!("hosts", inventory::hosts(&hosts()));
}
