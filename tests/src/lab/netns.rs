//! Network namespaces: made, entered, removed.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::lab::topology::{Host, MANAGEMENT, RACKS, Seat, management, switch};

const FOLDER: &str = "/run/netns";

/// Runs `work` on a thread of its own inside a namespace. Sockets it opens and processes it starts belong
/// to the namespace.
pub fn inside<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
    let handle = path(namespace);
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter(&handle)?;
            Ok(work())
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Moves the calling thread into a namespace, for the rest of its life.
pub fn enter(handle: &Path) -> Result<()> {
    let file = File::open(handle).with_context(|| format!("no namespace {}", handle.display()))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("cannot enter {}", handle.display()))
}

/// The file that stands for a namespace.
pub fn path(namespace: &str) -> PathBuf {
    Path::new(FOLDER).join(namespace)
}

/// The namespaces whose names begin with `prefix-`.
pub fn list(prefix: &str) -> Result<Vec<String>> {
    let Ok(entries) = fs::read_dir(FOLDER) else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('-')) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Removes a namespace; its links go with it as soon as no process is left inside.
pub fn remove(namespace: &str) -> Result<()> {
    ip(None, &format!("netns del {namespace}\n"))
}

/// Makes both racks, the core link between them and the management network beside them.
pub fn build(prefix: &str, hosts: &[Host], seats: &[Seat]) -> Result<()> {
    let [first, second] = RACKS.map(|rack| switch(prefix, rack));
    let switches = [first.clone(), second.clone(), management(prefix)];
    let ends = hosts.iter().map(|h| &h.namespace).chain(seats.iter().map(|s| &s.namespace));
    for name in switches.iter().chain(ends) {
        ip(None, &format!("netns add {name}\n"))?;
        inside(name, without_ipv6)?.with_context(|| format!("namespace {name}"))?;
        ip(Some(name), "link set lo up\n")?;
    }
    for name in &switches {
        ip(Some(name), "link add br0 type bridge mcast_snooping 0\nlink set br0 up\n")?;
    }
    ip(Some(&switches[2]), &format!("addr add {MANAGEMENT}/16 dev br0\n"))?;
    let core = format!("link add core0 type veth peer name core0 netns {second}\n");
    ip(Some(&first), &core)?;
    for name in [&first, &second] {
        ip(Some(name), "link set core0 master br0 up\n")?;
    }
    hosts.iter().try_for_each(|host| connect(prefix, host))?;
    seats.iter().try_for_each(|seat| connect_seat(prefix, seat))
}

/// Gives a coordinator its link to the management network.
fn connect_seat(prefix: &str, seat: &Seat) -> Result<()> {
    let Seat { namespace, address, .. } = seat;
    let (management, port) = (management(prefix), seat.port());
    ip(
        Some(namespace),
        &format!(
            "link add mgmt0 type veth peer name {port} netns {management}
             addr add {address}/16 dev mgmt0
             link set mgmt0 up\n"
        ),
    )?;
    ip(Some(&management), &format!("link set {port} master br0 up\n"))
}

/// Gives a host its link to its rack's switch and the one to the management network.
fn connect(prefix: &str, host: &Host) -> Result<()> {
    let Host { rack, number, namespace, address, management: management_address } = host;
    let (tor, management) = (switch(prefix, rack), management(prefix));
    let (tor_port, management_port) = (format!("h{number}"), host.port());
    ip(
        Some(namespace),
        &format!(
            "link add eth0 type veth peer name {tor_port} netns {tor}
             link add mgmt0 type veth peer name {management_port} netns {management}
             addr add {address}/8 dev eth0
             addr add {management_address}/16 dev mgmt0
             link set eth0 up
             link set mgmt0 up\n"
        ),
    )?;
    ip(Some(&tor), &format!("link set {tor_port} master br0 up\n"))?;
    ip(Some(&management), &format!("link set {management_port} master br0 up\n"))
}

/// Neighbour discovery would be traffic on the core link that no run asked for.
fn without_ipv6() -> Result<()> {
    for device in ["all", "default"] {
        let switch = format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6");
        if Path::new(&switch).exists() {
            fs::write(&switch, "1").with_context(|| format!("cannot write {switch}"))?;
        }
    }
    Ok(())
}

/// Runs a script of `ip` commands, in a namespace if one is named.
pub fn ip(namespace: Option<&str>, script: &str) -> Result<()> {
    let mut command = Command::new("ip");
    if let Some(namespace) = namespace {
        command.args(["-netns", namespace]);
    }
    let mut child = command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start ip")?;
    child.stdin.take().context("ip has no input")?.write_all(script.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("ip in {} failed on\n{script}{said}", namespace.unwrap_or("the machine"));
    }
    Ok(())
}
