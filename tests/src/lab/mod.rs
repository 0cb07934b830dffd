//! The lab itself: brought up, used, taken down.

pub mod accel;
pub mod certificates;
mod coordinators;
pub mod dark;
pub mod heartbeat;
pub mod management;
pub mod netns;
pub mod qmp;
pub mod rate;
pub mod shape;
mod shares;
pub mod site;
pub mod topology;
pub mod vm;

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::fs::{FlockOperation, flock};
use rustix::process::Pid;

use crate::lab::heartbeat::Heartbeats;
use crate::lab::management::Management;
use crate::lab::qmp::Qmp;
use crate::lab::shape::Core;
use crate::lab::topology::{Host, Seat, Topology};
use crate::lab::vm::{MONITOR, Vm, VmDef};
use crate::procs::{self, Process};
use shares::Shares;

const FOLDER: &str = "/run/rackferry-lab";
/// A host that is short of CPU takes this long to open a monitor.
const MONITOR_WAIT: Duration = Duration::from_secs(30);

/// Two racks in network namespaces.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    hosts: Vec<Host>,
    seats: Vec<Seat>,
    folder: PathBuf,
    heartbeats: Option<Heartbeats>,
    _shares: Shares,
    /// Held for as long as the lab lives: there is one at a time.
    _lock: File,
}

impl Lab {
    /// Brings the lab up, after waiting for another one to end and removing what a killed one left.
    pub fn up(topology: &Topology) -> Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "the lab needs root");
        let prefix = prefix()?;
        let folder = Path::new(FOLDER).join(&prefix);
        let lock = lock(&prefix)?;
        procs::guard(&prefix)?;
        let (hosts, seats) = (topology.hosts(&prefix), topology.seats(&prefix));
        let mut lab = Self {
            prefix,
            hosts,
            seats,
            folder,
            heartbeats: None,
            _shares: Shares::take(),
            _lock: lock,
        };
        lab.clear()?;
        fs::create_dir_all(lab.folder.join("logs"))?;
        netns::build(&lab.prefix, &lab.hosts, &lab.seats)?;
        lab.heartbeats = Some(Heartbeats::listen(&lab.hosts)?);
        Ok(lab)
    }

    /// What its namespaces' names begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// A folder for sockets, configuration and state; it goes with the lab.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Every host, rack `a` first.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Where every coordinator runs.
    pub fn seats(&self) -> &[Seat] {
        &self.seats
    }

    /// The hosts of one rack.
    pub fn rack(&self, rack: &str) -> impl Iterator<Item = &Host> {
        self.hosts.iter().filter(move |host| host.rack == rack)
    }

    /// One host; panics if there is none such, which is a mistake in the test.
    #[track_caller]
    pub fn host(&self, rack: &str, number: u8) -> &Host {
        let found = self.rack(rack).find(|host| host.number == number);
        found.unwrap_or_else(|| panic!("the lab has no host {rack}-{number}"))
    }

    /// The link between the racks.
    pub fn core(&self) -> Core {
        Core::new(&self.prefix)
    }

    /// The network of agents, coordinators and the command line.
    pub fn management(&self) -> Management {
        Management::new(&self.prefix)
    }

    /// What the guests say.
    pub fn heartbeats(&self) -> &Heartbeats {
        self.heartbeats.as_ref().expect("set before the lab is handed out")
    }

    /// Starts a program on a host. What it prints goes to `logs/NAME.log` in the lab's folder.
    pub fn spawn(&self, host: &Host, name: &str, command: &mut Command) -> Result<Process> {
        self.spawn_in(&host.namespace, name, command)
    }

    /// Starts a coordinator's program.
    pub fn spawn_seat(&self, seat: &Seat, command: &mut Command) -> Result<Process> {
        self.spawn_in(&seat.namespace, &seat.name(), command)
    }

    /// What a program started under this name has printed so far.
    pub fn printed(&self, name: &str) -> String {
        fs::read_to_string(self.log_path(name)).unwrap_or_default()
    }

    fn spawn_in(&self, namespace: &str, name: &str, command: &mut Command) -> Result<Process> {
        let log = File::options().create(true).append(true).open(self.log_path(name))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Process::start(&self.prefix, namespace, name, command)
    }

    fn log_path(&self, name: &str) -> PathBuf {
        self.folder.join("logs").join(format!("{name}.log"))
    }

    /// Starts a VM under plain QEMU, memory as `-m` gives it.
    pub fn start(&self, host: &Host, def: &VmDef) -> Result<Vm> {
        self.start_with(host, def, &[])
    }

    /// Starts a VM under plain QEMU with arguments of the caller's.
    pub fn start_with(&self, host: &Host, def: &VmDef, further: &[&str]) -> Result<Vm> {
        let name = format!("{}-{}", host.name(), def.name);
        let monitor = self.folder.join(format!("{name}.qmp"));
        let mut command = Command::new(def.qemu.binary());
        command
            .args(def.arguments())
            .args(["-qmp", &format!("unix:{},server=on,wait=off", monitor.display())])
            .args(further);
        let process = self.spawn(host, &name, &mut command)?;
        let qmp = Qmp::connect(&monitor, MONITOR_WAIT)
            .with_context(|| format!("QEMU of {name} said: {}", self.printed(&name)))?;
        Ok(Vm { def: def.clone(), host: host.clone(), process, qmp })
    }

    /// Takes over a VM that an agent started on a host: its monitor and its QEMU are ours from now on, and
    /// QEMU ends with the handle. The monitor serves one at a time.
    pub fn attach(&self, host: &Host, def: &VmDef) -> Result<Vm> {
        let (pid, qmp) = self.monitor(host, &def.name)?;
        let process = Process::adopt(&format!("{}-{}", host.name(), def.name), pid);
        Ok(Vm { def: def.clone(), host: host.clone(), process, qmp })
    }

    /// The lab's own monitor of a VM that an agent started on a host, and its QEMU's process.
    pub fn monitor(&self, host: &Host, vm: &str) -> Result<(Pid, Qmp)> {
        let address = SocketAddr::from_abstract_name(format!("{MONITOR}{vm}"))?;
        let stream = netns::inside(&host.namespace, || UnixStream::connect_addr(&address))?
            .with_context(|| format!("no monitor of {vm} on {}", host.name()))?;
        let pid = rustix::net::sockopt::socket_peercred(&stream)?.pid;
        Ok((pid, Qmp::over(stream)?))
    }

    /// Boots VMs, `at_once` of them at a time, until all are ready.
    pub fn boot(&self, vms: &[(Host, VmDef)], at_once: usize, limit: Duration) -> Result<Vec<Vm>> {
        let deadline = Instant::now() + limit;
        let mut running = Vec::new();
        let mut booting: VecDeque<&str> = VecDeque::new();
        let wait_for_first = |booting: &mut VecDeque<&str>| match booting.pop_front() {
            Some(vm) => self
                .heartbeats()
                .wait_ready(&[vm], deadline.saturating_duration_since(Instant::now())),
            None => Ok(()),
        };
        for (host, def) in vms {
            if booting.len() >= at_once {
                wait_for_first(&mut booting)?;
            }
            running.push(self.start(host, def)?);
            booting.push_back(&def.name);
        }
        while !booting.is_empty() {
            wait_for_first(&mut booting)?;
        }
        Ok(running)
    }

    fn clear(&self) -> Result<()> {
        procs::sweep(&self.prefix)?;
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.heartbeats = None;
        if let Err(error) = self.clear() {
            eprintln!("lab: {error:#}");
        }
        procs::unguard(&self.prefix);
    }
}

/// What the names of this lab's namespaces begin with.
pub(crate) fn prefix() -> Result<String> {
    let prefix = std::env::var("RACKFERRY_LAB_PREFIX").unwrap_or_else(|_| "rf".into());
    ensure!(!prefix.is_empty() && !prefix.contains(['-', '/']), "{prefix:?} is no prefix");
    Ok(prefix)
}

/// Waits until no other lab has this prefix.
pub(crate) fn lock(prefix: &str) -> Result<File> {
    fs::create_dir_all(FOLDER).with_context(|| format!("cannot make {FOLDER}"))?;
    let path = Path::new(FOLDER).join(format!("{prefix}.lock"));
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        eprintln!("lab: waiting for another lab with prefix {prefix} to end");
        flock(&file, FlockOperation::LockExclusive)?;
    }
    Ok(file)
}
