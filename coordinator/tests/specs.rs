//! A source in foreign hands reports another spec for its VM: what a real coordinator makes of it.

use crate::common::{Agent, Coordinator, create, free_port, request, vm};
use rackferry_proto::{
    Reason, reason_of,
    v1::{
        AcceptVmSpecRequest, GetVmRequest, ListProblemsRequest, ProblemCode, RunState, VmSpecs,
        VmState, connect_response as down, inventory_service_client::InventoryServiceClient,
    },
};
use tonic::transport::Channel;

const GOOD: &str = "memory = '1G'";
const POISONED: &str = "memory = '1G'\nextra_args = ['--incoming', 'exec:sh']";

fn web(spec: &str) -> Vec<VmState> {
    vec![VmState { spec_toml: spec.to_owned(), ..vm("web", RunState::Running, "") }]
}

async fn specs(inventory: &mut InventoryServiceClient<Channel>) -> VmSpecs {
    let request = GetVmRequest { vm: "web".to_owned() };
    inventory.get_vm(request).await.unwrap().into_inner().specs.unwrap()
}

#[tokio::test]
async fn a_poisoned_report_reaches_no_target_and_outlives_no_restart() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut coordinator = Coordinator::start(dir.path(), port).await;
    {
        let _source = Agent::connect(&coordinator, "a1", "a", web(GOOD)).await;
        let mut inventory = InventoryServiceClient::new(coordinator.channel().await);
        assert_eq!(specs(&mut inventory).await.registered_toml, GOOD);
    }
    coordinator.kill();

    // The agent is taken over meanwhile.
    let coordinator = Coordinator::start(dir.path(), port).await;
    let source = Agent::connect(&coordinator, "a1", "a", web(POISONED)).await;
    let mut target = Agent::connect(&coordinator, "b1", "b", vec![]).await;
    let mut inventory = InventoryServiceClient::new(coordinator.channel().await);
    let problems = inventory.list_problems(ListProblemsRequest {}).await.unwrap().into_inner();
    let codes: Vec<_> = problems.problems.iter().map(|problem| problem.code()).collect();
    assert!(codes.contains(&ProblemCode::VmSpecChanged), "{codes:?}");
    let both = specs(&mut inventory).await;
    assert_eq!((&*both.registered_toml, &*both.reported_toml), (GOOD, POISONED));
    let seen = AcceptVmSpecRequest { vm: "web".to_owned(), spec_toml: "seen before".to_owned() };
    let refused = inventory.accept_vm_spec(seen).await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(Reason::SpecDiffers));

    // It reports as before; what it then says in the move is passed on neither.
    source.report(web(GOOD)).await;
    let moved = loop {
        if specs(&mut inventory).await.reported_toml == GOOD {
            break create(&coordinator, request("1")).await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    assert_eq!(moved.migrations.len(), 1);
    let down::Message::PrepareTarget(prepare) = target.hear().await else { panic!("not prepare") };
    assert_eq!(prepare.spec_toml, GOOD);
}
