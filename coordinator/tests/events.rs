//! Events outlive the leader, and a watch goes on at the next one. Three real processes.

use std::time::{Duration, Instant};

use crate::common::{Agent, Coordinator, LIMIT, free_port};
use rackferry_proto::v1::{
    CordonHostsRequest, Event, ListEventsRequest, UncordonHostsRequest, WatchEventsRequest,
    WatchEventsResponse, event_service_client::EventServiceClient,
    inventory_service_client::InventoryServiceClient,
};
use tokio::time::{sleep, timeout};
use tonic::{Status, Streaming};

struct Three {
    _dir: tempfile::TempDir,
    ports: Vec<u16>,
    nodes: Vec<Option<Coordinator>>,
}

impl Three {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ports: Vec<u16> = (0..3).map(|_| free_port()).collect();
        let peer = |n: usize| format!("{{ id = {}, addr = '127.0.0.1:{}' }}", n + 1, ports[n]);
        let peers = (0..3).map(peer).collect::<Vec<_>>().join(", ");
        let mut nodes = Vec::new();
        for (n, &port) in ports.iter().enumerate() {
            let folder = dir.path().join(format!("n{n}"));
            std::fs::create_dir_all(&folder).unwrap();
            let settings = format!("[cluster]\nid = {}\npeers = [{peers}]", n + 1);
            nodes.push(Some(Coordinator::start_with(&folder, port, &settings).await));
        }
        Self { _dir: dir, ports, nodes }
    }

    /// Events behind one, the latest first, from whichever coordinator leads; and which that is.
    async fn events(&self, after: &str) -> (usize, Vec<Event>) {
        let begin = Instant::now();
        while begin.elapsed() < LIMIT {
            for n in (0..3).filter(|&n| self.nodes[n].is_some()) {
                let mut client =
                    EventServiceClient::new(crate::common::channel(self.ports[n]).await);
                let request = ListEventsRequest { after: after.to_owned(), ..Default::default() };
                if let Ok(answer) = client.list_events(request).await {
                    return (n, answer.into_inner().events);
                }
            }
            sleep(Duration::from_millis(100)).await;
        }
        panic!("no coordinator leads");
    }

    async fn cordon(&self, cordoned: bool) {
        let begin = Instant::now();
        loop {
            let (leader, _) = self.events("").await;
            let mut client =
                InventoryServiceClient::new(crate::common::channel(self.ports[leader]).await);
            let places = vec!["a".to_owned()];
            let done = if cordoned {
                client.cordon_hosts(CordonHostsRequest { places }).await.map(|_| ())
            } else {
                client.uncordon_hosts(UncordonHostsRequest { places }).await.map(|_| ())
            };
            match done {
                Ok(()) => return,
                Err(status) => assert!(begin.elapsed() < LIMIT, "{status}"),
            }
        }
    }

    async fn watch(&self, after: &str) -> Streaming<WatchEventsResponse> {
        let begin = Instant::now();
        loop {
            let (leader, _) = self.events("").await;
            let mut client =
                EventServiceClient::new(crate::common::channel(self.ports[leader]).await);
            match client.watch_events(WatchEventsRequest { after: after.to_owned() }).await {
                Ok(stream) => return stream.into_inner(),
                Err(status) => assert!(begin.elapsed() < LIMIT, "{status}"),
            }
        }
    }
}

async fn next(stream: &mut Streaming<WatchEventsResponse>) -> Result<Vec<Event>, Status> {
    let answer = timeout(LIMIT, stream.message()).await.expect("news come, or the end")?;
    answer.map(|answer| answer.events).ok_or_else(|| Status::unavailable("it ended"))
}

/// Reads until as many acts have been told.
async fn until(stream: &mut Streaming<WatchEventsResponse>, told: &mut Vec<Event>, acts: usize) {
    while told.iter().filter(|event| event.action.ends_with("cordon")).count() < acts {
        told.extend(next(stream).await.unwrap());
    }
}

#[tokio::test]
async fn a_watch_goes_on_at_the_next_leader_without_a_gap_and_nothing_twice() {
    let mut site = Three::start().await;
    // The record begins once each has said that it reads it.
    let begin = Instant::now();
    while site.events("").await.1.is_empty() {
        assert!(begin.elapsed() < LIMIT);
        sleep(Duration::from_millis(100)).await;
    }
    let (leader, _) = site.events("").await;
    let _agent = Agent::connect(site.nodes[leader].as_ref().unwrap(), "a1", "a", vec![]).await;

    let mut told = Vec::new();
    let mut stream = site.watch("event-0").await;
    for n in 0..4 {
        site.cordon(n % 2 == 0).await;
    }
    until(&mut stream, &mut told, 4).await;
    // While it is not listened to, two more: one before the leader dies, one after.
    let known = told.last().unwrap().id.clone();
    site.cordon(true).await;
    let (leader, _) = site.events("").await;
    site.nodes[leader].take().unwrap().kill();
    drop(stream);
    site.cordon(false).await;
    let mut stream = site.watch(&known).await;
    until(&mut stream, &mut told, 6).await;

    let (_, mut all) = site.events("").await;
    all.reverse();
    assert_eq!(told, all[..told.len()], "each once, in order");
    let acts = all.iter().filter(|event| event.action.ends_with("cordon"));
    let acts: Vec<_> = acts.map(|event| &*event.action).collect();
    assert_eq!(acts, ["cordon", "uncordon", "cordon", "uncordon", "cordon", "uncordon"]);
}
