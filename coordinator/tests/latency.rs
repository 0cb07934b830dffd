//! How long a durable answer takes. Not a test: `cargo test -p rackferry-coordinator --test latency -- --ignored --nocapture`.
//! `COORDINATOR` in the environment names another binary to compare with.

use std::time::{Duration, Instant};

use crate::common::{Agent, Coordinator, free_port};
use rackferry_proto::v1::connect_response as down;

/// Hellos one after the other; each makes a record of a host.
const ONE_BY_ONE: usize = 300;
/// Hellos at a time.
const AT_A_TIME: usize = 64;

#[tokio::test]
#[ignore = "a measurement"]
async fn from_hello_to_welcome() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(dir.path(), free_port()).await;
    let mut times = Vec::new();
    // A rack of its own each, so that no other agent has to be told of it.
    for n in 0..ONE_BY_ONE {
        times.push(welcome(coordinator.port, format!("one-{n}")).await);
    }
    times.sort();
    println!(
        "one by one: median {:?}, 99th {:?}",
        times[ONE_BY_ONE / 2],
        times[ONE_BY_ONE * 99 / 100]
    );
    let begin = Instant::now();
    let many: Vec<_> = (0..AT_A_TIME)
        .map(|n| tokio::spawn(welcome(coordinator.port, format!("many-{n}"))))
        .collect();
    for one in many {
        one.await.unwrap();
    }
    println!("{AT_A_TIME} at a time: {:?}", begin.elapsed());
}

/// Three on one machine: they share its disk and its cores.
#[tokio::test]
#[ignore = "a measurement"]
async fn from_hello_to_welcome_of_three() {
    let dir = tempfile::tempdir().unwrap();
    let ports = [free_port(), free_port(), free_port()];
    let peers: Vec<String> = ports
        .iter()
        .enumerate()
        .map(|(n, port)| format!("{{ id = {}, addr = '127.0.0.1:{port}' }}", n + 1))
        .collect();
    let mut nodes = Vec::new();
    for (n, port) in ports.into_iter().enumerate() {
        let folder = dir.path().join(n.to_string());
        std::fs::create_dir(&folder).unwrap();
        let settings = format!("[cluster]\nid = {}\npeers = [{}]", n + 1, peers.join(", "));
        nodes.push(Some(Coordinator::start_with(&folder, port, &settings).await));
    }
    // The first elections are over by then.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let leader = leader(&ports).await;
    let mut times = Vec::new();
    for n in 0..ONE_BY_ONE {
        times.push(welcome(ports[leader], format!("one-{n}")).await);
    }
    times.sort();
    println!(
        "three, one by one: median {:?}, 99th {:?}",
        times[ONE_BY_ONE / 2],
        times[ONE_BY_ONE * 99 / 100]
    );
    let begin = Instant::now();
    nodes[leader].take().unwrap().kill();
    let others: Vec<u16> = ports.into_iter().filter(|&port| port != ports[leader]).collect();
    let next = self::leader(&others).await;
    welcome(others[next], "after".to_owned()).await;
    println!("three, from the leader's death to the next answer: {:?}", begin.elapsed());
}

/// The one that answers.
async fn leader(ports: &[u16]) -> usize {
    loop {
        for (n, &port) in ports.iter().enumerate() {
            let channel = crate::common::channel(port).await;
            if Agent::over(channel, "probe", "probe", vec![]).await.is_ok() {
                return n;
            }
        }
    }
}

async fn welcome(port: u16, host: String) -> Duration {
    let channel = crate::common::channel(port).await;
    let begin = Instant::now();
    let mut agent = Agent::over(channel, &host, &host, vec![]).await.unwrap();
    assert!(matches!(agent.hear_any().await, down::Message::Welcome(_)));
    begin.elapsed()
}
