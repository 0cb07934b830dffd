//! `rackferry-agent vm ...`: an operator's order to the agent that runs on this host.

use std::io::{BufRead, IsTerminal, Write};

use anyhow::{Context, Result, bail, ensure};
use rackferry_agent::config::Config;
use rackferry_agent::local::{self, Answer, Order};

use crate::args::VmCommand;

/// Gives an order to the running agent, and prints its answer.
///
/// # Errors
/// The order is not confirmed, or the agent does not carry it out.
pub async fn give(config: &Config, command: VmCommand) -> Result<()> {
    let order = match command {
        VmCommand::Start { spec } => Order::Start {
            spec: std::fs::read_to_string(&spec)
                .with_context(|| format!("spec {}", spec.display()))?,
        },
        VmCommand::List => Order::List,
        VmCommand::Resume { name } => Order::Resume { name },
        VmCommand::Destroy { name, yes, force } => {
            if !yes {
                confirm(&name)?;
            }
            Order::Destroy { name, force }
        }
    };
    match local::ask(&config.state_dir, &order).await? {
        Answer::Done => {}
        Answer::Vms(vms) => vms.iter().for_each(|(name, state)| println!("{name}\t{state}")),
        Answer::Error(why) => bail!(why),
    }
    Ok(())
}

/// Asks at the terminal whether the VM shall end.
fn confirm(name: &str) -> Result<()> {
    let (mut shown, stdin) = (std::io::stderr(), std::io::stdin());
    ensure!(
        stdin.is_terminal() && shown.is_terminal(),
        "vm destroy asks before it ends VM {name}, and there is no terminal: say --yes"
    );
    write!(shown, "End VM {name} for good? What it has in memory is lost. [y/N] ")?;
    shown.flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    ensure!(matches!(answer.trim(), "y" | "Y" | "yes"), "VM {name} was left as it is");
    Ok(())
}
