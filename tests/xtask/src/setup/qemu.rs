//! QEMU 10.0 beside the machine's own 7.2: unpacked, not installed.

use std::process::Command;

use anyhow::{Result, ensure};
use rackferry_tests::image::{self, Qemu};

use super::apt;
use super::stamp::Stamp;
use crate::run::quiet;

const PACKAGES: [&str; 3] = ["qemu-system-x86", "qemu-system-common", "qemu-system-data"];

/// Fetches QEMU 10.0 from bookworm-backports into the cache folder.
pub fn fetch(stamp: &Stamp) -> Result<()> {
    let root = image::cache().join("qemu-10.0");
    let binary = Qemu::V10_0.binary();
    stamp.step("2", std::slice::from_ref(&binary), || {
        apt::enable_backports()?;
        for package in PACKAGES {
            let folder = image::cache().join("debs").join(package);
            let file = apt::download(&format!("{package}/bookworm-backports"), &folder)?;
            if package == "qemu-system-x86" {
                let mut libraries = apt::dependencies(&file)?;
                libraries.retain(|name| name.starts_with("lib"));
                apt::install(&libraries)?;
            }
            apt::unpack(&file, &root)?;
        }
        let version = quiet(Command::new(&binary).arg("--version"))?;
        ensure!(version.contains("version 10.0"), "bookworm-backports has another QEMU: {version}");
        Ok(())
    })
}
