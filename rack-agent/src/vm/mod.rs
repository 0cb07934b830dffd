//! The VMs of this host: what they are made of, their QEMU processes, and what outlives the agent.
//!
//! A VM is described by a [`VmSpec`]. The agent makes its memory as a memfd and starts QEMU in a session
//! of its own, so that it goes on when the agent ends; everything needed to find it again lies in the
//! state directory. [`VmManager`] is the door: it starts, prepares, adopts, lists and ends VMs.

mod adopt;
mod error;
mod machine;
mod manager;
mod process;
mod spec;
mod state_dir;

pub use adopt::{Adoption, DeadVm};
pub use error::VmError;
pub use machine::{Vm, VmRunState, VmSummary};
pub use manager::{ManagerConfig, VmManager};
pub use process::{ProcessId, QemuProcess};
pub use spec::{Attach, Disk, Launch, Needs, Nic, Qemu, SpecError, VmSpec};
pub use state_dir::{MigrationMark, Role, Side, StateDir, Status, VmDir};
