//! Debian's cloud kernel for the guests: unpacked, not installed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rackferry_tests::image;

use super::apt;
use super::stamp::Stamp;

/// What the guest loads, in this order; ext4 is built in.
const MODULES: [&str; 6] = [
    "virtio/virtio_ring",
    "virtio/virtio",
    "virtio/virtio_pci_legacy_dev",
    "virtio/virtio_pci_modern_dev",
    "virtio/virtio_pci",
    "block/virtio_blk",
];

/// Fetches the kernel package and puts kernel and modules where the images are built.
pub fn fetch(stamp: &Stamp) -> Result<()> {
    stamp.step("2", &[image::kernel(), modules()], || {
        let package = apt::real_package("linux-image-cloud-amd64", "linux-image-6.1")?;
        let folder = image::cache().join("debs").join("kernel");
        let root = image::cache().join("kernel");
        for old in [&root, &modules()] {
            if old.exists() {
                fs::remove_dir_all(old)?;
            }
        }
        apt::unpack(&apt::download(&package, &folder)?, &root)?;
        let version = package.trim_start_matches("linux-image-");
        place(&root, version)
    })
}

fn place(root: &Path, version: &str) -> Result<()> {
    fs::create_dir_all(image::folder())?;
    copy(&root.join("boot").join(format!("vmlinuz-{version}")), &image::kernel())?;
    fs::create_dir_all(modules())?;
    let drivers = root.join("lib/modules").join(version).join("kernel/drivers");
    for (number, name) in MODULES.iter().enumerate() {
        let file = name.rsplit('/').next().unwrap_or(name);
        copy(&drivers.join(format!("{name}.ko")), &modules().join(format!("{number}-{file}.ko")))?;
    }
    Ok(())
}

/// The modules of the initrd; they are loaded in the order of their names.
pub fn modules() -> PathBuf {
    image::folder().join("modules")
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map(drop).with_context(|| format!("cannot copy {}", from.display()))
}
