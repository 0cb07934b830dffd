//! The coordinator as a process: streams, durability, restarts. What it decides is tested in the fleet.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use crate::common::{Agent, Coordinator, create, free_port, request, up_to_the_commit, vm};
use rackferry_proto::{
    Reason, reason_of,
    v1::{
        CreateEvacuationRequest, Evacuation, EvacuationState, ListHostsRequest, ListVmsRequest,
        MigrationEnded, Outcome, Ownership, RunState, SourceStopped, TargetRunning,
        TransferCounters, VmCondition, WatchEvacuationRequest, connect_request as up,
        connect_response as down, evacuation_service_client::EvacuationServiceClient,
        inventory_service_client::InventoryServiceClient,
    },
};

async fn move_ends(source: &Agent, target: &Agent, migration_id: &str) {
    let running = TargetRunning { migration_id: migration_id.to_owned() };
    target.say(up::Message::TargetRunning(running)).await;
    let counters =
        TransferCounters { logical_bytes: 1 << 30, wire_bytes: 1 << 20, ..Default::default() };
    let ended = MigrationEnded {
        migration_id: migration_id.to_owned(),
        outcome: Outcome::Moved.into(),
        counters: Some(counters),
        blackout_ms: 42,
        ..MigrationEnded::default()
    };
    source.say(up::Message::Ended(ended)).await;
}

/// The last snapshot of a watch.
async fn watch(coordinator: &Coordinator, id: &str) -> Evacuation {
    let mut client = EvacuationServiceClient::new(coordinator.channel().await);
    let request = WatchEvacuationRequest { id: id.to_owned(), ..Default::default() };
    let mut stream = client.watch_evacuation(request).await.unwrap().into_inner();
    let mut last = None;
    let until_it_ends = async {
        while let Some(snapshot) = stream.message().await.unwrap() {
            last = snapshot.evacuation;
        }
    };
    tokio::time::timeout(crate::common::LIMIT, until_it_ends).await.expect("the watch ends");
    last.expect("there was a snapshot")
}

#[tokio::test]
async fn an_evacuation_from_hello_to_done() {
    let dir = tempfile::tempdir().unwrap();
    let mut coordinator = Coordinator::start(dir.path(), free_port()).await;
    let running = vm("web", RunState::Running, "");
    let mut source = Agent::connect(&coordinator, "a1", "a", vec![running.clone()]).await;
    let mut target = Agent::connect(&coordinator, "b1", "b", vec![]).await;
    let down::Message::Welcome(welcome) = source.hear_any().await else { panic!("not welcome") };
    assert_eq!((welcome.host_id, welcome.domain_key.len()), (1, 32));
    let plan =
        create(&coordinator, CreateEvacuationRequest { validate_only: true, ..request("") }).await;
    assert_eq!((plan.id.as_str(), plan.migrations[0].target_host.as_str()), ("", "b1"));

    let evacuation = create(&coordinator, request("r")).await;
    assert_eq!(create(&coordinator, request("r")).await.id, evacuation.id);
    let (migration_id, _) = up_to_the_commit(&mut source, &mut target).await;
    let stopped = SourceStopped { migration_id: migration_id.clone() };
    source.say(up::Message::SourceStopped(stopped)).await;
    assert!(matches!(target.hear().await, down::Message::ResumeTarget(_)));
    move_ends(&source, &target, &migration_id).await;

    let done = watch(&coordinator, &evacuation.id).await;
    assert_eq!(done.state(), EvacuationState::Done);
    assert_eq!((done.result_code, done.migrations[0].blackout_ms), (0, 42));
    assert_eq!(done.totals.unwrap().counters.unwrap().wire_bytes, 1 << 20);
    assert_eq!(coordinator.terminate(), Some(0));
    // Only the coordinator's user may read the key, and the log does not show it.
    let key = std::fs::read(dir.path().join("data/domain.key")).unwrap();
    assert_eq!(key, welcome.domain_key);
    let mode = std::fs::metadata(dir.path().join("data/domain.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let log = std::fs::read(dir.path().join("log")).unwrap();
    let shown = format!("{key:?}");
    assert!(!String::from_utf8_lossy(&log).contains(&shown));
}

#[tokio::test]
async fn a_request_waits_for_agents_that_dial_again() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut coordinator = Coordinator::start(dir.path(), port).await;
    let running = vm("web", RunState::Running, "");
    drop(Agent::connect(&coordinator, "a1", "a", vec![running.clone()]).await);
    drop(Agent::connect(&coordinator, "b1", "b", vec![]).await);
    coordinator.kill();
    let coordinator = Coordinator::start(dir.path(), port).await;
    let back = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let source = Agent::connect(&coordinator, "a1", "a", vec![running]).await;
        (source, Agent::connect(&coordinator, "b1", "b", vec![]).await)
    };
    let (evacuation, _agents) = tokio::join!(create(&coordinator, request("r")), back);
    assert_eq!(evacuation.migrations[0].target_host, "b1");
}

#[tokio::test]
async fn a_coordinator_killed_after_the_commit_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut coordinator = Coordinator::start(dir.path(), port).await;
    let running = vm("web", RunState::Running, "");
    let mut source = Agent::connect(&coordinator, "a1", "a", vec![running]).await;
    let mut target = Agent::connect(&coordinator, "b1", "b", vec![]).await;
    let evacuation = create(&coordinator, request("r")).await;
    let (migration_id, generation) = up_to_the_commit(&mut source, &mut target).await;
    coordinator.kill();

    // Committed, but no agent has said that the source stopped: the owner is known, the target waits.
    let coordinator = Coordinator::start(dir.path(), port).await;
    let loaded = vm("web", RunState::Loaded, &migration_id);
    let mut target = Agent::connect(&coordinator, "b1", "b", vec![loaded]).await;
    let mut inventory = InventoryServiceClient::new(coordinator.channel().await);
    let vms = inventory.list_vms(ListVmsRequest::default()).await.unwrap().into_inner().vms;
    assert_eq!((vms[0].host.as_str(), vms[0].generation), ("b1", generation));
    assert_eq!(vms[0].ownership(), Ownership::Committed);
    assert_eq!(vms[0].condition(), VmCondition::Switching);

    // The source comes back and attests: now the target may run.
    let moved_out = vm("web", RunState::MovedOut, &migration_id);
    let source = Agent::connect(&coordinator, "a1", "a", vec![moved_out]).await;
    let down::Message::ResumeTarget(resume) = target.hear().await else { panic!("not resume") };
    assert_eq!((resume.migration_id.as_str(), resume.generation), (&*migration_id, generation));
    move_ends(&source, &target, &migration_id).await;
    let done = watch(&coordinator, &evacuation.id).await;
    assert_eq!(done.state(), EvacuationState::Done);
}

#[tokio::test]
async fn a_source_that_runs_after_the_commit_keeps_its_vm() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut coordinator = Coordinator::start(dir.path(), port).await;
    let running = vm("web", RunState::Running, "");
    let mut source = Agent::connect(&coordinator, "a1", "a", vec![running.clone()]).await;
    let mut target = Agent::connect(&coordinator, "b1", "b", vec![]).await;
    create(&coordinator, request("r")).await;
    let (migration_id, generation) = up_to_the_commit(&mut source, &mut target).await;
    coordinator.kill();

    let coordinator = Coordinator::start(dir.path(), port).await;
    let loaded = vm("web", RunState::Loaded, &migration_id);
    let mut target = Agent::connect(&coordinator, "b1", "b", vec![loaded]).await;
    let _source = Agent::connect(&coordinator, "a1", "a", vec![running]).await;
    assert!(matches!(target.hear().await, down::Message::DiscardTarget(_)));
    let mut inventory = InventoryServiceClient::new(coordinator.channel().await);
    let vms = inventory.list_vms(ListVmsRequest::default()).await.unwrap().into_inner().vms;
    assert_eq!(vms[0].host, "a1");
    assert!(vms[0].generation > generation);
}

#[tokio::test]
async fn refusals_carry_reasons() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(dir.path(), free_port()).await;
    let mut client = EvacuationServiceClient::new(coordinator.channel().await);
    let refused = client.create_evacuation(request("r")).await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(Reason::UnknownPlace));
    let refused = client.create_evacuation(CreateEvacuationRequest::default()).await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(Reason::InvalidArgument));
    let request = WatchEvacuationRequest { id: "evac-9".to_owned(), ..Default::default() };
    let refused = client.watch_evacuation(request).await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(Reason::UnknownEvacuation));
}

#[tokio::test]
async fn a_running_coordinator_keeps_its_log_to_itself() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(dir.path(), free_port()).await;
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_rackferry-coordinator"))
        .arg("--config")
        .arg(dir.path().join("coordinator.toml"))
        .output()
        .unwrap();
    assert!(!second.status.success());
    drop(coordinator);
}

/// A folder as coordinators before Raft left it, with one host.
fn old_folder(dir: &std::path::Path) {
    const RECORDS: redb::TableDefinition<&str, &[u8]> = redb::TableDefinition::new("records");
    std::fs::create_dir_all(dir.join("data")).unwrap();
    let database = redb::Database::create(dir.join("data/coordinator.redb")).unwrap();
    let write = database.begin_write().unwrap();
    {
        let mut table = write.open_table(RECORDS).unwrap();
        let host = br#"{"host.v1":{"name":"a1","id":1,"rack":"a","memory_bytes":8}}"#;
        table.insert(r#"{"Host":"a1"}"#, host.as_slice()).unwrap();
        let numbers = br#"{"numbers.v1":{"host":1,"migration":7,"evacuation":0,"crossing":0,"generation":3,"epoch":4}}"#;
        table.insert(r#""Numbers""#, numbers.as_slice()).unwrap();
    }
    write.commit().unwrap();
}

#[tokio::test]
async fn a_log_of_before_raft_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    old_folder(dir.path());
    let port = free_port();
    for start in 0..2 {
        let mut coordinator = Coordinator::start(dir.path(), port).await;
        let mut inventory = InventoryServiceClient::new(coordinator.channel().await);
        let hosts = inventory.list_hosts(ListHostsRequest::default()).await.unwrap();
        let hosts = hosts.into_inner().hosts;
        assert_eq!(hosts.len(), 1 + start, "{hosts:?}");
        let agent = Agent::connect(&coordinator, "b1", "b", vec![]).await.hear_any().await;
        let down::Message::Welcome(welcome) = agent else { panic!("not welcome") };
        // Its numbers go on where they were.
        assert_eq!(welcome.host_id, 2);
        coordinator.kill();
    }
}

#[tokio::test]
async fn a_log_of_before_raft_is_no_ones_in_a_cluster() {
    let dir = tempfile::tempdir().unwrap();
    old_folder(dir.path());
    let peers = "{ id = 1, addr = '127.0.0.1:1' }, { id = 2, addr = '127.0.0.1:2' }";
    let settings = format!("[cluster]\npeers = [{peers}]");
    let ended = crate::common::spawn(dir.path(), free_port(), &settings).wait().unwrap();
    assert_eq!(ended.code(), Some(1));
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    assert!(log.contains("start it once without peers"), "{log}");
}

#[tokio::test]
async fn a_folder_is_one_coordinators() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    Coordinator::start(dir.path(), port).await.kill();
    let settings = "[cluster]\nid = 2";
    let ended = crate::common::spawn(dir.path(), port, settings).wait().unwrap();
    assert_eq!(ended.code(), Some(1));
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    assert!(log.contains("this is the log of coordinator 1"), "{log}");
}

/// At its first start it makes everything it has: killed in the middle, the next start goes on from there.
#[tokio::test]
async fn a_coordinator_killed_at_its_first_start_starts_again() {
    for round in 0..24 {
        let dir = tempfile::tempdir().unwrap();
        for part in 0..3 {
            let mut child = crate::common::spawn(dir.path(), free_port(), "");
            tokio::time::sleep(Duration::from_millis(round + 5 * part)).await;
            child.kill().unwrap();
            child.wait().unwrap();
        }
        Coordinator::start(dir.path(), free_port()).await.kill();
        let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
        assert!(!log.contains("Error:"), "round {round}: {log}");
    }
}
