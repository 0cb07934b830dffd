//! What the guests say on their serial lines, with the time it was heard: heartbeats, readiness, complaints.
//!
//! Every guest's serial line is an abstract socket in the network namespace of the host that runs it. One
//! watcher per host connects to each that appears, so a guest that moves is heard at its new host without
//! the watcher being told where that is.

mod log;
mod watch;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

pub use log::{Beat, Handover, VmLog};

use crate::lab::topology::Host;
use watch::Connection;

/// Serial lines are abstract sockets of this name and the VM's.
pub const SERIAL: &str = "rf-serial-";

/// Listens to every guest of the lab.
#[derive(Debug)]
pub struct Heartbeats {
    shared: Arc<Shared>,
    watchers: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    heard: Mutex<Heard>,
    /// Signalled whenever a line of text was heard.
    line: Condvar,
    stop: AtomicBool,
}

#[derive(Debug, Default)]
struct Heard {
    vms: BTreeMap<String, VmLog>,
    /// Index is the connection number in [`Beat::source`].
    connections: Vec<Connection>,
}

impl Shared {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Heartbeats {
    /// Starts to listen on some hosts.
    pub fn listen(hosts: &[Host]) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let watch = |host: &Host| {
            let (host, shared) = (host.clone(), shared.clone());
            let name = format!("serial {}", host.name());
            Ok(thread::Builder::new().name(name).spawn(move || watch::run(&host, &shared))?)
        };
        let watchers = hosts.iter().map(watch).collect::<Result<_>>()?;
        Ok(Self { shared, watchers })
    }

    /// Waits until every one of the guests has filled its memory.
    pub fn wait_ready(&self, vms: &[&str], limit: Duration) -> Result<()> {
        self.wait(limit, "guests that are not ready", |heard| {
            let waiting = |vm: &&&str| heard.vms.get(**vm).is_none_or(|log| !log.is_ready());
            vms.iter().filter(waiting).map(ToString::to_string).collect()
        })
    }

    /// Waits for a heartbeat that is younger than this call: the guest runs.
    pub fn wait_beat(&self, vm: &str, limit: Duration) -> Result<Beat> {
        let start = Instant::now();
        while start.elapsed() < limit {
            if let Some(beat) = self.last_beat(vm).filter(|beat| beat.at > start) {
                return Ok(beat);
            }
            thread::sleep(Duration::from_millis(2));
        }
        bail!("{vm} shows no heartbeat within {limit:?}")
    }

    /// Waits until the guest beats on a host, by its name.
    pub fn wait_on_host(&self, vm: &str, host: &str, limit: Duration) -> Result<()> {
        let start = Instant::now();
        while self.host_of(vm).as_deref() != Some(host) {
            ensure!(start.elapsed() < limit, "{vm} does not beat on {host} within {limit:?}");
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Lets guests check their whole memory now; fails if a page is wrong anywhere.
    pub fn check(&self, vms: &[&str], limit: Duration) -> Result<()> {
        let before: Vec<usize> = vms.iter().map(|vm| self.log(vm).checks()).collect();
        for vm in vms {
            // It may just have moved: its last beat must come from where it runs.
            self.wait_beat(vm, limit)?;
            self.say(vm, "check\n")?;
        }
        self.wait(limit, "guests that do not answer a check", |heard| {
            let waiting = |(vm, before): &(&&str, &usize)| {
                heard.vms.get(**vm).is_none_or(|log| log.checks() <= **before)
            };
            vms.iter().zip(&before).filter(waiting).map(|(vm, _)| vm.to_string()).collect()
        })?;
        self.assert_healthy()
    }

    /// Sends text to a guest, where it beats now.
    pub fn say(&self, vm: &str, text: &str) -> Result<()> {
        let mut heard = self.shared.heard();
        let Some(beat) = heard.vms.get(vm).and_then(VmLog::last_beat) else {
            bail!("{vm} was never heard")
        };
        heard.connections[beat.source].stream.write_all(text.as_bytes())?;
        Ok(())
    }

    /// Fails if a guest complained, or if two copies of one were heard.
    pub fn assert_healthy(&self) -> Result<()> {
        for (vm, log) in &self.shared.heard().vms {
            if let Some(complaint) = log.complaints().first() {
                bail!("{vm}: {complaint} ({} complaints)", log.complaints().len());
            }
            if let Some((old, new)) = log.two_copies() {
                bail!(
                    "{vm} ran twice: beat {} came from a copy that beat {} had replaced",
                    old.number,
                    new.number
                );
            }
        }
        Ok(())
    }

    /// Everything heard from a guest so far.
    pub fn log(&self, vm: &str) -> VmLog {
        self.shared.heard().vms.get(vm).cloned().unwrap_or_default()
    }

    /// The last heartbeat of a guest.
    pub fn last_beat(&self, vm: &str) -> Option<Beat> {
        self.shared.heard().vms.get(vm)?.last_beat()
    }

    /// The host that a beat came from.
    pub fn host(&self, beat: Beat) -> String {
        self.shared.heard().connections[beat.source].host.clone()
    }

    /// The host a guest beats on, or did last.
    pub fn host_of(&self, vm: &str) -> Option<String> {
        let heard = self.shared.heard();
        let beat = heard.vms.get(vm)?.last_beat()?;
        Some(heard.connections[beat.source].host.clone())
    }

    fn wait(
        &self,
        limit: Duration,
        what: &str,
        left: impl Fn(&Heard) -> Vec<String>,
    ) -> Result<()> {
        let deadline = Instant::now() + limit;
        let mut heard = self.shared.heard();
        loop {
            let waiting = left(&heard);
            if waiting.is_empty() {
                return Ok(());
            }
            if let Some((vm, why)) =
                heard.vms.iter().find_map(|(vm, log)| Some((vm, log.failure()?)))
            {
                bail!("{vm}: {why}");
            }
            let rest = deadline.saturating_duration_since(Instant::now());
            ensure!(!rest.is_zero(), "{what} within {limit:?}: {}", waiting.join(" "));
            heard = self
                .shared
                .line
                .wait_timeout(heard, rest)
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .0;
        }
    }
}

impl Drop for Heartbeats {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for watcher in self.watchers.drain(..) {
            watcher.join().ok();
        }
        for connection in &self.shared.heard().connections {
            connection.stream.shutdown(std::net::Shutdown::Both).ok();
        }
    }
}
