//! Sources stay cordoned, and what is left on them is named, through the doors of a real process.

use crate::common::{Agent, Coordinator, create, free_port, moves, request, vm};
use rackferry_proto::{
    Reason, reason_of,
    v1::{
        Evacuation, EvacuationState, GetEvacuationRequest, ListHostsRequest, ListVmsRequest,
        RunState, UncordonHostsRequest, WatchEvacuationRequest,
        evacuation_service_client::EvacuationServiceClient,
        inventory_service_client::InventoryServiceClient,
    },
};

async fn cordoned(coordinator: &Coordinator) -> Vec<String> {
    let mut inventory = InventoryServiceClient::new(coordinator.channel().await);
    let hosts = inventory.list_hosts(ListHostsRequest::default()).await.unwrap().into_inner().hosts;
    hosts.into_iter().filter(|host| host.cordoned).map(|host| host.name).collect()
}

/// The last snapshot of a watch.
async fn watched(coordinator: &Coordinator, id: &str) -> Evacuation {
    let mut client = EvacuationServiceClient::new(coordinator.channel().await);
    let watch = WatchEvacuationRequest { id: id.to_owned(), ..WatchEvacuationRequest::default() };
    let mut snapshots = client.watch_evacuation(watch).await.unwrap().into_inner();
    let mut last = None;
    while let Some(answer) = snapshots.message().await.unwrap() {
        last = answer.evacuation;
    }
    last.unwrap()
}

#[tokio::test]
async fn sources_stay_cordoned_and_what_is_left_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut coordinator = Coordinator::start(dir.path(), port).await;
    let running = |name: &str| vm(name, RunState::Running, "");
    let mut source = Agent::connect(&coordinator, "a1", "a", vec![running("web")]).await;
    let other = Agent::connect(&coordinator, "a2", "a", vec![]).await;
    let mut target = Agent::connect(&coordinator, "b1", "b", vec![]).await;
    let id = create(&coordinator, request("r")).await.id;
    assert_eq!(cordoned(&coordinator).await, ["a1", "a2"]);

    // A VM is started on a host that is being emptied.
    other.report(vec![running("new")]).await;
    let mut inventory = InventoryServiceClient::new(coordinator.channel().await);
    while inventory.list_vms(ListVmsRequest::default()).await.unwrap().into_inner().vms.len() < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    moves(&mut source, &mut target).await;
    let ended = watched(&coordinator, &id).await;
    assert_eq!(ended.totals.unwrap().done, 1, "every VM of it has moved");
    assert_eq!((ended.state(), ended.result_code), (EvacuationState::Incomplete, 4));
    let left = &ended.remaining[0];
    assert_eq!((left.vm.as_str(), left.host.as_str()), ("new", "a2"));
    assert_eq!(ended.silent_hosts, [""; 0]);

    coordinator.kill();
    let coordinator = Coordinator::start(dir.path(), port).await;
    let mut client = EvacuationServiceClient::new(coordinator.channel().await);
    let get = GetEvacuationRequest { id };
    let again = client.get_evacuation(get).await.unwrap().into_inner().evacuation.unwrap();
    assert_eq!((again.remaining, again.result_code), (ended.remaining, 4));
    assert_eq!(cordoned(&coordinator).await, ["a1", "a2"]);
    let mut inventory = InventoryServiceClient::new(coordinator.channel().await);
    let places = vec!["a".to_owned()];
    inventory.uncordon_hosts(UncordonHostsRequest { places }).await.unwrap();
    assert_eq!(cordoned(&coordinator).await, [""; 0]);
}

#[tokio::test]
async fn a_source_without_vms_and_with_one_that_does_not_answer_is_not_empty() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(dir.path(), free_port()).await;
    let dumb = vec![vm("dumb", RunState::Unknown, "")];
    let _source = Agent::connect(&coordinator, "a1", "a", dumb).await;
    let _target = Agent::connect(&coordinator, "b1", "b", vec![]).await;
    let mut client = EvacuationServiceClient::new(coordinator.channel().await);
    let refused = client.create_evacuation(request("r")).await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(Reason::NotEmpty));
    assert!(refused.message().contains("VM dumb (its QEMU does not answer)"), "{refused:?}");
}
