//! Debian packages: installed, or only fetched and unpacked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run::{quiet, run};

const SOURCES: &str = "/etc/apt/sources.list.d";
const BACKPORTS: &str = "deb http://deb.debian.org/debian bookworm-backports main\n";

/// Installs the packages that are missing.
pub fn install<S: AsRef<str>>(packages: &[S]) -> Result<()> {
    let missing: Vec<&str> =
        packages.iter().map(AsRef::as_ref).filter(|name| !is_installed(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("set-up: installing {}", missing.join(" "));
    update()?;
    let options = ["install", "--yes", "--quiet=2", "--no-install-recommends"];
    run(Command::new("apt-get")
        .args(options)
        .args(missing)
        .env("DEBIAN_FRONTEND", "noninteractive"))
}

/// Downloads a package (`name`, `name/release` or `name=version`) into an empty folder; the file's path.
pub fn download(package: &str, folder: &Path) -> Result<PathBuf> {
    println!("set-up: downloading {package}");
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    let sandbox_off = ["-o", "APT::Sandbox::User=root"];
    quiet(
        Command::new("apt-get").args(sandbox_off).args(["download", package]).current_dir(folder),
    )?;
    let file = fs::read_dir(folder)?.next().context("apt-get downloaded nothing")??;
    Ok(file.path())
}

/// Unpacks a package file below `root` without installing it.
pub fn unpack(file: &Path, root: &Path) -> Result<()> {
    fs::create_dir_all(root)?;
    run(Command::new("dpkg-deb").arg("--extract").args([file, root]))
}

/// The names of the packages a package file depends on, first alternatives, without versions.
pub fn dependencies(file: &Path) -> Result<Vec<String>> {
    let field = quiet(Command::new("dpkg-deb").arg("--field").arg(file).arg("Depends"))?;
    let name = |relation: &str| relation.split_whitespace().next().map(String::from);
    Ok(field.split(',').filter_map(name).collect())
}

/// Makes bookworm-backports known to apt, and its lists fresh.
pub fn enable_backports() -> Result<()> {
    if !knows_backports()? {
        println!("set-up: adding bookworm-backports to apt's sources");
        fs::write(format!("{SOURCES}/rackferry-backports.list"), BACKPORTS)?;
    }
    update()
}

/// Makes apt's lists fresh.
pub fn update() -> Result<()> {
    quiet(Command::new("apt-get").args(["update", "--quiet=2"])).map(drop)
}

fn knows_backports() -> Result<bool> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    for entry in fs::read_dir(SOURCES)? {
        files.push(entry?.path());
    }
    let in_use = |path: &PathBuf| path.extension().is_some_and(|e| e == "list" || e == "sources");
    let names_it = |path: &PathBuf| {
        fs::read_to_string(path).is_ok_and(|text| {
            text.lines().any(|line| !line.starts_with('#') && line.contains("bookworm-backports"))
        })
    };
    Ok(files.iter().any(|path| in_use(path) && names_it(path)))
}

fn is_installed(package: &str) -> bool {
    let status = ["--show", "--showformat=${db:Status-Status}", package];
    quiet(Command::new("dpkg-query").args(status)).is_ok_and(|status| status == "installed")
}

/// The first dependency of a package that begins with `prefix`: what a meta package stands for today.
pub fn real_package(meta: &str, prefix: &str) -> Result<String> {
    let depends = quiet(Command::new("apt-cache").args(["depends", "--important", meta]))?;
    for word in depends.split_whitespace() {
        if word.starts_with(prefix) && word != meta {
            return Ok(word.into());
        }
    }
    bail!("{meta} depends on no package that begins with {prefix}")
}
