//! The inventory, limits, pauses and cordons through the doors of a real process, and through its log.

use crate::common::{Agent, Coordinator, create, free_port, request, vm};
use rackferry_proto::{
    Reason, reason_of,
    v1::{
        self, CordonHostsRequest, EvacuationState, GetInventoryRequest, ImportInventoryRequest,
        LinkLimit, PauseEvacuationRequest, ResumeEvacuationRequest, RunState, SetLinkLimitsRequest,
        WaitCode, connect_response as down, evacuation_service_client::EvacuationServiceClient,
        inventory_service_client::InventoryServiceClient, link_limit::Limit,
    },
};
use tonic::{Status, transport::Channel};

const SITE: &str = "version: 1
racks:
  - {name: a, hosts: [{name: a1}]}
  - {name: b, hosts: [{name: \"b[1-2]\"}]}
links: [{name: core0, a: a, b: b, rate: 1Gbit}]
";

type Inventory = InventoryServiceClient<Channel>;

async fn inventory(coordinator: &Coordinator) -> Inventory {
    InventoryServiceClient::new(coordinator.channel().await)
}

async fn import(client: &mut Inventory, text: &str) -> Result<bool, Status> {
    let (name, text) = ("site.yaml".to_owned(), text.to_owned());
    let answer = client.import_inventory(ImportInventoryRequest { name, text }).await?;
    Ok(answer.into_inner().changed)
}

async fn limit(client: &mut Inventory, link: &str, limit: Option<Limit>) -> Result<(), Status> {
    let limits = vec![LinkLimit { link: link.to_owned(), limit }];
    client.set_link_limits(SetLinkLimitsRequest { limits }).await.map(drop)
}

async fn shown(client: &mut Inventory) -> v1::GetInventoryResponse {
    client.get_inventory(GetInventoryRequest {}).await.unwrap().into_inner()
}

#[tokio::test]
async fn a_file_with_a_mistake_changes_nothing_and_a_good_one_outlives_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut coordinator = Coordinator::start(dir.path(), port).await;
    let mut client = inventory(&coordinator).await;
    assert_eq!(shown(&mut client).await, v1::GetInventoryResponse::default());
    assert!(import(&mut client, SITE).await.unwrap());
    assert!(!import(&mut client, SITE).await.unwrap(), "the same again is no change");
    limit(&mut client, "core0", Some(Limit::Percent(40))).await.unwrap();
    let before = shown(&mut client).await;
    assert_eq!(before.summary.as_ref().map(|summary| summary.hosts), Some(3));
    assert_eq!(before.racks[1].away, ["b1", "b2"]);
    assert_eq!(before.links[0].limit.as_ref().unwrap().limit, Some(Limit::Percent(40)));

    for at in (0..SITE.len()).step_by(7) {
        let damaged = format!("{}\u{7}{{{}", &SITE[..at], &SITE[at..]);
        let refused = import(&mut client, &damaged).await.unwrap_err();
        assert_eq!(reason_of(&refused), Some(Reason::InvalidInventory), "{damaged}");
        assert!(refused.message().starts_with("site.yaml:"), "{}", refused.message());
    }
    let refused = limit(&mut client, "core9", None).await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(Reason::UnknownLink));
    let refused = limit(&mut client, "core0", Some(Limit::Percent(0))).await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(Reason::InvalidArgument));
    assert_eq!(shown(&mut client).await, before);

    coordinator.kill();
    let coordinator = Coordinator::start(dir.path(), port).await;
    assert_eq!(shown(&mut inventory(&coordinator).await).await, before);
}

#[tokio::test]
async fn what_is_held_back_says_so_and_sources_hear_their_rate() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(dir.path(), free_port()).await;
    let mut client = inventory(&coordinator).await;
    import(&mut client, SITE).await.unwrap();
    limit(&mut client, "core0", Some(Limit::BytesPerSecond(6_000_000))).await.unwrap();
    let vms = ["one", "two"].map(|name| vm(name, RunState::Running, ""));
    let mut source = Agent::connect(&coordinator, "a1", "a", vms.to_vec()).await;
    let mut target = Agent::connect(&coordinator, "b1", "b", vec![]).await;
    let _stranger = Agent::connect(&coordinator, "b9", "b", vec![]).await;
    let strangers = shown(&mut client).await.strangers;
    assert_eq!(strangers.iter().map(|host| host.name.as_str()).collect::<Vec<_>>(), ["b9"]);
    let places = vec!["b9".to_owned()];
    let cordoned = client.cordon_hosts(CordonHostsRequest { places }).await.unwrap().into_inner();
    assert!(cordoned.hosts.iter().all(|host| host.cordoned && host.name == "b9"));

    let evacuation = create(&coordinator, request("")).await;
    let waits = |evacuation: &v1::Evacuation| -> Vec<(WaitCode, u32, u32)> {
        let waits = evacuation.migrations.iter().filter_map(|one| one.wait_reason.as_ref());
        waits.map(|wait| (wait.code(), wait.limit, wait.used)).collect()
    };
    assert_eq!(waits(&evacuation), [(WaitCode::LinkFull, 1, 1)]);
    let id = evacuation.id;
    let mut evacuations = EvacuationServiceClient::new(coordinator.channel().await);
    let pause = PauseEvacuationRequest { id: id.clone() };
    let paused = evacuations.pause_evacuation(pause).await.unwrap().into_inner();
    let paused = paused.evacuation.unwrap();
    assert_eq!(paused.state(), EvacuationState::Paused);
    assert_eq!(waits(&paused), [(WaitCode::EvacuationPaused, 0, 1)]);

    let prepare = loop {
        if let down::Message::PrepareTarget(order) = target.hear_any().await {
            break order;
        }
    };
    let ready = v1::TargetReady { migration_id: prepare.migration_id.clone() };
    target.say(v1::connect_request::Message::TargetReady(ready)).await;
    let start = loop {
        if let down::Message::StartSource(order) = source.hear_any().await {
            break order;
        }
    };
    assert_eq!(start.bytes_per_second, 6_000_000);
    limit(&mut client, "core0", None).await.unwrap();
    let rate = loop {
        if let down::Message::SetRate(order) = source.hear_any().await {
            break order;
        }
    };
    assert_eq!((rate.migration_id, rate.bytes_per_second), (prepare.migration_id, 0));

    let resume = ResumeEvacuationRequest { id };
    let resumed = evacuations.resume_evacuation(resume).await.unwrap().into_inner();
    let resumed = resumed.evacuation.unwrap();
    assert_eq!(resumed.state(), EvacuationState::Running);
    assert!(waits(&resumed).is_empty(), "{resumed:?}");
}
