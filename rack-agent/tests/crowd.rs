//! Callers of an agent's page port that connect and do nothing, and the neighbours, which they must not keep out: a real
//! process.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod common;

use common::{HOST, NEIGHBOUR, NEIGHBOUR_ID, Site, wait_for};
use rackferry_migrator::conn;
use rackferry_migrator_protocol::frame::{Hello, Role as Speaks};
use rackferry_tls::{Purpose, Role, Tls};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};

async fn calls(site: &Site, neighbour: &Tls) -> bool {
    let hello = Hello { host_id: NEIGHBOUR_ID, role: Speaks::Neighbour };
    conn::dial(&site.page_addr, HOST, &hello, Some(neighbour)).await.is_ok()
}

/// A connection from another address than those of all other callers.
async fn idle(site: &Site) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.9:0".parse().unwrap()).unwrap();
    socket.connect(site.page_addr.parse().unwrap()).await.unwrap()
}

#[tokio::test]
async fn two_thousand_idle_connections_of_one_address_keep_no_neighbour_out() {
    let site = Site::start_set("").await;
    let neighbour = site.issue(Role::Agent, NEIGHBOUR);
    wait_for(async || calls(&site, &neighbour).await).await;
    let mut crowd = Vec::new();
    for _ in 0..2000 {
        crowd.push(idle(&site).await);
    }
    assert!(calls(&site, &neighbour).await);
    assert!(site.log().contains("admission.handshakes_per_address"));
}

#[tokio::test]
async fn idle_connections_of_one_host_take_no_neighbours_place() {
    let site =
        Site::start_set("[admission]\nconnections = 40\nconnections_per_identity = 16").await;
    let neighbour = site.issue(Role::Agent, NEIGHBOUR);
    wait_for(async || calls(&site, &neighbour).await).await;
    let greedy = site.issue(Role::Agent, "greedy");
    let mut crowd = Vec::new();
    for _ in 0..60 {
        let linked = greedy.connect(idle(&site).await, Role::Agent, Purpose::Pages).await;
        crowd.push(linked.unwrap().0);
    }
    assert!(calls(&site, &neighbour).await);
    // The last one is beyond the quota, and is closed at once.
    let last = crowd.last_mut().unwrap();
    assert!(last.read_u8().await.is_err());
    assert!(site.log().contains("admission.connections_per_identity"));
}
