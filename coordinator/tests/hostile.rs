//! What a hostile agent gets at the coordinator's port: it has a valid certificate of the site, of a host of its own, and
//! wants more. A real process.

use std::time::Duration;

use crate::common::{Agent, LIMIT, request, site::Site, up_to_the_commit, vm};
use rackferry_proto::v1::{
    CommitRequest, DeclareHostDeadRequest, GetMigrationRequest, ListVmsRequest, MigrationEnded,
    Outcome, Phase, RunState, SourceStopped, TargetDiscarded, TargetReady, TargetRunning,
    VoteRequest, connect_request as up, connect_response as down,
    evacuation_service_client::EvacuationServiceClient,
    inventory_service_client::InventoryServiceClient,
    migration_service_client::MigrationServiceClient, raft_service_client::RaftServiceClient,
};
use rackferry_tls::Role;
use tokio::time::timeout;
use tonic::{Code, transport::Channel};

/// Host and phase that the log says.
async fn owner(viewer: &Channel) -> (String, Phase) {
    let mut inventory = InventoryServiceClient::new(viewer.clone());
    let vms = inventory.list_vms(ListVmsRequest::default()).await.unwrap().into_inner().vms;
    let web = vms.into_iter().find(|vm| vm.name == "web").expect("it is known");
    let mut migrations = MigrationServiceClient::new(viewer.clone());
    let get = GetMigrationRequest { id: "mig-1".to_owned() };
    let migration = migrations.get_migration(get).await.unwrap().into_inner().migration.unwrap();
    (web.host, migration.phase())
}

/// Everything that could pass the VM on, of a migration in which its host has no part.
fn lies(generation: u64) -> Vec<up::Message> {
    let migration_id = "mig-1".to_owned();
    let ended = MigrationEnded {
        migration_id: migration_id.clone(),
        outcome: Outcome::Moved.into(),
        ..MigrationEnded::default()
    };
    vec![
        up::Message::TargetReady(TargetReady { migration_id: migration_id.clone() }),
        up::Message::CommitRequest(CommitRequest {
            migration_id: migration_id.clone(),
            generation,
        }),
        up::Message::SourceStopped(SourceStopped { migration_id: migration_id.clone() }),
        up::Message::TargetRunning(TargetRunning { migration_id: migration_id.clone() }),
        up::Message::TargetDiscarded(TargetDiscarded { migration_id }),
        up::Message::Ended(ended),
    ]
}

/// One that heard the numbers of a migration says all that its hosts could say, after its commit.
#[tokio::test]
async fn an_agent_has_no_word_in_the_migrations_of_others() {
    let site = Site::new();
    let _coordinator = site.start().await;
    let agent = async |host: &str, rack: &str, vms| {
        let channel = site.channel(&site.issue(Role::Agent, host)).await;
        Agent::over(channel, host, rack, vms).await.unwrap()
    };
    let mut a1 = agent("a1", "a", vec![vm("web", RunState::Running, "")]).await;
    let mut b1 = agent("b1", "b", vec![]).await;
    let evil = agent("x1", "b", vec![]).await;
    let operator = site.caller(Role::Operator).await;
    let mut evacuations = EvacuationServiceClient::new(operator.clone());
    let mut wanted = request("one");
    wanted.targets = vec!["b1".to_owned()];
    evacuations.create_evacuation(wanted).await.unwrap();
    let (_, generation) = up_to_the_commit(&mut a1, &mut b1).await;
    let before = owner(&operator).await;
    for lie in lies(generation) {
        evil.say(lie).await;
    }
    // It says that the VM is its own, and runs: that is shown to an operator and changes no owner. Once the other VM is
    // known, all it said before was heard.
    let running = |name| vm(name, RunState::Running, "");
    evil.report(vec![vm("web", RunState::Running, "mig-1"), running("its-own")]).await;
    let heard = async {
        let mut inventory = InventoryServiceClient::new(operator.clone());
        loop {
            let listed = inventory.list_vms(ListVmsRequest::default()).await.unwrap().into_inner();
            if listed.vms.iter().any(|vm| vm.name == "its-own") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LIMIT, heard).await.expect("it is heard");
    assert_eq!(owner(&operator).await, before, "nothing has changed");

    // The true source stops: only then its target is let run, and nobody else.
    let stopped = SourceStopped { migration_id: "mig-1".to_owned() };
    a1.say(up::Message::SourceStopped(stopped)).await;
    assert!(matches!(b1.hear().await, down::Message::ResumeTarget(_)));
    assert_eq!(owner(&operator).await.0, "b1");
}

#[tokio::test]
async fn an_agent_is_no_operator_no_coordinator_and_no_other_host() {
    let site = Site::new();
    let _coordinator = site.start().await;
    let own = site.channel(&site.issue(Role::Agent, "x1")).await;
    let mut as_other = Agent::over(own.clone(), "a1", "a", vec![]).await;
    let refused = match &mut as_other {
        Ok(agent) => agent.end().await.expect("it is told why"),
        Err(status) => status.clone(),
    };
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");

    let mut evacuations = EvacuationServiceClient::new(own.clone());
    let status = evacuations.create_evacuation(request("two")).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    let mut inventory = InventoryServiceClient::new(own.clone());
    let dead = DeclareHostDeadRequest { host: "a1".to_owned(), ..Default::default() };
    let status = inventory.declare_host_dead(dead).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    let status = RaftServiceClient::new(own).vote(VoteRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
}
