//! How long a durable answer takes. Not a test: `cargo test -p rackferry-coordinator --test latency -- --ignored --nocapture`.
//! `COORDINATOR` in the environment names another binary to compare with.
#![allow(clippy::unwrap_used, reason = "a measurement stops at what it does not expect")]

mod common;

use std::time::{Duration, Instant};

use common::{Agent, Coordinator, free_port};
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
    // A rack of its own each, so that nobody has to be told of it.
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

async fn welcome(port: u16, host: String) -> Duration {
    let channel = common::channel(port).await;
    let begin = Instant::now();
    let mut agent = Agent::over(channel, &host, &host, vec![]).await.unwrap();
    assert!(matches!(agent.hear_any().await, down::Message::Welcome(_)));
    begin.elapsed()
}
