//! Requests that no client would send, thousands of them, to every method for clients of a real process: each gets a
//! clear answer, the process lives on, and what was refused has changed nothing.
//!
//! Everything comes from a seed. `GARBAGE_SEED` sets it, `GARBAGE_REQUESTS` how many requests are sent.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

#[path = "../common/mod.rs"]
mod common;
mod forge;
mod raw;

use std::time::Duration;

use common::{Agent, Coordinator, LIMIT, create, free_port, request, vm};
use forge::{Forge, Method};
use rackferry_proto::{
    reason_of,
    v1::{
        self, evacuation_service_client::EvacuationServiceClient,
        inventory_service_client::InventoryServiceClient,
        migration_service_client::MigrationServiceClient,
    },
};
use tokio::time::timeout;
use tonic::{Code, Status, transport::Channel};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

/// Requests in a run of the test.
const REQUESTS: u32 = 4000;
/// A site with what requests may name.
const SITE: &str = "version: 1
racks:
  - {name: a, hosts: [{name: a1}]}
  - {name: b, hosts: [{name: b1}]}
links: [{name: core0, a: a, b: b, rate: 1Gbit}]
";

/// Everything that clients can see, but for what changes by itself.
#[derive(Debug, PartialEq)]
struct Seen {
    hosts: Vec<v1::Host>,
    vms: Vec<v1::Vm>,
    inventory: v1::GetInventoryResponse,
    links: Vec<v1::LinkStatus>,
    evacuations: Vec<v1::Evacuation>,
    migrations: Vec<v1::Migration>,
}

async fn look(channel: &Channel) -> Seen {
    let large = 64 << 20;
    let mut inventory =
        InventoryServiceClient::new(channel.clone()).max_decoding_message_size(large);
    let mut evacuations =
        EvacuationServiceClient::new(channel.clone()).max_decoding_message_size(large);
    let mut migrations =
        MigrationServiceClient::new(channel.clone()).max_decoding_message_size(large);
    let hosts = inventory.list_hosts(v1::ListHostsRequest::default()).await.unwrap().into_inner();
    let vms = inventory.list_vms(v1::ListVmsRequest::default()).await.unwrap().into_inner();
    let links = inventory.list_links(v1::ListLinksRequest {}).await.unwrap().into_inner();
    let file = inventory.get_inventory(v1::GetInventoryRequest {}).await.unwrap().into_inner();
    let list = v1::ListEvacuationsRequest::default();
    let all = evacuations.list_evacuations(list).await.unwrap().into_inner();
    let list = v1::ListMigrationsRequest::default();
    let moves = migrations.list_migrations(list).await.unwrap().into_inner();
    Seen {
        hosts: hosts.hosts,
        vms: vms.vms,
        inventory: file,
        links: links.links,
        evacuations: all.evacuations,
        migrations: moves.migrations,
    }
}

/// Whether a caller can do something with it.
fn is_clear(status: &Status) -> bool {
    let text = status.message();
    match status.code() {
        // What tonic says of bytes that are no message, as gRPC wants it.
        Code::Internal => text.starts_with("failed to decode Protobuf message"),
        // Larger than is taken, or compressed in a way that is not.
        Code::OutOfRange | Code::Unimplemented => !text.is_empty(),
        _ => reason_of(status).is_some() && !text.is_empty(),
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

#[tokio::test]
async fn no_request_brings_it_down_and_none_that_is_refused_changes_anything() {
    let seed = setting("GARBAGE_SEED", rand::random());
    let requests = setting("GARBAGE_REQUESTS", REQUESTS.into());
    println!("GARBAGE_SEED={seed} GARBAGE_REQUESTS={requests}");
    let dir = tempfile::tempdir().unwrap();
    let settings = "[limits]\nhistory = 5";
    let mut coordinator = Coordinator::start_with(dir.path(), free_port(), settings).await;
    let names = ["web", "db"].map(|name| vm(name, v1::RunState::Running, ""));
    let _source = Agent::connect(&coordinator, "a1", "a", names.to_vec()).await;
    let _target = Agent::connect(&coordinator, "b1", "b", vec![]).await;
    let channel = coordinator.channel().await;
    let import = v1::ImportInventoryRequest { name: "site.yaml".into(), text: SITE.into() };
    InventoryServiceClient::new(channel.clone()).import_inventory(import).await.unwrap();
    create(&coordinator, request("first")).await;

    let methods = forge::methods();
    let mut forge = Forge::new(seed);
    let (mut refused, mut answered) = (0, 0);
    let mut before = look(&channel).await;
    for number in 0..requests {
        let method: &Method = &methods[number as usize % methods.len()];
        let (bytes, how) = forge.request(method);
        let what = || {
            let shown = &bytes[..bytes.len().min(200)];
            format!("seed {seed}, request {number}, {} ({how}): {shown:?}", method.path)
        };
        let asked = raw::call(&channel, &method.path, bytes.clone());
        // A watch of something that goes on has its first answer soon as well.
        let answer = timeout(LIMIT, asked).await.unwrap_or_else(|_| panic!("silent: {}", what()));
        let now = look(&channel).await;
        match answer {
            Ok(()) => answered += 1,
            Err(status) => {
                refused += 1;
                assert!(is_clear(&status), "{status:?}: {}", what());
                assert_eq!(before, now, "{status:?}: {}", what());
            }
        }
        before = now;
    }
    println!("{answered} answered, {refused} refused");
    assert!(refused > requests / 4 && answered > requests / 50, "{answered} of {requests}");

    // It ends as one that is well does.
    drop(channel);
    assert_eq!(coordinator.terminate(), Some(0));
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    assert!(!log.contains("panicked"), "{}", log.lines().last().unwrap_or_default());
}

#[tokio::test]
async fn it_says_that_it_is_well_and_what_it_serves() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(dir.path(), free_port()).await;
    let channel = coordinator.channel().await;
    let served = forge::services();
    for service in &served {
        common::health_becomes(coordinator.port, service, true).await;
    }
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(channel);
    let asked = reflection.server_reflection_info(tokio_stream::once(list)).await;
    let answer = timeout(Duration::from_secs(10), asked.unwrap().into_inner().message()).await;
    let answer = answer.unwrap().unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("{answer:?}")
    };
    let names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    assert!(served.iter().all(|service| names.contains(service)), "{names:?}");
    assert!(names.contains(&"grpc.health.v1.Health".to_owned()), "{names:?}");
}
