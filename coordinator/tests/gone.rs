//! Clones of hosts, and hosts that are dead for good, at a real coordinator.

use crate::common::{Agent, Coordinator, free_port, vm};
use rackferry_proto::{
    Reason, reason_of,
    v1::{
        DeclareHostDeadRequest, ForgetHostRequest, ForgetVmRequest, ListHostsRequest,
        ListProblemsRequest, ListVmsRequest, ProblemCode, RunState, VmState,
        inventory_service_client::InventoryServiceClient,
    },
};

async fn dials(coordinator: &Coordinator, installation: &str, vms: Vec<VmState>) -> Agent {
    let channel = coordinator.channel().await;
    Agent::of_installation(channel, "a1", "a", installation, vms).await.unwrap()
}

async fn refusal(agent: &mut Agent) -> Option<Reason> {
    agent.end().await.as_ref().and_then(reason_of)
}

#[tokio::test]
async fn a_clone_is_refused_until_the_host_is_declared_dead() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut coordinator = Coordinator::start(dir.path(), port).await;
    let running = || vec![vm("web", RunState::Running, "")];
    let _host = dials(&coordinator, "one", running()).await;
    let mut clone = dials(&coordinator, "two", vec![]).await;
    assert_eq!(refusal(&mut clone).await, Some(Reason::InstallationRefused));

    // The host has lost nothing by it, and its operator is told.
    let mut inventory = InventoryServiceClient::new(coordinator.channel().await);
    let hosts = inventory.list_hosts(ListHostsRequest::default()).await.unwrap().into_inner();
    assert!(hosts.hosts[0].connected);
    let vms = inventory.list_vms(ListVmsRequest::default()).await.unwrap().into_inner();
    assert_eq!(vms.vms.len(), 1);
    let problems = inventory.list_problems(ListProblemsRequest {}).await.unwrap().into_inner();
    let codes: Vec<_> = problems.problems.iter().map(|problem| problem.code()).collect();
    assert!(codes.contains(&ProblemCode::HostDuplicate), "{codes:?}");
    let dead = DeclareHostDeadRequest { host: "a1".to_owned(), ..Default::default() };
    let refused = inventory.declare_host_dead(dead.clone()).await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(Reason::HostConnected));

    // It is written down: a restarted coordinator refuses the clone, too.
    coordinator.kill();
    let coordinator = Coordinator::start(dir.path(), port).await;
    let mut clone = dials(&coordinator, "two", vec![]).await;
    assert_eq!(refusal(&mut clone).await, Some(Reason::InstallationRefused));

    let mut inventory = InventoryServiceClient::new(coordinator.channel().await);
    let host = inventory.declare_host_dead(dead.clone()).await.unwrap().into_inner().host.unwrap();
    assert!(host.declared_dead && !host.connected);
    inventory.declare_host_dead(dead).await.unwrap();
    let forget = ForgetHostRequest { host: "a1".to_owned() };
    let refused = inventory.forget_host(forget.clone()).await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(Reason::HostInUse));
    let mut old = dials(&coordinator, "one", running()).await;
    assert_eq!(refusal(&mut old).await, Some(Reason::InstallationRefused));

    inventory.forget_vm(ForgetVmRequest { vm: "web".to_owned() }).await.unwrap();
    inventory.forget_host(forget).await.unwrap();
    let hosts = inventory.list_hosts(ListHostsRequest::default()).await.unwrap().into_inner();
    assert_eq!(hosts.hosts, []);
    let _new = dials(&coordinator, "two", vec![]).await;
    let hosts = inventory.list_hosts(ListHostsRequest::default()).await.unwrap().into_inner();
    assert!(hosts.hosts[0].connected && !hosts.hosts[0].declared_dead);
}
