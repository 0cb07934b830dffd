//! A host for tests: a manager in a folder of its own; every QEMU in it is killed at the end.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rackferry_agent::policy::Policy;
use rackferry_agent::vm::{Adoption, ManagerConfig, Qemu, QemuUids, VmManager, VmSpec};
use rackferry_migrator::memory::{GuestMemory, Preallocate};
use rackferry_migrator::qmp::Qmp;
use rustix::process::Signal;

pub struct Host {
    pub vms: VmManager,
    config: ManagerConfig,
    folder: tempfile::TempDir,
    foreign: Vec<Child>,
}

pub fn spec(name: &str, more: &str) -> VmSpec {
    VmSpec::parse(&format!("name = '{name}'\nmemory = '64MiB'\n{more}\n")).unwrap()
}

/// Fills some guest memory with content that differs from page to page.
pub fn guest_pages(memory: &GuestMemory) {
    for page in 8000..9000u64 {
        let mut content = [0; 4096];
        content.chunks_mut(8).for_each(|word| word.copy_from_slice(&(page * 77).to_le_bytes()));
        memory.write_page(page, &content).unwrap();
    }
}

pub async fn eventually(check: impl Fn() -> bool) -> bool {
    for _ in 0..400 {
        if check() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    false
}

impl Host {
    pub async fn open(qemu: &Qemu, memory_ceiling_bytes: u64) -> Self {
        Self::open_as(qemu, memory_ceiling_bytes, QemuUids::default()).await
    }

    /// With QEMUs that run as these users.
    pub async fn open_as(qemu: &Qemu, memory_ceiling_bytes: u64, qemu_uids: QemuUids) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let policy = format!(
            "extra_args = ['-device no-such-device', '-object secret']\npaths = ['{}']",
            std::env::temp_dir().display()
        );
        let config = ManagerConfig {
            state_dir: folder.path().to_owned(),
            memory_ceiling_bytes,
            qemu: qemu.clone(),
            preallocate: Some(Preallocate::Reserve),
            policy: Policy::parse(&policy).unwrap(),
            qemu_uids,
        };
        let (vms, adoption) = VmManager::open(config.clone()).await.unwrap();
        assert!(adoption.adopted.is_empty());
        Self { vms, config, folder, foreign: Vec::new() }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Drops the manager, as the end of the agent would.
    pub async fn close(&mut self) {
        let elsewhere = tempfile::tempdir().unwrap();
        let config =
            ManagerConfig { state_dir: elsewhere.path().to_owned(), ..self.config.clone() };
        self.vms = VmManager::open(config).await.unwrap().0;
    }

    pub async fn reopen(&mut self) -> Adoption {
        let mut limit = 100;
        loop {
            match VmManager::open(self.config.clone()).await {
                Ok((vms, adoption)) => {
                    self.vms = vms;
                    return adoption;
                }
                // A task of the old manager may take a moment to end.
                Err(error) if limit == 0 => panic!("{error}"),
                Err(_) => limit -= 1,
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// From the next opening on.
    pub fn set_uids(&mut self, qemu_uids: QemuUids) {
        self.config.qemu_uids = qemu_uids;
    }

    pub fn kill_9(&self, pid: u32) {
        self.signal(pid, Signal::KILL);
    }

    pub fn signal(&self, pid: u32, signal: Signal) {
        assert!(self.pids().contains(&pid), "{pid} is none of this host's");
        let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Starts a QEMU outside of Rackferry.
    pub async fn foreign_qemu(&mut self, qemu: &Qemu, socket: &Path) -> u32 {
        let mut command = Command::new(&qemu.binary);
        for folder in &qemu.firmware {
            command.arg("-L").arg(folder);
        }
        let monitor = format!("unix:{},server=on,wait=off", socket.display());
        command.args(["-machine", "q35,accel=tcg", "-m", "64", "-nodefaults", "-display", "none"]);
        let child = command.arg("-qmp").arg(monitor).stdin(Stdio::null()).spawn().unwrap();
        let pid = child.id();
        self.foreign.push(child);
        Qmp::connect_within(socket, Duration::from_secs(30)).await.unwrap();
        pid
    }

    /// Processes and folders that belong to this host.
    pub fn leftovers(&self) -> Vec<String> {
        let folders = fs::read_dir(self.path().join("vms")).unwrap().flatten();
        let folders = folders.map(|entry| entry.path().display().to_string());
        folders.chain(self.pids().into_iter().map(|pid| format!("process {pid}"))).collect()
    }

    /// Live processes with this host's folder in their command line, other than this one.
    fn pids(&self) -> HashSet<u32> {
        let folder = self.path().as_os_str().as_encoded_bytes();
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            *pid != std::process::id() && command.windows(folder.len()).any(|w| w == folder)
        })
        .collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for child in &mut self.foreign {
            let _ = child.kill();
            let _ = child.wait();
        }
        for pid in self.pids() {
            if let Some(pid) = pid.try_into().ok().and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}
