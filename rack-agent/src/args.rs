//! The command line of the agent as it is written.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(version, about = "The Rackferry agent of one host")]
pub struct Args {
    /// The settings file of the agent.
    #[arg(long, global = true, default_value = "/etc/rackferry/agent.toml")]
    pub config: PathBuf,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
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
pub enum VmCommand {
    /// Start the VM of a spec file, or attach to it.
    Start {
        /// The spec file of the VM.
        spec: PathBuf,
    },
    /// List the VMs of this host.
    List,
    /// Let a VM run on that is paused: by its user, or by QEMU after an I/O error.
    Resume {
        /// The name of the VM.
        name: String,
    },
    /// End a VM for good.
    Destroy {
        /// The name of the VM.
        name: String,
        /// End it without asking; needed without a terminal.
        #[arg(long, short)]
        yes: bool,
        /// End it even if it takes part in a migration.
        #[arg(long)]
        force: bool,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_holds() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_settings_are_named_before_and_behind_a_subcommand() {
        for line in [
            "rackferry-agent --config a.toml vm list",
            "rackferry-agent vm --config a.toml list",
            "rackferry-agent vm list --config a.toml",
            "rackferry-agent vm destroy web --config a.toml --yes",
            "rackferry-agent join --token t --config a.toml",
            "rackferry-agent --config a.toml",
        ] {
            let args = Args::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(args.config.to_str(), Some("a.toml"), "{line}");
        }
        let args = Args::try_parse_from(["rackferry-agent", "vm", "list"]).unwrap();
        assert_eq!(args.config.to_str(), Some("/etc/rackferry/agent.toml"));
    }
}
