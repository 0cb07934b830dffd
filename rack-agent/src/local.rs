//! The operator's local orders, over a unix socket in the state directory: one JSON object a line in, one out.
//!
//! `rackferry-agent vm start|list|resume|destroy` is its client. Only root can reach the socket.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tracing::{info, warn};

use crate::agent::Agent;
use crate::vm::{VmError, VmSpec, VmSummary};

/// Longest order: a VM spec with room to spare.
const MAX_ORDER: u64 = 256 << 10;

/// An operator's order to the agent of this host.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Start (or attach to) the VM of a spec.
    Start {
        /// Text of the spec file.
        spec: String,
    },
    /// List the VMs of this host.
    List,
    /// Let a paused VM run on.
    Resume {
        /// The name of the VM.
        name: String,
    },
    /// End a VM for good.
    Destroy {
        /// The name of the VM.
        name: String,
        /// Even if it takes part in a migration. A command of an earlier version does not say.
        #[serde(default)]
        force: bool,
    },
}

/// The agent's answer to an order.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// The agent has carried the order out.
    Done,
    /// Name and state of each VM.
    Vms(Vec<(String, String)>),
    /// The reason for which the agent has not carried the order out.
    Error(String),
}

/// The path of the socket in a state directory.
pub fn socket(state_dir: &Path) -> PathBuf {
    state_dir.join("agent.sock")
}

/// Listens for an operator's orders.
///
/// # Errors
/// The socket cannot be made.
pub fn listen(state_dir: &Path) -> std::io::Result<UnixListener> {
    let path = socket(state_dir);
    // Left by an agent that was killed; the state directory's lock says that none runs.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves until the listener fails.
pub async fn run(agent: Agent, listener: UnixListener) {
    while let Ok((stream, _)) = listener.accept().await {
        let agent = agent.clone();
        tokio::spawn(async move {
            if let Err(error) = serve(agent, stream).await {
                warn!(%error, "local order");
            }
        });
    }
}

async fn serve(agent: Agent, stream: UnixStream) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read.take(MAX_ORDER)).read_line(&mut line).await?;
    let answer = match serde_json::from_str::<Order>(&line) {
        Ok(order) => obey(&agent, order).await.unwrap_or_else(Answer::Error),
        Err(error) => Answer::Error(format!("not an order: {error}")),
    };
    let mut text = serde_json::to_string(&answer).map_err(std::io::Error::other)?;
    text.push('\n');
    write.write_all(text.as_bytes()).await
}

async fn obey(agent: &Agent, order: Order) -> Result<Answer, String> {
    match order {
        Order::Start { spec } => {
            let spec = VmSpec::parse(&spec).map_err(|e| e.to_string())?;
            let name = spec.name().to_owned();
            agent
                .vms()
                .start(spec, 0)
                .await
                .map_err(|e| format!("{:#}", anyhow::Error::from(e)))?;
            info!(vm = name, "started");
            Ok(Answer::Done)
        }
        Order::List => {
            let state = |vm: &VmSummary| match vm.standing.destroyed {
                true => "destroyed".to_owned(),
                false => vm.run_state.to_string(),
            };
            let vms = agent.vms().list().await.into_iter();
            Ok(Answer::Vms(vms.map(|vm| (vm.name.clone(), state(&vm))).collect()))
        }
        Order::Resume { name } => {
            agent.vms().resume(&name).await.map_err(|e| format!("{:#}", anyhow::Error::from(e)))?;
            Ok(Answer::Done)
        }
        Order::Destroy { name, force } => {
            let ended = agent.vms().destroy(&name, force).await;
            if !matches!(ended, Err(VmError::InMigration { .. })) {
                agent.memory_gone(&name);
            }
            ended.map_err(|e| e.to_string())?;
            info!(vm = name, force, "destroyed by its operator");
            Ok(Answer::Done)
        }
    }
}

/// Gives an order to the agent of a state directory.
///
/// # Errors
/// The agent cannot be reached, or its answer is not one.
pub async fn ask(state_dir: &Path, order: &Order) -> anyhow::Result<Answer> {
    use anyhow::Context;
    let path = socket(state_dir);
    let reach = || format!("no agent answers at {}", path.display());
    let stream = UnixStream::connect(&path).await.with_context(reach)?;
    let (read, mut write) = stream.into_split();
    let mut text = serde_json::to_string(order)?;
    text.push('\n');
    write.write_all(text.as_bytes()).await?;
    let mut line = String::new();
    BufReader::new(read).read_line(&mut line).await?;
    serde_json::from_str(&line).with_context(reach)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_to_destroy_has_no_force_unless_it_says_so() {
        let force = |text: &str| match serde_json::from_str(text).unwrap() {
            Order::Destroy { name, force } if name == "web" => force,
            other => panic!("{other:?}"),
        };
        assert!(!force(r#"{"destroy":{"name":"web"}}"#));
        assert!(force(r#"{"destroy":{"name":"web","force":true}}"#));
    }
}
