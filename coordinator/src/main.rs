//! The coordinator daemon: plans, owns, commits.
//!
//! Tasks, each with its bound and its end:
//!
//! | task | owns | input bound | ends when |
//! |---|---|---|---|
//! | [`driver`] (a thread: it waits for the disk) | the fleet, the log, all links | `INPUTS` | told to stop, or the log fails |
//! | ticker | nothing | - | the driver is gone |
//! | one reader per agent ([`service`]) | the agent's stream | gRPC flow control | the stream or the link ends |
//! | one per watching client | its last snapshot | `SNAPSHOTS` | the evacuation or the client ends |
mod config;
mod convert;
mod driver;
mod key;
mod service;
mod storage;

use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use config::Config;
use driver::Driver;
use storage::Storage;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Plans evacuations, owns the ownership of VMs and tells agents what to do.
#[derive(Debug, Parser)]
#[command(name = "rackferry-coordinator", version)]
struct Args {
    /// Settings (TOML); RACKFERRY_SECTION__KEY in the environment overrides them.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let filter = EnvFilter::try_from_env("RACKFERRY_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let config = Config::load(args.config.as_deref()).context("reading the settings")?;
    let runtime = tokio::runtime::Runtime::new().context("starting the runtime")?;
    runtime.block_on(run(config))
}

/// Runs until a signal or a failure of the log. Not cancel safe: it owns the process.
async fn run(config: Config) -> anyhow::Result<()> {
    let dir = &config.storage.dir;
    std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    let key = key::load_or_create(&dir.join("domain.key")).context("the dedup domain's key")?;
    let (storage, records) =
        Storage::open(&dir.join("coordinator.redb")).context("opening the log")?;
    let listener = TcpListener::bind(config.server.listen)
        .await
        .with_context(|| format!("listening on {}", config.server.listen))?;
    tracing::info!(listen = %listener.local_addr()?, records = records.len(), "coordinator starts");

    let shutdown = CancellationToken::new();
    let (handle, driver) = Driver::start(config.limits.into(), storage, records, key, &shutdown)?;
    tokio::spawn(stop_on_signal(shutdown.clone())?);
    service::serve(handle, TcpListenerStream::new(listener), shutdown.clone())
        .await
        .context("serving gRPC")?;
    shutdown.cancel();
    driver.join().await?;
    tracing::info!("coordinator stopped");
    Ok(())
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
