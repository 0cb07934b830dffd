use std::io;
use std::path::PathBuf;

use rackferry_agent_core::{MigrationId, Refusal, VmState};
use rackferry_migrator::memory::MemoryError;
use rackferry_migrator::qmp::QmpError;

use crate::policy::{Breach, Unseen};
use crate::storage::StorageError;

/// What can go wrong with a VM of this host.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// The host has a VM of this name.
    #[error("VM {name} exists on this host")]
    Exists {
        /// Name of the VM.
        name: String,
    },
    /// The host has no VM of this name.
    #[error("no VM {name} on this host")]
    Unknown {
        /// Name of the VM.
        name: String,
    },
    /// An earlier agent has left the VM, and its QEMU does not answer.
    #[error("QEMU of VM {name} does not answer since the agent was started; it may run")]
    Unreachable {
        /// Name of the VM.
        name: String,
    },
    /// Only what is left of a dead VM is forgotten.
    #[error("VM {name} is not dead, or takes part in a migration")]
    NotDead {
        /// Name of the VM.
        name: String,
    },
    /// Only a paused VM is resumed.
    #[error("VM {name} is {state}, not paused")]
    NotPaused {
        /// Name of the VM.
        name: String,
        /// What it does.
        state: VmState,
    },
    /// The state directory was made on another machine.
    #[error(
        "{} was made on another machine: is this host a clone? If it is a host of its own, give it its own name and \
         certificate, and an empty state directory; if only its hardware was replaced, remove that file",
        path.display()
    )]
    OtherMachine {
        /// The file that says so.
        path: PathBuf,
    },
    /// The host's policy does not allow what the VM's spec has.
    #[error("VM {name}: {breach}: {}", breach.fix())]
    Policy {
        /// Name of the VM.
        name: String,
        /// What the policy does not allow.
        breach: Breach,
    },
    /// A path of the VM's spec cannot be looked at.
    #[error("VM {name}: {unseen}")]
    Unseen {
        /// Name of the VM.
        name: String,
        /// The path.
        unseen: Unseen,
    },
    /// The VM does not fit into the memory for guests.
    #[error("VM {name} needs {needed} bytes of memory, {free} are free for guests")]
    NoMemory {
        /// Name of the VM.
        name: String,
        /// Bytes that the VM needs.
        needed: u64,
        /// Bytes left under the ceiling.
        free: u64,
    },
    /// An operator would end the VM in the middle of a migration.
    #[error(
        "VM {name} takes part in {migration}: cancel that first (rackferry cancel {migration}); vm destroy --force ends \
         the VM all the same"
    )]
    InMigration {
        /// Name of the VM.
        name: String,
        /// The migration.
        migration: MigrationId,
    },
    /// The agent's rules do not allow what was asked of the VM.
    #[error(transparent)]
    Refused(Refusal),
    /// QEMU ended while it was being started.
    #[error("QEMU of VM {name} ended at once: {log}{hint}")]
    EndedAtOnce {
        /// Name of the VM.
        name: String,
        /// The end of QEMU's log.
        log: String,
        /// What to do, if its user may be why.
        hint: String,
    },
    /// A file, device or socket of the VM's spec cannot be opened for QEMU.
    #[error("VM {name}: cannot open {}", path.display())]
    Open {
        /// Name of the VM.
        name: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: StorageError,
    },
    /// A tap device cannot be opened for QEMU.
    #[error(
        "VM {name}: cannot open tap device {tap}: make it as on other hosts, for one VM at a time"
    )]
    Tap {
        /// Name of the VM.
        name: String,
        /// Name of the device.
        tap: String,
        /// Why.
        source: io::Error,
    },
    /// Each uid for QEMUs belongs to another VM.
    #[error("no uid is free for the QEMU of VM {name}: widen qemu_uids in the agent's settings")]
    NoUid {
        /// Name of the VM.
        name: String,
    },
    /// The program cannot be run.
    #[error("cannot run {}", program.display())]
    Spawn {
        /// Path of the program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A process did not end although it was killed (stuck in the kernel).
    #[error("process {pid} does not end")]
    WillNotEnd {
        /// The process.
        pid: u32,
    },
    /// An attached VM has no process that could be killed.
    #[error(
        "VM {name} was started outside of Rackferry and does not answer QMP: end it where it was started"
    )]
    NotOurs {
        /// Name of the VM.
        name: String,
    },
    /// The VM has less or more memory than its spec says.
    #[error("VM {name} has {actual} bytes of memory, its spec says {spec}")]
    MemoryDiffers {
        /// Name of the VM.
        name: String,
        /// Bytes QEMU tells.
        actual: u64,
        /// Bytes of the spec.
        spec: u64,
    },
    /// A spec for a running VM lacks `[attach]`, or one to start has it where it cannot be used.
    #[error("spec of VM {name} has no [attach] section")]
    NoAttach {
        /// Name of the VM.
        name: String,
    },
    /// Another agent uses the state directory.
    #[error("{} is in use by another agent", path.display())]
    InUse {
        /// The state directory.
        path: PathBuf,
    },
    /// Socket paths below the state directory get too long for the kernel.
    #[error("{} is longer than the 107 bytes of a socket path: shorten state dir or name", path.display())]
    PathTooLong {
        /// The socket.
        path: PathBuf,
    },
    /// A file of the state directory cannot be read or written.
    #[error("cannot use {}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A process cannot be watched or killed.
    #[error("cannot control process {pid}")]
    Process {
        /// The process.
        pid: u32,
        /// Why.
        source: io::Error,
    },
    /// Trouble with its monitor.
    #[error("VM {name}")]
    Qmp {
        /// Name of the VM.
        name: String,
        /// Why.
        source: QmpError,
    },
    /// Trouble with its memory.
    #[error("VM {name}")]
    Memory {
        /// Name of the VM.
        name: String,
        /// Why.
        source: MemoryError,
    },
    /// The task that worked on the VM was ended with the agent.
    #[error("the agent is ending")]
    Ending,
}

/// Gives an error of a lower layer the VM's name.
pub(super) trait Named<T> {
    fn of_vm(self, name: &str) -> Result<T, VmError>;
}

impl<T> Named<T> for Result<T, QmpError> {
    fn of_vm(self, name: &str) -> Result<T, VmError> {
        self.map_err(|source| VmError::Qmp { name: name.to_owned(), source })
    }
}

impl<T> Named<T> for Result<T, MemoryError> {
    fn of_vm(self, name: &str) -> Result<T, VmError> {
        self.map_err(|source| VmError::Memory { name: name.to_owned(), source })
    }
}
