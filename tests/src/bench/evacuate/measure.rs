//! CPU and memory of a run, sampled from /proc, for every method in the same way.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::procs;

/// A process that ends takes at most this much of its last CPU time with it.
const EVERY: Duration = Duration::from_millis(100);

/// CPU seconds, those of the guests' virtual CPUs left out, and memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cpu {
    /// Agents.
    pub agents_s: f64,
    /// The coordinator.
    pub coordinator_s: f64,
    /// Both QEMUs of every VM, start of the target QEMU included.
    pub qemu_s: f64,
    /// The most anonymous memory (`RssAnon`: what is not guest memory) any one agent had, bytes.
    pub agent_memory_peak: u64,
    /// The most anonymous memory all agents had together, bytes.
    pub agents_memory_peak: u64,
}

impl Cpu {
    /// All CPU seconds.
    pub fn total_s(&self) -> f64 {
        self.agents_s + self.coordinator_s + self.qemu_s
    }
}

/// Watches every process of a lab until it is asked for the sum.
pub(super) struct Sampler {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Cpu>>,
}

impl Sampler {
    /// Starts to count.
    pub fn start(prefix: &str) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut watched = Watched::default();
        watched.look_for_more(prefix, true)?;
        let (prefix, flag) = (prefix.to_owned(), stop.clone());
        let sample = move || {
            while !flag.load(Ordering::Relaxed) {
                watched.look_for_more(&prefix, false)?;
                watched.sample();
                thread::sleep(EVERY);
            }
            watched.sample();
            Ok(watched.sum())
        };
        let thread = thread::Builder::new().name("sampler".into()).spawn(sample)?;
        Ok(Self { stop, thread })
    }

    /// Ends counting.
    pub fn finish(self) -> Result<Cpu> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    Agent,
    Coordinator,
    Qemu,
    #[default]
    Other,
}

#[derive(Debug, Default)]
struct One {
    kind: Kind,
    /// Threads that run the guest.
    vcpus: Vec<String>,
    /// At the start of the count.
    before: Duration,
    now: Duration,
}

#[derive(Debug, Default)]
struct Watched {
    all: BTreeMap<i32, One>,
    agent_memory_peak: u64,
    agents_memory_peak: u64,
}

impl Watched {
    fn look_for_more(&mut self, prefix: &str, first: bool) -> Result<()> {
        let known: Vec<i32> =
            self.all.iter().filter(|(_, one)| one.kind != Kind::Other).map(|(&p, _)| p).collect();
        for (pid, name) in procs::marked_but(prefix, &known)? {
            let kind = kind(&name);
            let mut one = One { kind, ..One::default() };
            one.sample(pid);
            if first {
                one.before = one.now;
            }
            self.all.insert(pid, one);
        }
        Ok(())
    }

    fn sample(&mut self) {
        let mut together = 0;
        for (pid, one) in &mut self.all {
            one.sample(*pid);
            if one.kind == Kind::Agent {
                let memory = anonymous(*pid);
                self.agent_memory_peak = self.agent_memory_peak.max(memory);
                together += memory;
            }
        }
        self.agents_memory_peak = self.agents_memory_peak.max(together);
    }

    fn sum(&self) -> Cpu {
        let of = |kind: Kind| {
            let all = self.all.values().filter(|one| one.kind == kind);
            all.fold(0.0, |sum, one| sum + one.now.saturating_sub(one.before).as_secs_f64())
        };
        Cpu {
            agents_s: of(Kind::Agent),
            coordinator_s: of(Kind::Coordinator),
            qemu_s: of(Kind::Qemu),
            agent_memory_peak: self.agent_memory_peak,
            agents_memory_peak: self.agents_memory_peak,
        }
    }
}

impl One {
    /// Takes what can still be read: a process may have ended.
    fn sample(&mut self, pid: i32) {
        // A QEMU bears its agent's name until it has replaced the agent's program in the new process.
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if self.kind == Kind::Agent && kind(name.trim()) == Kind::Qemu {
            *self = Self { kind: Kind::Qemu, now: Duration::ZERO, ..std::mem::take(self) };
        }
        if self.kind == Kind::Qemu && self.vcpus.is_empty() {
            self.vcpus = vcpus(pid);
        }
        let guest: Duration = self.vcpus.iter().filter_map(|stat| procs::cpu_of(stat).ok()).sum();
        // Without its virtual CPUs' share a figure would be the guest's too.
        let unknown = self.kind == Kind::Qemu && self.vcpus.is_empty();
        if let (Ok(all), false) = (procs::cpu_of(&format!("/proc/{pid}/stat")), unknown) {
            self.now = self.now.max(all.saturating_sub(guest));
        }
    }
}

/// By the name the kernel keeps: 15 characters.
fn kind(name: &str) -> Kind {
    match name {
        "rackferry-agent" => Kind::Agent,
        "rackferry-coord" => Kind::Coordinator,
        name if name.starts_with("qemu-system") => Kind::Qemu,
        _ => Kind::Other,
    }
}

/// The `stat` files of the threads that QEMU calls `CPU n/...`.
fn vcpus(pid: i32) -> Vec<String> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let is_vcpu = |task: &fs::DirEntry| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("CPU "))
    };
    let found = tasks.flatten().filter(is_vcpu);
    found.map(|task| task.path().join("stat").display().to_string()).collect()
}

fn anonymous(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
