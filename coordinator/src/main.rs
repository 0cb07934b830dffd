//! The coordinator daemon: plans, owns, commits.
//!
//! Tasks, each with its bound and its end:
//!
//! | task | owns | input bound | ends when |
//! |---|---|---|---|
//! | [`driver`] | the fleet and all links, while it leads ([`leadership`]) | `INPUTS` | told to stop, or the log fails |
//! | openraft's own ([`raft`]) | the log, the state, replication | its own | the driver has ended |
//! | [`metrics`] | the links it has shown | - | the program ends |
//! | ticker | nothing | - | the driver is gone |
//! | one reader per agent ([`service`]) | the agent's stream | gRPC flow control | the stream or the link ends |
//! | one per watching client | its last snapshot | `SNAPSHOTS` | the evacuation or the client ends |
mod config;
mod convert;
mod doctor;
mod driver;
mod expelled;
mod gate;
mod key;
mod leadership;
mod metrics;
mod offline;
mod preflight;
mod questions;
mod raft;
mod reads;
mod refusals;
mod service;
mod term;

use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use config::Config;
use driver::{Driver, Setup};
use rackferry_tls::{Admission, Role, Tls, setting};
use raft::Node;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Plans evacuations, owns the ownership of VMs and tells agents what to do.
#[derive(Debug, Parser)]
#[command(name = "rackferry-coordinator", version)]
struct Args {
    /// Settings (TOML); RACKFERRY_SECTION__KEY in the environment overrides them.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<offline::Command>,
}

/// What is shown. openraft tells all it does at `info`, and at every try that a peer is away; what matters of
/// it is told here too. An operator sees the rest by naming it.
fn log_filter(wanted: Option<String>) -> String {
    let wanted = wanted.unwrap_or_else(|| "info".to_owned());
    if wanted.contains("openraft") { wanted } else { format!("{wanted},openraft=off") }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let filter = EnvFilter::try_new(log_filter(std::env::var("RACKFERRY_LOG").ok()))
        .unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let config = Config::load(args.config.as_deref()).context("reading the settings")?;
    if let Some(command) = args.command {
        return offline::run(command, &config);
    }
    let runtime = tokio::runtime::Runtime::new().context("starting the runtime")?;
    runtime.block_on(run(config))
}

/// Runs until a signal or a failure of the log. Not cancel safe: it owns the process.
async fn run(config: Config) -> anyhow::Result<()> {
    let dir = &config.storage.dir;
    std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    let members = config.members().context("the settings")?;
    let tls = setting::open(config.tls.as_ref(), Role::Coordinator, "`rackferry init`")?;
    look_after(tls.as_ref());
    let listener = TcpListener::bind(config.server.listen)
        .await
        .with_context(|| format!("listening on {}", config.server.listen))?;
    let listen = listener.local_addr()?;
    let node = Node::start(dir, &members, config.storage.snapshot_entries, tls.clone())
        .await
        .context("starting the log")?;
    tracing::info!(%listen, id = members.id, addr = members.addr, "coordinator starts");

    if let Some(addr) = config.server.metrics_listen {
        metrics::serve(addr).with_context(|| format!("metrics on {addr}"))?;
    }
    let shutdown = CancellationToken::new();
    let doors = service::Doors {
        id: node.id,
        identity: node.identity.clone(),
        raft: node.raft.clone(),
        network: node.network.clone(),
        applied: node.applied.clone(),
        tls: tls.clone(),
        admission: Admission::new(config.admission),
        shutdown: shutdown.clone(),
    };
    let (raft, admission) = (node.raft.clone(), doors.admission.clone());
    if let Some(tls) = &doors.tls {
        let keep = expelled::keep(tls.clone(), node.applied.clone(), raft.metrics());
        tokio::spawn(keep);
    }
    let key_path = dir.join("domain.key");
    let (handle, driver) =
        Driver::start(Setup { limits: config.limits.into(), node, key_path }, &shutdown);
    tokio::spawn(stop_on_signal(shutdown.clone())?);
    tokio::spawn(metrics::sample(handle.clone(), raft.clone(), tls, admission));
    service::serve(handle, doors, listener).await.context("serving gRPC")?;
    shutdown.cancel();
    driver.await.context("the driver panicked")??;
    raft.shutdown().await.context("the log panicked")?;
    tracing::info!("coordinator stopped");
    Ok(())
}

/// Keeps the certificates current, or says that there are none.
fn look_after(tls: Option<&Tls>) {
    match tls {
        Some(tls) => {
            tokio::spawn(tls.clone().keep_current());
        }
        None => tracing::warn!("TLS is off: every caller that reaches the port may do everything"),
    }
}

/// Cancels `shutdown` on SIGTERM or SIGINT.
fn stop_on_signal(shutdown: CancellationToken) -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("watching SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watching SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("asked to stop");
        shutdown.cancel();
    })
}
