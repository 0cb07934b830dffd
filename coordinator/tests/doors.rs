//! Which callers are let in at the coordinator's port, and which are not: a real process, and callers of every kind.

use std::{fs, sync::Arc, time::Duration};

use crate::common::{
    Agent, LIMIT, free_port,
    site::{Site, endpoint},
};
use rackferry_proto::{
    Reason, reason_of,
    v1::{
        AddNodeRequest, CreateEvacuationRequest, CreateTokenRequest, GetClusterRequest,
        ListHostsRequest, VoteRequest, cluster_service_client::ClusterServiceClient,
        connect_response as down, enrolment_service_client::EnrolmentServiceClient,
        evacuation_service_client::EvacuationServiceClient,
        inventory_service_client::InventoryServiceClient, raft_service_client::RaftServiceClient,
    },
};
use rackferry_tls::{
    Authority, Identity, Purpose,
    Role::{self, Admin, Coordinator, Operator, Viewer},
    Tls, Token,
    authority::LIFE,
    grpc,
};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{io::AsyncReadExt, net::TcpStream};
use tonic::{Code, Status, transport::Channel};

/// Why a caller cannot connect, with all causes.
async fn refused(site: &Site, tls: Option<&Tls>) -> String {
    let error = grpc::connect(&endpoint(site.port), tls).await.map(|_| ()).unwrap_err();
    let (mut text, mut cause) = (String::new(), Some(&error as &dyn std::error::Error));
    while let Some(error) = cause {
        text = format!("{text}{error}; ");
        cause = error.source();
    }
    text
}

/// What calls of each service come to: of clients, of agents, of coordinators.
async fn call_each(channel: Channel) -> [Status; 3] {
    let mut inventory = InventoryServiceClient::new(channel.clone());
    let list = inventory.list_hosts(ListHostsRequest::default()).await;
    let vote = VoteRequest::default();
    [
        list.map(|_| ()).unwrap_err(),
        Agent::over(channel.clone(), "h1", "r", vec![]).await.map(|_| ()).unwrap_err(),
        RaftServiceClient::new(channel).vote(vote).await.map(|_| ()).unwrap_err(),
    ]
}

#[tokio::test]
async fn without_tls_no_service_answers() {
    let site = Site::new();
    let _coordinator = site.start().await;
    for status in call_each(endpoint(site.port).connect_lazy()).await {
        let broken = [Code::Unavailable, Code::Internal, Code::Unknown];
        assert!(broken.contains(&status.code()), "{status:?}");
        assert_eq!(reason_of(&status), None, "a service has seen it");
    }
}

#[tokio::test]
async fn without_a_certificate_there_is_no_grpc() {
    let site = Site::new();
    let _coordinator = site.start().await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(site.authority.pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(("127.0.0.1", site.port)).await.unwrap();
    let name = ServerName::try_from("coordinator.rackferry.internal").unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(name, stream).await.unwrap();
    let error = stream.read_u8().await.unwrap_err().to_string();
    assert!(error.contains("CertificateRequired"), "{error}");
}

#[tokio::test]
async fn those_who_join_find_nothing_else() {
    let site = Site::new();
    let _coordinator = site.start().await;
    let token = Token::new(&site.authority.pem).unwrap();
    let channel = grpc::join(&endpoint(site.port), &token).await.unwrap();
    for status in call_each(channel).await {
        assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
    }
}

#[tokio::test]
async fn a_certificate_of_another_site_is_refused() {
    let site = Site::new();
    let _coordinator = site.start().await;
    let foreign = Authority::create(&site.dir.path().join("foreign")).unwrap();
    // Named like one of ours, and believing our CA too, so that nothing but the coordinator is in its way.
    for role in [Role::Agent, Coordinator, Admin] {
        let dir = site.folder("foreign");
        foreign.issue(&dir, &Identity::new(role, "h1"), LIFE).unwrap();
        fs::write(dir.join("ca.pem"), format!("{}{}", foreign.pem, site.authority.pem)).unwrap();
        let text = refused(&site, Some(&Tls::open(&dir, &[role]).unwrap())).await;
        assert!(text.contains("our certificate is not of its site"), "{role}: {text}");
    }
}

#[tokio::test]
async fn a_certificate_that_has_expired_is_refused() {
    let site = Site::new();
    let _coordinator = site.start().await;
    let brief = [Role::Agent, Coordinator, Admin]
        .map(|role| site.issue_for(role, role.as_str(), time::Duration::seconds(8)));
    let last = brief.iter().map(Tls::expires).max().unwrap().unsigned_abs();
    while unix_seconds() <= last {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for tls in &brief {
        let text = refused(&site, Some(tls)).await;
        assert!(text.contains("our certificate has expired"), "{text}");
    }
}

fn unix_seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// What a call comes to that is wrong in itself, so that a caller that is let in learns that, and nothing happens.
async fn calls(channel: Channel) -> [(&'static str, Result<(), Status>); 6] {
    let mut inventory = InventoryServiceClient::new(channel.clone());
    let list = inventory.list_hosts(ListHostsRequest::default()).await;
    let create = CreateEvacuationRequest::default();
    let create = EvacuationServiceClient::new(channel.clone()).create_evacuation(create).await;
    let add = ClusterServiceClient::new(channel.clone()).add_node(AddNodeRequest::default()).await;
    let token = CreateTokenRequest::default();
    let token = EnrolmentServiceClient::new(channel.clone()).create_token(token).await;
    let vote = RaftServiceClient::new(channel.clone()).vote(VoteRequest::default()).await;
    [
        ("look", list.map(|_| ())),
        ("move", create.map(|_| ())),
        ("change", add.map(|_| ())),
        ("let in", token.map(|_| ())),
        ("replicate", vote.map(|_| ())),
        ("be an agent", Agent::over(channel, "", "r", vec![]).await.map(|_| ())),
    ]
}

#[tokio::test]
async fn each_role_may_do_its_part_and_no_more() {
    let site = Site::new();
    let _coordinator = site.start().await;
    for (role, allowed) in [
        (Viewer, &["look"][..]),
        (Operator, &["look", "move"]),
        (Admin, &["look", "move", "change", "let in"]),
        (Coordinator, &["replicate"]),
        (Role::Agent, &["be an agent"]),
    ] {
        for (what, outcome) in calls(site.caller(role).await).await {
            let reason = outcome.as_ref().err().and_then(reason_of);
            let refused = reason == Some(Reason::NotPermitted);
            assert_eq!(refused, !allowed.contains(&what), "{role}, {what}: {outcome:?}");
            if let Err(status) = &outcome {
                assert_ne!(status.code(), Code::Unavailable, "{role}, {what}: {status:?}");
            }
        }
    }
}

#[tokio::test]
async fn an_agent_speaks_for_its_own_host_only() {
    let site = Site::new();
    let _coordinator = site.start().await;
    let tls = site.issue(Role::Agent, "h1");
    let status =
        Agent::over(site.channel(&tls).await, "h2", "r", vec![]).await.map(|_| ()).unwrap_err();
    assert_eq!(reason_of(&status), Some(Reason::NotPermitted));
    assert!(status.message().contains("agent h1, which cannot speak for h2"), "{status:?}");
    let mut agent = Agent::over(site.channel(&tls).await, "h1", "r", vec![]).await.unwrap();
    assert!(matches!(agent.hear_any().await, down::Message::Welcome(_)));
}

#[tokio::test]
async fn three_coordinators_lead_each_other_over_tls() {
    let site = Site::new();
    let ports = [site.port, free_port(), free_port()];
    let peers: Vec<_> = (1..)
        .zip(ports)
        .map(|(id, port)| format!("{{ id = {id}, addr = '127.0.0.1:{port}' }}"))
        .collect();
    let mut coordinators = Vec::new();
    for (id, port) in (1..).zip(ports) {
        let name = format!("c{id}");
        site.issue(Coordinator, &name);
        let settings = format!("[cluster]\nid = {id}\npeers = [{}]", peers.join(", "));
        let dir = site.dir.path().join(&name);
        coordinators.push(site.start_with(&name, &dir, port, &settings).await);
    }
    let mut cluster = ClusterServiceClient::new(site.caller(Viewer).await);
    let led = async {
        loop {
            let seen = cluster.get_cluster(GetClusterRequest {}).await.unwrap().into_inner();
            if seen.cluster.unwrap().leader_id != 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, led).await.expect("one of them leads");
}

/// The name of the coordinator that answers at the port.
async fn who_answers(site: &Site, tls: &Tls) -> String {
    let stream = TcpStream::connect(("127.0.0.1", site.port)).await.unwrap();
    tls.connect(stream, Coordinator, Purpose::Control).await.unwrap().1.name
}

#[tokio::test]
async fn certificates_are_replaced_while_it_runs() {
    let site = Site::new();
    let _coordinator = site.start().await;
    let tls = site.issue(Role::Agent, "h1");
    let mut agent = Agent::over(site.channel(&tls).await, "h1", "r", vec![]).await.unwrap();
    assert!(matches!(agent.hear_any().await, down::Message::Welcome(_)));
    assert_eq!(who_answers(&site, &tls).await, "c1");
    let renamed = Identity::new(Coordinator, "renewed");
    site.authority.issue(&site.folder("c1"), &renamed, LIFE).unwrap();
    let taken_up = async {
        while who_answers(&site, &tls).await != "renewed" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, taken_up).await.expect("it is taken up");
    // An agent that was connected still is.
    agent.report(vec![]).await;
    let mut inventory = InventoryServiceClient::new(site.caller(Viewer).await);
    let hosts = inventory.list_hosts(ListHostsRequest::default()).await.unwrap().into_inner();
    assert!(hosts.hosts[0].connected);
    // A file that is no good changes nothing, and says so.
    fs::write(site.folder("c1").join("cert.pem"), "half of a").unwrap();
    let told = async {
        while !site.log().contains("new certificates are not used") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, told).await.expect("it says so");
    assert_eq!(who_answers(&site, &tls).await, "renewed");
}

#[test]
fn it_does_not_start_unless_tls_is_set_or_off() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = crate::common::spawn_with(dir.path(), free_port(), "", "", "info");
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let log = fs::read_to_string(dir.path().join("log")).unwrap();
    assert!(log.contains("rackferry init") && log.contains("tls = \"off\""), "{log}");
}
