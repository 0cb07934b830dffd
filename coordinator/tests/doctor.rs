//! Problems and their repair, and moves that are watched, through the doors of a real process.

use std::time::Duration;

use crate::common::{Agent, Coordinator, LIMIT, create, free_port, request, vm};
use rackferry_proto::{
    Reason, reason_of,
    v1::{
        CancelEvacuationRequest, ListProblemsRequest, Phase, Problem, ProblemCode,
        RepairProblemsRequest, RunState, TargetDiscarded, WatchMigrationsRequest,
        connect_request as up, connect_response as down,
        evacuation_service_client::EvacuationServiceClient,
        inventory_service_client::InventoryServiceClient,
        migration_service_client::MigrationServiceClient,
    },
};
use tokio::time::timeout;
use tonic::transport::Channel;

async fn problems(client: &mut InventoryServiceClient<Channel>) -> Vec<Problem> {
    client.list_problems(ListProblemsRequest {}).await.unwrap().into_inner().problems
}

fn about(problems: &[Problem]) -> Vec<(ProblemCode, &str, &str, bool)> {
    let each = |one: &'_ Problem| (one.code(), one.repairable);
    problems.iter().map(|one| (each(one).0, &*one.host, &*one.vm, each(one).1)).collect()
}

#[tokio::test]
async fn a_leftover_is_told_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(dir.path(), free_port()).await;
    let mut client = InventoryServiceClient::new(coordinator.channel().await);
    let _owner =
        Agent::connect(&coordinator, "a1", "a", vec![vm("web", RunState::Running, "")]).await;
    // The coordinator does not remember that move.
    let left = vm("web", RunState::Loaded, "mig-77");
    let mut other = Agent::connect(&coordinator, "b1", "b", vec![left]).await;
    let found = problems(&mut client).await;
    assert_eq!(about(&found), [(ProblemCode::Leftover, "b1", "web", true)]);
    assert_eq!(found[0].fix, "rackferry doctor --repair");
    let repair = client.repair_problems(RepairProblemsRequest {}).await.unwrap().into_inner();
    assert_eq!(about(&repair.repaired), [(ProblemCode::Leftover, "b1", "web", true)]);
    let down::Message::DiscardTarget(order) = other.hear().await else { panic!("not removed") };
    assert_eq!(order.migration_id, "mig-77");
    other.report(vec![]).await;
    let begin = std::time::Instant::now();
    while !problems(&mut client).await.is_empty() {
        assert!(begin.elapsed() < LIMIT);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let repair = client.repair_problems(RepairProblemsRequest {}).await.unwrap().into_inner();
    assert_eq!(repair.repaired, []);
}

#[tokio::test]
async fn the_only_copy_and_an_agent_that_is_away_are_told_and_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(dir.path(), free_port()).await;
    let mut client = InventoryServiceClient::new(coordinator.channel().await);
    let owner =
        Agent::connect(&coordinator, "a1", "a", vec![vm("web", RunState::Running, "")]).await;
    let left = vm("web", RunState::MovedOut, "mig-77");
    let _other = Agent::connect(&coordinator, "b1", "b", vec![left]).await;
    drop(owner);
    let begin = std::time::Instant::now();
    let found = loop {
        let found = problems(&mut client).await;
        if found.len() > 1 {
            break found;
        }
        assert!(begin.elapsed() < LIMIT);
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let wanted =
        [(ProblemCode::Leftover, "b1", "web", false), (ProblemCode::AgentAway, "a1", "", false)];
    assert_eq!(about(&found), wanted);
    let repair = client.repair_problems(RepairProblemsRequest {}).await.unwrap().into_inner();
    assert_eq!(repair.repaired, []);
}

#[tokio::test]
async fn moves_are_watched_to_their_end() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(dir.path(), free_port()).await;
    let channel = coordinator.channel().await;
    let vms = ["one", "two", "three"].map(|name| vm(name, RunState::Running, ""));
    let _source = Agent::connect(&coordinator, "a1", "a", vms.to_vec()).await;
    let mut target = Agent::connect(&coordinator, "b1", "b", vec![]).await;
    let mut client = MigrationServiceClient::new(channel.clone());
    for (request, reason) in [
        (
            WatchMigrationsRequest { evacuation_id: "evac-9".into(), ..Default::default() },
            Reason::UnknownEvacuation,
        ),
        (
            WatchMigrationsRequest { evacuation_id: "nine".into(), ..Default::default() },
            Reason::UnknownEvacuation,
        ),
        (
            WatchMigrationsRequest { ids: vec!["mig-9".into()], ..Default::default() },
            Reason::UnknownMigration,
        ),
        (
            WatchMigrationsRequest { ids: vec!["mig-9".into(); 1001], ..Default::default() },
            Reason::InvalidArgument,
        ),
    ] {
        let refused = client.watch_migrations(request).await.unwrap_err();
        assert_eq!(reason_of(&refused), Some(reason), "{refused:?}");
    }
    let mut all =
        client.watch_migrations(WatchMigrationsRequest::default()).await.unwrap().into_inner();
    assert_eq!(all.message().await.unwrap().unwrap().migrations, [], "nothing moves yet");

    let id = create(&coordinator, request("r")).await.id;
    let named = WatchMigrationsRequest { evacuation_id: id.clone(), ..Default::default() };
    let mut of_it = client.watch_migrations(named).await.unwrap().into_inner();
    assert_eq!(of_it.message().await.unwrap().unwrap().migrations.len(), 3);
    let one = WatchMigrationsRequest { ids: vec!["mig-1".to_owned()], ..Default::default() };
    let mut one = client.watch_migrations(one).await.unwrap().into_inner();
    assert_eq!(one.message().await.unwrap().unwrap().migrations[0].phase(), Phase::Preparing);

    let cancel = CancelEvacuationRequest { id };
    EvacuationServiceClient::new(channel).cancel_evacuation(cancel).await.unwrap();
    for migration_id in ["mig-1", "mig-2"] {
        let discarded = TargetDiscarded { migration_id: migration_id.to_owned() };
        target.say(up::Message::TargetDiscarded(discarded)).await;
    }
    assert!(matches!(target.hear().await, down::Message::PrepareTarget(_)));
    let ended = |phase| phase == Phase::RolledBack;
    for stream in [&mut of_it, &mut one] {
        let mut last = Vec::new();
        while let Some(snapshot) = timeout(LIMIT, stream.message()).await.expect("it ends").unwrap()
        {
            last = snapshot.migrations;
        }
        assert!(last.iter().all(|one| ended(one.phase())) && !last.is_empty(), "{last:?}");
    }
    // A watch of all has told the end of each that it has shown, and goes on.
    loop {
        let snapshot = timeout(LIMIT, all.message()).await.expect("it is told").unwrap().unwrap();
        if snapshot.migrations.len() == 3
            && snapshot.migrations.iter().all(|one| ended(one.phase()))
        {
            break;
        }
    }
    assert!(timeout(Duration::from_millis(500), all.message()).await.is_err(), "nothing to tell");
}
