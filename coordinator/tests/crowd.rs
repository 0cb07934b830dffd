//! Callers that connect and do nothing, and the others, which they must not keep out: a real process.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod common;

use common::{
    Agent,
    site::{Site, endpoint},
};
use rackferry_proto::v1::{
    JoinRequest, ListHostsRequest, inventory_service_client::InventoryServiceClient,
    join_service_client::JoinServiceClient,
};
use rackferry_tls::{Purpose, Role, Stream, Tls, Token, grpc, links};
use tokio::{
    io::AsyncReadExt,
    net::{TcpSocket, TcpStream},
};

/// A connection from another address than those of all other callers.
async fn idle(port: u16) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.9:0".parse().unwrap()).unwrap();
    socket.connect(([127, 0, 0, 1], port).into()).await.unwrap()
}

/// A host that connects, and an operator that asks for hosts and finds it.
async fn works(site: &Site, host: &str) {
    let agent = site.channel(&site.issue(Role::Agent, host)).await;
    let _agent = Agent::over(agent, host, "r", vec![]).await.unwrap();
    let viewer = site.channel(&site.issue(Role::Viewer, "anna")).await;
    let list = InventoryServiceClient::new(viewer).list_hosts(ListHostsRequest::default()).await;
    let hosts = list.unwrap().into_inner().hosts;
    assert!(hosts.iter().any(|known| known.name == host));
}

/// A newcomer is heard, and its token looked at.
async fn may_join(site: &Site) {
    let token = Token::new(&site.authority.pem).unwrap();
    let channel = grpc::join(&endpoint(site.port), &token).await.unwrap();
    let refused = JoinServiceClient::new(channel).join(JoinRequest::default()).await.unwrap_err();
    assert!(refused.message().contains("token"), "{refused}");
}

#[tokio::test]
async fn two_thousand_idle_connections_of_one_address_keep_no_other_caller_out() {
    let site = Site::new();
    let _coordinator = site.start().await;
    let mut crowd = Vec::new();
    for _ in 0..2000 {
        crowd.push(idle(site.port).await);
    }
    works(&site, "h1").await;
    may_join(&site).await;
    assert!(site.log().contains("admission.handshakes_per_address"));
}

async fn idle_with(tls: &Tls, port: u16) -> Option<Stream<TcpStream>> {
    let (stream, _) =
        tls.connect(idle(port).await, Role::Coordinator, Purpose::Control).await.ok()?;
    Some(stream)
}

#[tokio::test]
async fn idle_connections_of_one_certificate_or_newcomer_take_no_other_callers_place() {
    let site = Site::new();
    let limits = "[admission]\nconnections = 40\nconnections_per_identity = 16\nnewcomers = 8";
    let _coordinator = site.start_with("c1", site.dir.path(), site.port, limits).await;
    let greedy = site.issue(Role::Agent, "greedy");
    let token = Token::new(&site.authority.pem).unwrap();
    let (mut crowd, mut newcomers) = (Vec::new(), Vec::new());
    for _ in 0..100 {
        crowd.extend(idle_with(&greedy, site.port).await);
        newcomers.push(links::join(idle(site.port).await, token.authority()).await);
    }
    works(&site, "h1").await;
    may_join(&site).await;
    // Those beyond the quota were closed: the end comes without a first word of HTTP/2.
    let mut closed = 0;
    for stream in &mut crowd {
        closed += usize::from(stream.read_u8().await.is_err());
    }
    assert_eq!(crowd.len() - closed, 16, "connections that are left");
    assert!(site.log().contains("admission.connections_per_identity"));
}
