//! Certificates of a lab's site, made as an operator makes them: a CA, a token for each host, and the host joins.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::lab::netns;
use crate::lab::site::{Settings, Site};
use crate::lab::topology::Host;

/// The folder of a site's CA in the lab's, and those of its first certificates in that.
pub const CA: &str = "tls";

/// The setting of a program whose certificates are in a folder, or that uses none.
pub fn setting(dir: Option<&Path>) -> String {
    match dir {
        Some(dir) => format!("tls = {{ dir = \"{}\" }}", dir.display()),
        None => "tls = \"off\"".into(),
    }
}

/// Makes a site's CA and its first certificates, unless they are there.
pub fn init(settings: &Settings, dir: &Path) -> Result<()> {
    if dir.join("ca.pem").exists() {
        return Ok(());
    }
    fs::create_dir_all(dir)?;
    let output = settings.program("rackferry").arg("init").arg(dir).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "rackferry init: {said}");
    Ok(())
}

/// Makes a host part of the site, unless it is. Its agent's settings are written already.
pub fn join(site: &Site<'_>, host: &Host, dir: &Path) -> Result<()> {
    if dir.join("cert.pem").exists() {
        return Ok(());
    }
    let created = site.cli_patient(&["token", "create", &host.name()])?;
    let token = created["token"].as_str().context("a token is a text")?;
    let mut command = site.settings().program("rackferry-agent");
    command.arg("--config").arg(site.agent_config(host)).arg("join").env("RACKFERRY_TOKEN", token);
    let output = netns::inside(&host.namespace, || command.output())??;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} cannot join: {said}", host.name());
    Ok(())
}
