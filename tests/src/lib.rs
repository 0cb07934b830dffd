//! Lab A: two racks in network namespaces, real QEMU guests, and verbs for what tests do with them.
//!
//! ```no_run
//! use rackferry_tests::{Lab, Topology, lab::rate::Rate, lab::vm::VmDef};
//!
//! # fn main() -> anyhow::Result<()> {
//! let lab = Lab::up(&Topology::of(2))?;
//! lab.core().shape(Rate::gbit(1))?;
//! let vm = lab.start(lab.host("a", 1), &VmDef::named("web-1"))?;
//! lab.heartbeats().wait_ready(&["web-1"], std::time::Duration::from_secs(60))?;
//! # drop(vm);
//! # Ok(())
//! # }
//! ```
//!
//! One lab lives on a machine at a time (per name prefix, `RACKFERRY_LAB_PREFIX`, `rf` by default): a second
//! one waits. Everything a lab started ends with it, also after a panic or a signal; what a killed run left
//! behind is removed when the next lab comes up.
//!
//! * [`lab`]: hosts, links, VMs, and daemons on them.
//! * [`lab_b`]: an emulated machine that has KVM.
//! * [`bench`](mod@bench): what is measured, beside stock QEMU.
//! * [`trials`]: what must hold while things break, or guests write.

pub mod bench;
pub mod image;
pub mod lab;
pub mod lab_b;
pub mod leak;
pub mod procs;
pub mod trials;

pub use lab::Lab;
pub use lab::topology::{Host, Topology};

/// Whether this machine can run the lab; a test that cannot says why and returns.
pub fn runs_here(test: &str) -> bool {
    let missing = if !rustix::process::geteuid().is_root() {
        Some("it needs root")
    } else if !image::initrd().exists() || !image::disk(image::DISKS - 1).exists() {
        Some("run `cargo xtask setup` first")
    } else {
        None
    };
    if let Some(why) = missing {
        eprintln!("{test}: SKIPPED: {why}");
    }
    missing.is_none()
}
