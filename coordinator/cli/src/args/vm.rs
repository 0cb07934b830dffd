//! vm, as it is written.

use clap::Subcommand;

/// VMs.
#[derive(Debug, Subcommand)]
pub enum Vm {
    /// List VMs and their owners.
    List {
        /// Rack to list; default: all racks.
        #[arg(long, default_value = "")]
        rack: String,
        /// Host to list; default: all hosts.
        #[arg(long, default_value = "")]
        host: String,
    },
    /// Show one VM: every copy of it, its migration, its registered spec and its problems.
    Show {
        /// The VM.
        vm: String,
    },
    /// Forget a VM whose QEMU is gone; its host removes what is left of it.
    Forget {
        /// The VM.
        vm: String,
    },
    /// Show the registered spec of a VM, and what its agent reports if that differs.
    Spec {
        /// The VM.
        vm: String,
    },
    /// Register the spec that the VM's agent reports in place of the registered one.
    AcceptSpec {
        /// The VM.
        vm: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}
