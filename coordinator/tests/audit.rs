//! Who did what: every request that changes the site leaves an event with its caller's name. Real processes.
#[path = "common/methods.rs"]
mod methods;

use std::{collections::BTreeSet, time::Instant};

use crate::common::{
    Agent, LIMIT,
    site::{Site, endpoint},
    vm,
};
use methods::methods;
use rackferry_proto::{
    Reason, reason_of,
    v1::{
        AcceptVmSpecRequest, CordonHostsRequest, Event, EventOutcome, ImportInventoryRequest,
        JoinRequest, ListEventsRequest, RunState, UncordonHostsRequest, VmState,
        event_service_client::EventServiceClient, inventory_service_client::InventoryServiceClient,
        join_service_client::JoinServiceClient,
    },
};
use rackferry_tls::{Role, Token, grpc};
use tonic::{Status, transport::Channel};

/// Methods that change nothing, and those of other doors: agents' streams, the log, hosts that join.
const NO_ACTS: [&str; 4] = ["/Get", "/List", "/Watch", "/CheckVms"];
const OTHER_DOORS: [&str; 3] = [".AgentService/", ".RaftService/", ".JoinService/"];

/// Every method that changes something, by path.
fn mutating() -> Vec<String> {
    let mut paths = methods();
    paths.retain(|path| !NO_ACTS.iter().any(|word| path.contains(word)));
    paths.retain(|path| !OTHER_DOORS.iter().any(|door| path.contains(door)));
    paths
}

/// Calls a method with an empty message, whatever it is.
async fn call(channel: Channel, path: &str) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let path = path.parse().unwrap();
    grpc.unary(tonic::Request::new(()), path, codec).await.map(|_| ())
}

async fn events(channel: &Channel, after: &str) -> Vec<Event> {
    let request = ListEventsRequest { after: after.to_owned(), ..Default::default() };
    let mut client = EventServiceClient::new(channel.clone());
    client.list_events(request).await.unwrap().into_inner().events
}

/// The next event behind one, once it is there.
async fn next(channel: &Channel, after: &str) -> Event {
    let begin = Instant::now();
    loop {
        if let Some(event) = events(channel, after).await.pop() {
            return event;
        }
        assert!(begin.elapsed() < LIMIT, "no event came behind {after}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// The id of the latest event, once the record has begun.
async fn latest(channel: &Channel) -> String {
    next(channel, "").await;
    events(channel, "").await.remove(0).id
}

#[tokio::test]
async fn every_request_that_changes_something_leaves_an_event() {
    let site = Site::new();
    let _coordinator = site.start().await;
    let anna = site.channel(&site.issue(Role::Admin, "anna")).await;
    let host = site.channel(&site.issue(Role::Agent, "h1")).await;
    let methods = mutating();
    assert!(methods.len() > 15, "{methods:?}");
    let mut known = latest(&anna).await;
    for path in methods {
        let is_hosts = path.ends_with("/Renew");
        let (channel, name) = if is_hosts { (&host, "h1") } else { (&anna, "anna") };
        let called = call(channel.clone(), &path).await;
        let event = next(&anna, &known).await;
        assert_eq!(event.name, name, "{path}: {event:?}");
        assert_ne!(event.action, "call", "its own act, not the table of roles: {path}: {event:?}");
        assert_eq!(event.address, "127.0.0.1");
        let refused = called.err().and_then(|status| reason_of(&status));
        let expected = match refused {
            None => EventOutcome::Accepted,
            Some(reason) => {
                assert_eq!(event.reason, reason.as_str(), "{path}");
                EventOutcome::Refused
            }
        };
        assert_eq!(event.outcome(), expected, "{path}: {event:?}");
        known = event.id;
    }
}

#[tokio::test]
async fn what_a_role_may_not_is_an_event_and_what_it_may_read_is_none() {
    let site = Site::new();
    let _coordinator = site.start().await;
    let eve = site.channel(&site.issue(Role::Viewer, "eve")).await;
    let begun = latest(&eve).await;
    for _ in 0..5 {
        let request = CordonHostsRequest { places: vec!["r".to_owned()] };
        let refused = InventoryServiceClient::new(eve.clone()).cordon_hosts(request).await;
        assert_eq!(reason_of(&refused.unwrap_err()), Some(Reason::NotPermitted));
    }
    let begin = Instant::now();
    loop {
        let seen = events(&eve, &begun).await;
        let count: u64 = seen.iter().map(|event| event.count).sum();
        if count == 5 {
            assert_eq!(seen.len(), 1, "{seen:?}");
            let event = &seen[0];
            assert_eq!((&*event.role, &*event.name), ("viewer", "eve"));
            assert_eq!(event.subject, "InventoryService/CordonHosts");
            assert_eq!((event.outcome(), &*event.reason), (EventOutcome::Refused, "NOT_PERMITTED"));
            break;
        }
        assert!(begin.elapsed() < LIMIT && count < 5, "{seen:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    // An agent may not read them.
    let host = site.channel(&site.issue(Role::Agent, "h1")).await;
    let asked = EventServiceClient::new(host).list_events(ListEventsRequest::default()).await;
    assert_eq!(reason_of(&asked.unwrap_err()), Some(Reason::NotPermitted));
}

#[tokio::test]
async fn who_accepted_a_spec_is_an_event() {
    let site = Site::new();
    let _coordinator = site.start().await;
    let host = site.channel(&site.issue(Role::Agent, "a1")).await;
    let with = |spec: &str| VmState { spec_toml: spec.into(), ..vm("web", RunState::Running, "") };
    let agent = Agent::over(host, "a1", "a", vec![with("cpus = 1")]).await.unwrap();
    let olga = site.channel(&site.issue(Role::Operator, "olga")).await;
    let begun = latest(&olga).await;
    agent.report(vec![with("cpus = 2")]).await;
    let request = AcceptVmSpecRequest { vm: "web".to_owned(), spec_toml: "cpus = 2".to_owned() };
    let mut inventory = InventoryServiceClient::new(olga.clone());
    // Until the report is there; no refusal is a change.
    let begin = Instant::now();
    while let Err(refused) = inventory.accept_vm_spec(request.clone()).await {
        assert_eq!(reason_of(&refused), Some(Reason::SpecDiffers));
        assert!(begin.elapsed() < LIMIT, "{refused:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let all = events(&olga, &begun).await;
    let accepted: Vec<_> =
        all.iter().filter(|event| event.outcome() == EventOutcome::Accepted).collect();
    let [event] = accepted[..] else { panic!("{all:?}") };
    assert_eq!((&*event.role, &*event.name), ("operator", "olga"));
    assert_eq!((&*event.action, &*event.subject), ("vm-accept-spec", "VM web"));
    assert_eq!(event.detail, "as a1 reports it");
    let eve = site.channel(&site.issue(Role::Viewer, "eve")).await;
    let refused = InventoryServiceClient::new(eve).accept_vm_spec(request).await;
    assert_eq!(reason_of(&refused.unwrap_err()), Some(Reason::NotPermitted));
}

#[tokio::test]
async fn an_inventory_with_a_mistake_and_a_wrong_token_are_events() {
    let site = Site::new();
    let _coordinator = site.start().await;
    let anna = site.channel(&site.issue(Role::Admin, "anna")).await;
    let begun = latest(&anna).await;
    let request = ImportInventoryRequest { name: "dc1.yaml".into(), text: "racks: 7".into() };
    InventoryServiceClient::new(anna.clone()).import_inventory(request).await.unwrap_err();
    let event = next(&anna, &begun).await;
    assert_eq!((&*event.action, &*event.subject), ("inventory-import", "dc1.yaml"));
    assert_eq!((&*event.name, &*event.reason), ("anna", "INVALID_INVENTORY"));

    let token = Token::new(&std::fs::read_to_string(site.folder("anna").join("ca.pem")).unwrap());
    let token = token.unwrap();
    let stranger = grpc::join(&endpoint(site.port), &token).await.unwrap();
    let secret = token.secret();
    let request =
        JoinRequest { host: "h9".to_owned(), secret: secret.clone(), ..Default::default() };
    JoinServiceClient::new(stranger).join(request).await.unwrap_err();
    let event = next(&anna, &event.id).await;
    assert_eq!((&*event.role, &*event.action, &*event.reason), ("none", "join", "TOKEN_REFUSED"));
    let all = format!("{:?}", events(&anna, "").await);
    assert!(!all.contains(&secret), "no secret is recorded");
}

#[tokio::test]
async fn events_come_in_pages_and_end_where_they_are_asked_to() {
    let site = Site::new();
    let mut coordinator = site.start().await;
    let anna = site.issue(Role::Admin, "anna");
    let channel = site.channel(&anna).await;
    let host = site.issue(Role::Agent, "a1");
    let _agent = Agent::over(site.channel(&host).await, "a1", "a", vec![]).await.unwrap();
    let mut inventory = InventoryServiceClient::new(channel.clone());
    for n in 0..7 {
        let places = vec!["a".to_owned()];
        if n % 2 == 0 {
            inventory.cordon_hosts(CordonHostsRequest { places }).await.unwrap();
        } else {
            inventory.uncordon_hosts(UncordonHostsRequest { places }).await.unwrap();
        }
    }
    let all = events(&channel, "").await;
    let (mut paged, mut page_token) = (Vec::new(), String::new());
    let mut client = EventServiceClient::new(channel.clone());
    loop {
        let request = ListEventsRequest { page_size: 3, page_token, ..Default::default() };
        let page = client.list_events(request).await.unwrap().into_inner();
        assert!(page.events.len() <= 3);
        assert_eq!(page.latest, all[0].id);
        paged.extend(page.events);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(paged, all);
    let acts: Vec<_> = all.iter().rev().map(|event| &*event.action).collect();
    let acts = acts.into_iter().filter(|action| action.ends_with("cordon")).collect::<Vec<_>>();
    assert_eq!(acts[..3], ["cordon", "uncordon", "cordon"]);
    let since = all[2].last_unix_ms;
    let request = ListEventsRequest { since_unix_ms: since, ..Default::default() };
    let newer = client.list_events(request).await.unwrap().into_inner().events;
    assert!(newer.len() >= 3 && newer.iter().all(|event| event.last_unix_ms >= since));
    let request = ListEventsRequest { after: "yesterday".to_owned(), ..Default::default() };
    let refused = client.list_events(request).await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(Reason::InvalidArgument));
    // They are in the log.
    coordinator.kill();
    let _coordinator = site.start().await;
    let again = events(&site.channel(&anna).await, "").await;
    let ids = |events: &[Event]| events.iter().map(|one| one.id.clone()).collect::<BTreeSet<_>>();
    assert!(ids(&all).is_subset(&ids(&again)));
}
