//! Lab B's outer machine: Debian's stock kernel, unpacked but not installed, and an initrd around busybox.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use rackferry_tests::{image, lab_b};

use super::apt;
use super::initrd::Archive;
use super::stamp::{Stamp, fingerprint};
use crate::run::quiet;

/// What the initrd loads before it can mount the root file system, and the port of the job's output. Everything else is
/// loaded from there.
const MODULES: [&str; 5] = ["virtio_pci", "9pnet_virtio", "9p", "overlay", "virtio_console"];
/// What `initrd.sh` calls.
const APPLETS: [&str; 7] = ["sh", "mkdir", "mount", "insmod", "cat", "sleep", "switch_root"];

/// What is run to set it up, and in it: the drivers of RDMA devices, and the programs that show and measure them.
const PACKAGES: [&str; 5] =
    ["kmod", "ibverbs-providers", "ibverbs-utils", "rdmacm-utils", "perftest"];

/// Fetches kernel and busybox, and packs the initrd.
pub fn build() -> Result<()> {
    apt::install(&PACKAGES)?;
    let unpacked = image::lab_b().join("root");
    let leaves = [image::lab_b_kernel(), image::lab_b_modules(), unpacked.join(BUSYBOX)];
    Stamp::new("lab-b-kernel").step("1", &leaves, || fetch(&unpacked))?;
    let input = format!("1 {:x}", fingerprint(lab_b::INITRD.as_bytes()));
    Stamp::new("lab-b-initrd").step(&input, &[image::lab_b_initrd()], || {
        println!("set-up: packing the initrd of Lab B");
        fs::write(image::lab_b_initrd(), pack(&unpacked)?).context("cannot write the initrd")
    })
}

const BUSYBOX: &str = "bin/busybox";

fn fetch(root: &Path) -> Result<()> {
    let kernel = apt::real_package("linux-image-amd64", "linux-image-6.1")?;
    if image::lab_b().exists() {
        fs::remove_dir_all(image::lab_b())?;
    }
    for package in [kernel.as_str(), "busybox-static"] {
        let folder = image::cache().join("debs").join(package);
        apt::unpack(&apt::download(package, &folder)?, root)?;
    }
    let version = kernel.trim_start_matches("linux-image-");
    // The package leaves that to its installation.
    quiet(Command::new("depmod").arg("--basedir").arg(root).arg(version))?;
    symlink(root.join("lib/modules").join(version), image::lab_b_modules())?;
    let image = root.join("boot").join(format!("vmlinuz-{version}"));
    fs::copy(&image, image::lab_b_kernel())
        .map(drop)
        .with_context(|| format!("cannot copy {}", image.display()))
}

fn pack(root: &Path) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "modules"] {
        archive.folder(folder);
    }
    archive.console("dev/console");
    archive.program("init", lab_b::INITRD.as_bytes());
    archive.program("bin/busybox", &fs::read(root.join(BUSYBOX))?);
    for applet in APPLETS {
        archive.link(&format!("bin/{applet}"), "busybox");
    }
    for (number, module) in modules(root)?.iter().enumerate() {
        let name = module.file_name().context("a module without a name")?.to_string_lossy();
        archive.program(&format!("modules/{number:02}-{name}"), &fs::read(module)?);
    }
    Ok(archive.finish())
}

/// The files of [`MODULES`] and of what they depend on, each once, in an order to load them in.
fn modules(root: &Path) -> Result<Vec<PathBuf>> {
    let tree = image::lab_b_modules().canonicalize()?;
    let version = tree.file_name().context("the modules have no version")?;
    let mut files: Vec<PathBuf> = Vec::new();
    for module in MODULES {
        let mut command = Command::new("modprobe");
        command.arg("--dirname").arg(root).arg("--set-version").arg(version);
        let said = quiet(command.args(["--show-depends", module]))?;
        for file in said.lines().filter_map(|line| line.strip_prefix("insmod ")) {
            let file = PathBuf::from(file.trim());
            if !files.contains(&file) {
                files.push(file);
            }
        }
    }
    Ok(files)
}
