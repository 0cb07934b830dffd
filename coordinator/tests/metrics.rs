//! What a coordinator process shows to Prometheus.

use std::{path::Path, process::Command, time::Instant};

use crate::common::{Agent, Coordinator, create, free_port, moves, request, up_to_the_commit, vm};
use rackferry_proto::v1::{
    ImportInventoryRequest, RunState, inventory_service_client::InventoryServiceClient,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const INVENTORY: &str = "version: 1
racks:
  - {name: a, hosts: [{name: a1}], uplinks: [{to: spine, rate: 10Gbit}]}
  - {name: b, hosts: [{name: b1}], uplinks: [{to: spine, rate: 10Gbit}]}
spines: [{name: spine}]
";

/// A coordinator that serves `/metrics` on the second port.
fn start(dir: &Path, port: u16, metrics: u16) -> Coordinator {
    let config = dir.join("coordinator.toml");
    let text = format!(
        "tls = 'off'\n[server]\nlisten = '127.0.0.1:{port}'\nmetrics_listen = '127.0.0.1:{metrics}'\n\
         [storage]\ndir = '{}'\n",
        dir.join("data").display()
    );
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_rackferry-coordinator"));
    Coordinator::of(command.arg("--config").arg(&config).spawn().unwrap(), port)
}

async fn metrics(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.lines().next().unwrap().contains(" 200 "), "{text}");
    text
}

/// Waits until `/metrics` has all of these lines.
async fn shows(port: u16, lines: &[&str]) -> String {
    let begin = Instant::now();
    loop {
        let text = metrics(port).await;
        let missing = lines.iter().find(|line| !text.contains(&format!("\n{line}\n")));
        match missing {
            None => return text,
            Some(line) => assert!(begin.elapsed() < crate::common::LIMIT, "no {line} in\n{text}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn everything_in_the_manual_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let (port, metrics) = (free_port(), free_port());
    let coordinator = start(dir.path(), port, metrics);
    let mut inventory = InventoryServiceClient::new(coordinator.channel().await);
    let import = ImportInventoryRequest { text: INVENTORY.to_owned(), ..Default::default() };
    inventory.import_inventory(import).await.unwrap();
    let running = |name| vm(name, RunState::Running, "");
    let mut source = Agent::connect(&coordinator, "a1", "a", vec![running("web")]).await;
    let mut target = Agent::connect(&coordinator, "b1", "b", vec![]).await;
    create(&coordinator, request("r")).await;
    up_to_the_commit(&mut source, &mut target).await;
    let before = [
        "rackferry_coordinator_leads 1",
        "rackferry_coordinator_migrations{phase=\"switching\"} 1",
        "rackferry_coordinator_migrations_ended_total{outcome=\"moved\"} 0",
        "rackferry_coordinator_hosts{state=\"connected\"} 2",
        "rackferry_coordinator_hosts_cordoned 1",
        "rackferry_coordinator_vms 1",
        "rackferry_coordinator_link_migrations{link=\"a-spine\",direction=\"forth\"} 1",
        "rackferry_coordinator_link_limit_bytes_per_second{link=\"a-spine\"} 0",
    ];
    let text = shows(metrics, &before).await;
    let manual = include_str!("../../docs/operations.md");
    let (_, section) = manual.split_once("\n## Metrics of the coordinator\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|row| row.strip_prefix("| `rackferry_"));
    // There is no TLS, and no other coordinator.
    let rows = rows.filter(|row| !row.starts_with("tls") && !row.contains("log_lag"));
    for row in rows {
        let (name, rest) = row.split_once("` | ").unwrap();
        let kind = rest.split(' ').next().unwrap();
        assert!(text.contains(&format!("# TYPE rackferry_{name} {kind}\n")), "{name} {kind}");
    }

    drop(source);
    let away = [
        "rackferry_coordinator_hosts{state=\"away\"} 1",
        "rackferry_coordinator_problems{code=\"agent_away\"} 1",
    ];
    shows(metrics, &away).await;
}

#[tokio::test]
async fn an_end_is_counted_once() {
    let dir = tempfile::tempdir().unwrap();
    let (port, metrics) = (free_port(), free_port());
    let coordinator = start(dir.path(), port, metrics);
    let running = vm("web", RunState::Running, "");
    let mut source = Agent::connect(&coordinator, "a1", "a", vec![running]).await;
    let mut target = Agent::connect(&coordinator, "b1", "b", vec![]).await;
    create(&coordinator, request("r")).await;
    moves(&mut source, &mut target).await;
    let after = [
        "rackferry_coordinator_migrations_ended_total{outcome=\"moved\"} 1",
        "rackferry_coordinator_migrations{phase=\"switching\"} 0",
    ];
    shows(metrics, &after).await;
}
