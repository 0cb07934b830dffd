//! promtool, of Debian's package `prometheus`: unpacked, not installed, so that no server starts.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use rackferry_tests::image;

use super::apt;
use super::stamp::Stamp;
use crate::run::quiet;

/// The variable that tells tests where promtool is.
pub const VARIABLE: &str = "RACKFERRY_PROMTOOL";

/// Where promtool is: the machine's own, or one that is fetched into the cache folder.
pub fn ready() -> Result<PathBuf> {
    if quiet(Command::new("promtool").arg("--version")).is_ok() {
        return Ok("promtool".into());
    }
    let binary = image::cache().join("promtool");
    let fetched = Stamp::new("promtool").step("1", std::slice::from_ref(&binary), || {
        apt::update()?;
        let folder = image::cache().join("debs/prometheus");
        let file = apt::download("prometheus", &folder)?;
        apt::unpack(&file, &folder.join("root"))?;
        fs::copy(folder.join("root/usr/bin/promtool"), &binary)?;
        // The server beside it is large, and nothing runs it.
        fs::remove_dir_all(&folder)?;
        quiet(Command::new(&binary).arg("--version")).map(drop)
    });
    fetched.context(
        "promtool is missing: install Debian's package prometheus, or run as root on Debian 12",
    )?;
    Ok(binary)
}
