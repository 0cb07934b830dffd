//! Watches that tell changes only, and lists in pages.

use crate::common::{Agent, Coordinator, LIMIT, create, free_port, request, vm};
use prost::Message;
use rackferry_proto::v1::{
    ListMigrationsRequest, ListVmsRequest, MigrationProgress, RunState, TargetReady, VmState,
    WatchEvacuationRequest, WatchEvacuationResponse, WatchMigrationsRequest, connect_request as up,
    connect_response as down, evacuation_service_client::EvacuationServiceClient,
    inventory_service_client::InventoryServiceClient,
    migration_service_client::MigrationServiceClient,
};
use tonic::{Streaming, transport::Channel};

/// An evacuation of some VMs, of which one copies.
struct Copying {
    coordinator: Coordinator,
    source: Agent,
    _target: Agent,
    _dir: tempfile::TempDir,
    evacuation: String,
    migration: String,
}

impl Copying {
    async fn start(vms: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let coordinator = Coordinator::start(dir.path(), free_port()).await;
        let small = |n| VmState {
            memory_bytes: 1 << 20,
            ..vm(&format!("vm-{n:04}"), RunState::Running, "")
        };
        let mut source =
            Agent::connect(&coordinator, "a1", "a", (0..vms).map(small).collect()).await;
        let mut target = Agent::connect(&coordinator, "b1", "b", vec![]).await;
        let evacuation = create(&coordinator, request("r")).await.id;
        let down::Message::PrepareTarget(prepare) = target.hear().await else { panic!() };
        let migration = prepare.migration_id;
        let ready = TargetReady { migration_id: migration.clone() };
        target.say(up::Message::TargetReady(ready)).await;
        let down::Message::StartSource(_) = source.hear().await else { panic!() };
        Self { coordinator, source, _target: target, _dir: dir, evacuation, migration }
    }

    async fn progress(&self, round: u32) {
        let migration_id = self.migration.clone();
        let progress = MigrationProgress { migration_id, round, ..Default::default() };
        self.source.say(up::Message::Progress(progress)).await;
    }

    async fn client(&self) -> EvacuationServiceClient<Channel> {
        EvacuationServiceClient::new(self.coordinator.channel().await)
    }

    async fn watch(&self, since: &str) -> Streaming<WatchEvacuationResponse> {
        let request = WatchEvacuationRequest {
            id: self.evacuation.clone(),
            changes_only: true,
            since: since.to_owned(),
        };
        self.client().await.watch_evacuation(request).await.unwrap().into_inner()
    }
}

async fn next(stream: &mut Streaming<WatchEvacuationResponse>) -> WatchEvacuationResponse {
    let message = tokio::time::timeout(LIMIT, stream.message()).await.expect("news come");
    message.unwrap().expect("the watch goes on")
}

/// What tells that a move has come to a round.
async fn until_round(
    stream: &mut Streaming<WatchEvacuationResponse>,
    round: u32,
) -> WatchEvacuationResponse {
    loop {
        let message = next(stream).await;
        let moves = &message.evacuation.as_ref().unwrap().migrations;
        if moves.iter().any(|one| one.round == round) {
            return message;
        }
    }
}

#[tokio::test]
async fn what_a_watcher_is_told_grows_with_changes_and_not_with_vms() {
    let mut told = Vec::new();
    for vms in [10, 1_000] {
        let copying = Copying::start(vms).await;
        let mut stream = copying.watch("").await;
        let first = next(&mut stream).await;
        assert!(first.complete);
        assert_eq!(first.evacuation.as_ref().unwrap().migrations.len(), vms);
        copying.progress(7).await;
        let change = until_round(&mut stream, 7).await;
        assert!(!change.complete);
        println!(
            "{vms} VMs: {} bytes at first, {} for a change",
            first.encoded_len(),
            change.encoded_len()
        );
        told.push(change.encoded_len());
    }
    assert!(told[1] < told[0] + 200, "{told:?}");
}

#[tokio::test]
async fn a_watch_goes_on_where_it_was() {
    let copying = Copying::start(10).await;
    let mut stream = copying.watch("").await;
    copying.progress(7).await;
    let known = until_round(&mut stream, 7).await.revision;
    drop(stream);
    copying.progress(8).await;
    let again = until_round(&mut copying.watch(&known).await, 8).await;
    assert!(!again.complete);
    assert!(again.evacuation.unwrap().migrations.len() < 10);
    // What another leader has told is not known to this one.
    let anew = next(&mut copying.watch("999999.1").await).await;
    assert!(anew.complete);
    assert_eq!(anew.evacuation.unwrap().migrations.len(), 10);
    let request = WatchEvacuationRequest {
        id: copying.evacuation.clone(),
        changes_only: true,
        since: "yesterday".to_owned(),
    };
    let refused = copying.client().await.watch_evacuation(request).await.unwrap_err();
    assert!(refused.message().contains("since"), "{refused}");
}

#[tokio::test]
async fn all_moves_can_be_watched_by_their_changes() {
    let copying = Copying::start(10).await;
    let mut client = MigrationServiceClient::new(copying.coordinator.channel().await);
    let request = WatchMigrationsRequest { changes_only: true, ..Default::default() };
    let mut stream = client.watch_migrations(request).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    assert!(first.complete);
    assert_eq!(first.migrations.len(), 10);
    copying.progress(7).await;
    loop {
        let change = tokio::time::timeout(LIMIT, stream.message()).await.expect("news come");
        let change = change.unwrap().unwrap();
        assert!(!change.complete && change.migrations.len() < 10, "{change:?}");
        if change.migrations.iter().any(|one| one.round == 7) {
            break;
        }
    }
}

#[tokio::test]
async fn lists_come_in_pages() {
    let copying = Copying::start(10).await;
    let channel = copying.coordinator.channel().await;
    let mut inventory = InventoryServiceClient::new(channel.clone());
    let (mut names, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListVmsRequest { page_size: 4, page_token, ..Default::default() };
        let page = inventory.list_vms(request).await.unwrap().into_inner();
        assert!(page.vms.len() <= 4);
        names.extend(page.vms.into_iter().map(|vm| vm.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, (0..10).map(|n| format!("vm-{n:04}")).collect::<Vec<_>>());
    let all = inventory.list_vms(ListVmsRequest::default()).await.unwrap().into_inner();
    assert_eq!((all.vms.len(), all.next_page_token.as_str()), (10, ""));

    let mut migrations = MigrationServiceClient::new(channel);
    let request = ListMigrationsRequest { page_size: 3, ..Default::default() };
    let page = migrations.list_migrations(request).await.unwrap().into_inner();
    assert_eq!((page.migrations.len(), page.next_page_token.as_str()), (3, "mig-3"));
    let request = ListMigrationsRequest { page_token: "vm-0003".to_owned(), ..Default::default() };
    assert!(migrations.list_migrations(request).await.is_err());
}
