//! The guests' init and the initrd around it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rackferry_tests::image;

use super::initrd::Archive;
use super::kernel;
use super::stamp::{Stamp, fingerprint};
use crate::run::{cargo, root, run, target};

const HOST: &str = "x86_64-unknown-linux-gnu";

/// Builds the init statically and packs the initrd.
pub fn build(stamp: &Stamp) -> Result<()> {
    let sources = root().join("tests/guest");
    let input = format!("2 {:x}", fingerprint_of(&sources)?);
    stamp.step(&input, &[image::initrd()], || {
        println!("set-up: building the guests' init");
        let folder = target().join("guest");
        run(cargo(["build", "--quiet", "--package", "rackferry-guest", "--profile", "guest"])
            .args(["--target", HOST, "--target-dir"])
            .arg(&folder)
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env("RUSTFLAGS", "-C target-feature=+crt-static"))?;
        let init = fs::read(folder.join(HOST).join("guest/rackferry-guest"))?;
        fs::write(image::initrd(), pack(&init)?).context("cannot write the initrd")
    })
}

fn pack(init: &[u8]) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    archive.folder("dev");
    archive.console("dev/console");
    archive.program("init", init);
    archive.folder("modules");
    for module in files(&kernel::modules())? {
        let name = module.file_name().context("a module without a name")?.to_string_lossy();
        archive.program(&format!("modules/{name}"), &fs::read(&module)?);
    }
    Ok(archive.finish())
}

fn fingerprint_of(sources: &Path) -> Result<u64> {
    let mut bytes = Vec::new();
    for file in files(sources)?.into_iter().chain(files(&sources.join("src"))?) {
        bytes.extend(fs::read(file)?);
    }
    Ok(fingerprint(&bytes))
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.retain(|path| path.is_file());
    paths.sort();
    Ok(paths)
}
