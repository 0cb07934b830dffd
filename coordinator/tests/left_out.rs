//! VMs that an evacuation leaves where they are, through the doors of a real process.

use crate::common::{Agent, Coordinator, free_port, request, vm};
use rackferry_proto::{
    Reason, reason_of,
    v1::{
        CreateEvacuationRequest, Evacuation, GetEvacuationRequest, PlannedMove, RunState,
        evacuation_service_client::EvacuationServiceClient,
    },
};
use tonic::{Status, transport::Channel};

type Evacuations = EvacuationServiceClient<Channel>;

async fn ask(
    client: &mut Evacuations,
    request: CreateEvacuationRequest,
) -> Result<Evacuation, Status> {
    let answer = client.create_evacuation(request).await?.into_inner();
    assert_eq!(answer.blocked, []);
    Ok(answer.evacuation.unwrap())
}

fn left_out(evacuation: &Evacuation) -> Vec<(&str, &str)> {
    evacuation.left_out.iter().map(|one| (one.vm.as_str(), one.reason.as_str())).collect()
}

#[tokio::test]
async fn vms_are_left_out_as_planned_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut coordinator = Coordinator::start(dir.path(), port).await;
    let running = |name: &str| vm(name, RunState::Running, "");
    let vms = vec![running("web"), running("db"), vm("old", RunState::Paused, "")];
    let _source = Agent::connect(&coordinator, "a1", "a", vms).await;
    let _target = Agent::connect(&coordinator, "b1", "b", vec![]).await;
    let mut client = Evacuations::new(coordinator.channel().await);

    let excluding = |name: &str, request_id: &str| CreateEvacuationRequest {
        exclude: vec![name.to_owned()],
        skip_blocked: true,
        ..request(request_id)
    };
    let refused = ask(&mut client, excluding("typo", "r")).await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(Reason::InvalidArgument));
    assert!(refused.message().contains("typo"), "{refused:?}");

    let ask_plan = CreateEvacuationRequest { validate_only: true, ..excluding("db", "plan") };
    let plan = ask(&mut client, ask_plan).await.unwrap();
    let stay = [("db", "excluded"), ("old", "it is paused")];
    assert_eq!(left_out(&plan), stay);
    let moves = plan.migrations.iter().map(|one| PlannedMove {
        vm: one.vm.clone(),
        source_host: one.source_host.clone(),
        target_host: one.target_host.clone(),
        memory_bytes: one.memory_bytes,
    });
    let apply = CreateEvacuationRequest {
        moves: moves.collect(),
        left_out: plan.left_out.clone(),
        ..request("plan")
    };
    let started = ask(&mut client, apply.clone()).await.unwrap();
    assert_eq!((started.migrations.len(), &started.migrations[0].vm), (1, &"web".to_owned()));
    assert_eq!(left_out(&started), stay);
    let same = ask(&mut client, apply).await.unwrap();
    assert_eq!(same.id, started.id);

    coordinator.kill();
    let coordinator = Coordinator::start(dir.path(), port).await;
    let mut client = Evacuations::new(coordinator.channel().await);
    let get = GetEvacuationRequest { id: started.id.clone() };
    let again = client.get_evacuation(get).await.unwrap().into_inner().evacuation.unwrap();
    assert_eq!(left_out(&again), stay);
}
