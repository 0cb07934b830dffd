//! `rackferry-agent`: the agent daemon of one host, and its operator's local orders.

mod args;
mod order;

use std::process::ExitCode;
use std::thread::available_parallelism;

use anyhow::Context;
use args::{Args, Command};
use clap::Parser;
use rackferry_agent::agent::Agent;
use rackferry_agent::config::Config;
use rackferry_agent::enrol;
use rackferry_agent::local;
use rackferry_agent::metrics;
use rackferry_agent::policy::Policy;
use rackferry_agent::server;
use rackferry_agent::task;
use rackferry_agent::vm::{ManagerConfig, VmManager};
use rackferry_migrator::memory::Preallocate;
use rackferry_tls::{Role, setting};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

/// Threads of the runtime on a small host: sessions compress and hash on them, and sockets must be served meanwhile.
const WORKERS_MIN: usize = 4;

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("RACKFERRY_LOG")
                .unwrap_or_else(|_| "info".into()),
        )
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr)
        .init();
    let workers = available_parallelism().map_or(WORKERS_MIN, |cores| cores.get().max(WORKERS_MIN));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build();
    let result = runtime.map_err(Into::into).and_then(|runtime| {
        let args = Args::parse();
        let config = Config::load(&args.config)
            .with_context(|| format!("settings in {}", args.config.display()))?;
        match args.command {
            None => runtime.block_on(serve(config, Policy::beside(&args.config)?)),
            Some(Command::Vm(command)) => runtime.block_on(order::give(&config, command)),
            Some(Command::Join { token }) => {
                runtime.block_on(enrol::join(&config, &token.parse()?))
            }
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rackferry-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(config: Config, policy: Policy) -> anyhow::Result<()> {
    let tls = setting::open(config.tls.as_ref(), Role::Agent, "`rackferry-agent join`")?;
    enrol::check_name(tls.as_ref(), &config.host)?;
    if let Some(warning) = config.qemu_uids.warning() {
        warn!("{warning}");
    }
    let (vms, adoption) = VmManager::open(ManagerConfig {
        state_dir: config.state_dir.clone(),
        memory_ceiling_bytes: config.guest_memory_mib << 20,
        qemu: config.qemu.clone(),
        preallocate: config.reserve_memory.then_some(Preallocate::Reserve),
        policy,
        qemu_uids: config.qemu_uids,
    })
    .await?;
    info!(adopted = adoption.adopted.len(), dead = adoption.dead.len(), "VMs");
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("page server on {}", config.listen))?;
    let orders = local::listen(&config.state_dir).context("socket for local orders")?;
    if let Some(addr) = config.metrics_listen {
        metrics_exporter_prometheus::PrometheusBuilder::new()
            .with_http_listener(addr)
            .install()
            .with_context(|| format!("metrics on {addr}"))?;
        metrics::describe();
    }
    if let Some(tls) = &tls {
        tokio::spawn(tls.clone().keep_current());
        tokio::spawn(enrol::keep_renewed(config.clone(), tls.clone()));
    }
    let (agent, inputs) = Agent::new(config, vms, tls)?;
    tokio::spawn(server::run(agent.clone(), listener));
    tokio::spawn(local::run(agent.clone(), orders));
    tokio::spawn(metrics::sample(agent.clone()));
    tokio::spawn(know_own_qemu(agent.clone()));
    let task = tokio::spawn(task::run(agent, inputs));
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => info!("ending; the VMs go on"),
        _ = int.recv() => info!("ending; the VMs go on"),
        result = task => result.context("the task that keeps the agent's rules ended")??,
    }
    Ok(())
}

/// The first check should not wait for the host's QEMU to be loaded from a cold disk.
async fn know_own_qemu(agent: Agent) {
    let asked = agent.programs().get(agent.storage(), &agent.config().qemu.binary).await;
    if let Err(error) = asked {
        warn!(error = format!("{error:#}"), "no VM can arrive here without a QEMU of its own");
    }
}
