//! `cargo xtask setup`: makes a Debian 12 machine able to run the lab. Every step says what it does, does
//! it once, and is skipped while its stamp in the cache folder is still true.

mod apt;
mod base;
mod guest;
mod initrd;
mod kernel;
mod lab_b;
pub mod promtool;
mod qemu;
mod stamp;

use anyhow::{Context, Result, ensure};
use clap::Args;
use rackferry_tests::image;

use stamp::Stamp;

#[derive(Args)]
pub struct Arguments {
    /// Fetch the kernel of Lab B too, and pack its initrd.
    #[arg(long)]
    lab_b: bool,
}

/// Runs the steps that are asked for.
pub fn set_up(arguments: &Arguments) -> Result<()> {
    if arguments.lab_b { run_lab_b() } else { run() }
}

/// Runs every step that is not done yet.
pub fn run() -> Result<()> {
    check_machine()?;
    let cache = image::cache();
    std::fs::create_dir_all(&cache)
        .with_context(|| format!("cannot create {}", cache.display()))?;
    apt::install(&PACKAGES)?;
    libraries()?;
    promtool::ready()?;
    qemu::fetch(&Stamp::new("qemu-10.0"))?;
    kernel::fetch(&Stamp::new("kernel"))?;
    guest::build(&Stamp::new("guest"))?;
    base::build(&Stamp::new("base"))
}

/// Installs what crates of the workspace are built with, beside a C compiler. This program itself needs none of it.
pub fn libraries() -> Result<()> {
    apt::install(&LIBRARIES).context(
        "the RDMA libraries cannot be installed: run as root on Debian 12, or install the headers of libibverbs and \
         librdmacm, libclang and pkg-config",
    )
}

/// Runs the steps of Lab B that are not done yet, after all others.
pub fn run_lab_b() -> Result<()> {
    run()?;
    lab_b::build()
}

/// What the lab runs, beside what its steps fetch into the cache folder.
const PACKAGES: [&str; 6] =
    ["build-essential", "qemu-system-x86", "iproute2", "ipxe-qemu", "seabios", "e2fsprogs"];

/// Headers of the verbs libraries, and what the bindings are generated with.
const LIBRARIES: [&str; 4] = ["libibverbs-dev", "librdmacm-dev", "libclang-dev", "pkg-config"];

fn check_machine() -> Result<()> {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    ensure!(release.contains("VERSION_CODENAME=bookworm"), "the set-up knows Debian 12 only");
    ensure!(rustix::process::geteuid().is_root(), "the set-up and the lab need root");
    Ok(())
}
