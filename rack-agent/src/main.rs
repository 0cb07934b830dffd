//! `rackferry-agent`: the agent daemon of one host, and its operator's local orders.

use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::available_parallelism;

use anyhow::Context;
use clap::{Parser, Subcommand};
use rackferry_agent::agent::Agent;
use rackferry_agent::config::Config;
use rackferry_agent::enrol;
use rackferry_agent::local::{self, Answer, Order};
use rackferry_agent::metrics;
use rackferry_agent::server;
use rackferry_agent::task;
use rackferry_agent::vm::{ManagerConfig, VmManager};
use rackferry_migrator::memory::Preallocate;
use rackferry_tls::{Role, setting};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

/// Threads of the runtime on a small host: sessions compress and hash on them, and sockets must be served meanwhile.
const WORKERS_MIN: usize = 4;

#[derive(Debug, Parser)]
#[command(version, about = "The Rackferry agent of one host")]
struct Args {
    /// The settings file of the agent.
    #[arg(long, default_value = "/etc/rackferry/agent.toml")]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Orders to the agent that runs on this host.
    #[command(subcommand)]
    Vm(VmCommand),
    /// Get the certificate of this host for a token of `rackferry token create`.
    Join {
        /// The token; better in the environment, where other users do not see it.
        #[arg(long, env = "RACKFERRY_TOKEN", hide_env_values = true)]
        token: String,
    },
}

#[derive(Debug, Subcommand)]
enum VmCommand {
    /// Start the VM of a spec file, or attach to it.
    Start {
        /// The spec file of the VM.
        spec: PathBuf,
    },
    /// List the VMs of this host.
    List,
    /// End a VM for good.
    Destroy {
        /// The name of the VM.
        name: String,
    },
}

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
            None => runtime.block_on(serve(config)),
            Some(Command::Vm(command)) => runtime.block_on(order(&config, command)),
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

async fn serve(config: Config) -> anyhow::Result<()> {
    let tls = setting::open(config.tls.as_ref(), Role::Agent, "`rackferry-agent join`")?;
    enrol::check_name(tls.as_ref(), &config.host)?;
    let (vms, adoption) = VmManager::open(ManagerConfig {
        state_dir: config.state_dir.clone(),
        memory_ceiling_bytes: config.guest_memory_mib << 20,
        qemu: config.qemu.clone(),
        preallocate: config.reserve_memory.then_some(Preallocate::Reserve),
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
    let (agent, inputs) = Agent::new(config, vms, tls);
    tokio::spawn(server::run(agent.clone(), listener));
    tokio::spawn(local::run(agent.clone(), orders));
    tokio::spawn(metrics::sample(agent.clone()));
    let task = tokio::spawn(task::run(agent, inputs));
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => info!("ending; the VMs go on"),
        _ = int.recv() => info!("ending; the VMs go on"),
        result = task => result.context("the task that keeps the agent's rules ended")?,
    }
    Ok(())
}

async fn order(config: &Config, command: VmCommand) -> anyhow::Result<()> {
    let order = match command {
        VmCommand::Start { spec } => Order::Start {
            spec: std::fs::read_to_string(&spec)
                .with_context(|| format!("spec {}", spec.display()))?,
        },
        VmCommand::List => Order::List,
        VmCommand::Destroy { name } => Order::Destroy { name },
    };
    match local::ask(&config.state_dir, &order).await? {
        Answer::Done => {}
        Answer::Vms(vms) => vms.iter().for_each(|(name, state)| println!("{name}\t{state}")),
        Answer::Error(why) => anyhow::bail!(why),
    }
    Ok(())
}
