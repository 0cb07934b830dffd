//! The VMs of this host: what they are made of, their QEMU processes, and what outlives the agent.
//!
//! A VM is described by a [`VmSpec`]. The agent makes its memory as a memfd, opens its files, and starts QEMU with them, as a
//! user and in a session of its own, so that it goes on when the agent ends; everything needed to find it again lies in the
//! state directory. [`VmManager`] is the door: it starts, prepares, adopts, lists and ends VMs. What may be done to one, and
//! when, are the rules of `rackferry_agent_core`.

mod adopt;
mod descriptors;
mod error;
mod installation;
mod logs;
mod machine;
mod manager;
mod process;
mod spec;
mod state_dir;
mod user;

pub use adopt::{Adoption, DeadVm};
pub use descriptors::{Descriptors, OpenDisk};
pub use error::VmError;
pub use machine::{Vm, VmSummary};
pub use manager::{ManagerConfig, VmManager};
pub use process::{ProcessId, QemuProcess, Start};
pub use rackferry_agent_core::{
    Act, Mark, MigrationId, Role, Side, Standing, VmState, What, Writing,
};
pub use spec::{Attach, Claims, Disk, Launch, Needs, Nic, Qemu, SpecError, VmSpec};
pub(crate) use state_dir::write_durably;
pub use state_dir::{StateDir, Status, VmDir};
pub use user::{QemuUids, UidRange, User};
pub(crate) use user::{barred, kvm_barrier};
