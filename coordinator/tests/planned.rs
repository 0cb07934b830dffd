//! Plans that are applied later, and VMs that are brought back, through the doors of a real process.

use crate::common::{Agent, Coordinator, create, free_port, moves, request, vm};
use rackferry_proto::{
    Reason, reason_of,
    v1::{
        self, CreateEvacuationRequest, EvacuationState, GetEvacuationRequest, ListVmsRequest,
        PlannedMove, RestoreEvacuationRequest, RunState,
        evacuation_service_client::EvacuationServiceClient,
        inventory_service_client::InventoryServiceClient,
    },
};
use tonic::transport::Channel;

type Evacuations = EvacuationServiceClient<Channel>;

fn planned(plan: &v1::Evacuation, request_id: &str) -> CreateEvacuationRequest {
    let moves = plan.migrations.iter().map(|one| PlannedMove {
        vm: one.vm.clone(),
        source_host: one.source_host.clone(),
        target_host: one.target_host.clone(),
        memory_bytes: one.memory_bytes,
    });
    CreateEvacuationRequest { moves: moves.collect(), ..request(request_id) }
}

async fn plan(client: &mut Evacuations) -> v1::CreateEvacuationResponse {
    let ask = CreateEvacuationRequest { validate_only: true, ..request("p") };
    client.create_evacuation(ask).await.unwrap().into_inner()
}

#[tokio::test]
async fn a_plan_is_applied_once_or_says_what_has_changed() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(dir.path(), free_port()).await;
    let running = |name: &str| vm(name, RunState::Running, "");
    let source = Agent::connect(&coordinator, "a1", "a", vec![running("web")]).await;
    let _target = Agent::connect(&coordinator, "b1", "b", vec![]).await;
    let mut client = Evacuations::new(coordinator.channel().await);
    let shown = plan(&mut client).await;
    assert_eq!(shown.blocked, []);
    let apply = planned(&shown.evacuation.unwrap(), "p");

    source.report(vec![running("web"), running("new")]).await;
    let mut inventory = InventoryServiceClient::new(coordinator.channel().await);
    while inventory.list_vms(ListVmsRequest::default()).await.unwrap().into_inner().vms.len() < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let refused = client.create_evacuation(apply.clone()).await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(Reason::PlanChanged), "{refused:?}");
    assert!(refused.message().contains("VM new is on a1, and not in the plan"), "{refused:?}");
    let both = planned(&plan(&mut client).await.evacuation.unwrap(), "both");
    let evacuation = create(&coordinator, both.clone()).await;
    assert_eq!(evacuation.migrations.len(), 2);
    assert_eq!(create(&coordinator, both.clone()).await.id, evacuation.id);
    let other = CreateEvacuationRequest { moves: apply.moves, ..both };
    let refused = client.create_evacuation(other).await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(Reason::RequestIdReused));
}

#[tokio::test]
async fn what_cannot_move_is_in_the_plan_with_its_cause() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(dir.path(), free_port()).await;
    let vms = vec![vm("web", RunState::Running, ""), vm("old", RunState::Paused, "")];
    let _source = Agent::connect(&coordinator, "a1", "a", vms).await;
    let _target = Agent::connect(&coordinator, "b1", "b", vec![]).await;
    let mut client = Evacuations::new(coordinator.channel().await);
    let shown = plan(&mut client).await;
    let blocked: Vec<_> = shown.blocked.iter().map(|vm| (vm.vm.as_str(), vm.can_move)).collect();
    assert_eq!(blocked, [("old", false)]);
    assert_eq!(shown.blocked[0].findings[0].cause, "it is paused");
    assert!(!shown.blocked[0].findings[0].fix.is_empty());
    let refused = client.create_evacuation(request("r")).await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(Reason::VmNotMovable));
}

async fn done(client: &mut Evacuations, id: &str) {
    let begin = std::time::Instant::now();
    loop {
        let get = GetEvacuationRequest { id: id.to_owned() };
        let evacuation = client.get_evacuation(get).await.unwrap().into_inner().evacuation.unwrap();
        if evacuation.state() == EvacuationState::Done {
            return;
        }
        assert!(begin.elapsed() < crate::common::LIMIT, "{evacuation:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_vm_is_brought_back_to_its_host() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut coordinator = Coordinator::start(dir.path(), port).await;
    let mut home =
        Agent::connect(&coordinator, "a1", "a", vec![vm("web", RunState::Running, "")]).await;
    let mut away = Agent::connect(&coordinator, "b1", "b", vec![]).await;
    let mut client = Evacuations::new(coordinator.channel().await);
    let id = create(&coordinator, request("r")).await.id;
    let back = |request_id: &str, validate_only| RestoreEvacuationRequest {
        id: id.clone(),
        options: None,
        request_id: request_id.to_owned(),
        validate_only,
    };
    let refused = client.restore_evacuation(back("b", false)).await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(Reason::EvacuationRunning));
    moves(&mut home, &mut away).await;
    done(&mut client, &id).await;

    let shown = client.restore_evacuation(back("b", true)).await.unwrap().into_inner();
    let shown = shown.evacuation.unwrap();
    assert_eq!((shown.id.as_str(), shown.restores.as_str()), ("", id.as_str()));
    assert_eq!(shown.migrations[0].target_host, "a1");
    let begun = client.restore_evacuation(back("b", false)).await.unwrap().into_inner();
    let restore = begun.evacuation.unwrap();
    assert_eq!((restore.sources.clone(), begun.staying), (vec!["b1".to_owned()], vec![]));

    // What is remembered of it outlives the process.
    coordinator.kill();
    let coordinator = Coordinator::start(dir.path(), port).await;
    let mut client = Evacuations::new(coordinator.channel().await);
    let again = client.restore_evacuation(back("b", false)).await.unwrap().into_inner();
    assert_eq!(again.evacuation.unwrap().id, restore.id);
    let other = client.restore_evacuation(back("r", false)).await.unwrap_err();
    assert_eq!(reason_of(&other), Some(Reason::RequestIdReused));
}
