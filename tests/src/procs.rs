//! Processes of the lab: each is known, ends with its handle, and ends when the lab itself is ended by a
//! signal.

use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, Once};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::lab::netns;

/// Marks every process of a lab and its children in their environment: `RACKFERRY_LAB=<prefix>`.
pub const MARK: &str = "RACKFERRY_LAB";
const END_WAIT: Duration = Duration::from_secs(10);

/// What a signal has to clean up: it may come at any moment, to any lab of this program.
static LIVE: Mutex<Live> = Mutex::new(Live { processes: Vec::new(), prefixes: Vec::new() });
static SIGNALS: Once = Once::new();

struct Live {
    processes: Vec<Pid>,
    prefixes: Vec<String>,
}

fn live() -> MutexGuard<'static, Live> {
    LIVE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A process of the lab; killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    /// `None` if another process started it.
    child: Option<Child>,
    pid: Pid,
}

impl Process {
    /// Starts a command in a namespace, marked as part of the lab named `prefix`.
    pub fn start(prefix: &str, namespace: &str, name: &str, command: &mut Command) -> Result<Self> {
        command.env(MARK, prefix);
        let child = netns::inside(namespace, || spawn(command))?;
        Self::started(name, command, child)
    }

    /// Starts a command in our own namespace, marked as part of the lab named `prefix`.
    pub(crate) fn start_here(prefix: &str, name: &str, command: &mut Command) -> Result<Self> {
        let child = spawn(command.env(MARK, prefix));
        Self::started(name, command, child)
    }

    fn started(name: &str, command: &Command, child: io::Result<(Child, Pid)>) -> Result<Self> {
        let (child, pid) = child.with_context(|| format!("cannot start {name}: {command:?}"))?;
        await_environment(pid);
        Ok(Self { name: name.into(), child: Some(child), pid })
    }

    /// The pipe to its standard input, if it has one that was not taken yet.
    pub(crate) fn take_input(&mut self) -> Option<ChildStdin> {
        self.child.as_mut()?.stdin.take()
    }

    /// Takes over a process that another process of the lab started; from now on it ends with this handle.
    pub fn adopt(name: &str, pid: Pid) -> Self {
        live().processes.push(pid);
        Self { name: name.into(), child: None, pid }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Its process id, as the kernel takes it.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// How it ended, if it has. Only the process that started it can know.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let child = self.child.as_mut().context("started by another process")?;
        let status = child.try_wait()?;
        if status.is_some() {
            self.forget();
        }
        Ok(status)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Ends it at once, as a power failure would.
    pub fn kill(mut self) {
        self.end();
    }

    /// Asks it to end and waits until it has.
    pub fn terminate(self, limit: Duration) -> Result<()> {
        let name = self.name.clone();
        self.signal(Signal::TERM)?;
        let status = self.wait(limit)?;
        ensure!(status.success(), "{name} ended with {status}");
        Ok(())
    }

    /// Waits until it ends by itself.
    pub fn wait(mut self, limit: Duration) -> Result<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if start.elapsed() > limit {
                bail!("{} did not end within {limit:?}", self.name);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// CPU time of the whole process so far, threads that have ended included.
    pub fn cpu(&self) -> Result<Duration> {
        cpu_of(&format!("/proc/{}/stat", self.id()))
    }

    /// CPU time of one of its threads.
    pub fn cpu_of_thread(&self, thread: u64) -> Result<Duration> {
        cpu_of(&format!("/proc/{}/task/{thread}/stat", self.id()))
    }

    fn end(&mut self) {
        match &mut self.child {
            Some(child) => {
                if matches!(child.try_wait(), Ok(None)) {
                    kill_process(self.pid, Signal::KILL).ok();
                    child.wait().ok();
                }
            }
            None => self.end_adopted(),
        }
        self.forget();
    }

    fn end_adopted(&self) {
        let start = Instant::now();
        kill_process(self.pid, Signal::KILL).ok();
        while runs(self.id()) && start.elapsed() < END_WAIT {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Its number may belong to another process from now on.
    fn forget(&self) {
        live().processes.retain(|pid| *pid != self.pid);
    }
}

/// A process that does nothing until this is dropped: its sockets stay open, its kernel goes on to answer for them. A
/// lab that ends meanwhile kills it as it is.
#[derive(Debug)]
pub struct Frozen<'a>(&'a Process);

impl<'a> Frozen<'a> {
    /// Stops it.
    ///
    /// # Errors
    /// It has ended.
    pub fn new(process: &'a Process) -> Result<Self> {
        process.signal(Signal::STOP)?;
        Ok(Self(process))
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        // It may have been killed meanwhile.
        let _ = self.0.signal(Signal::CONT);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// Starts a command, under the lock: a signal between start and entry would miss the process.
fn spawn(command: &mut Command) -> io::Result<(Child, Pid)> {
    let mut live = live();
    let child = command.spawn()?;
    let pid = Pid::from_child(&child);
    live.processes.push(pid);
    Ok((child, pid))
}

/// Whether a process exists and has not ended: one that its parent has not waited for yet is over all the same.
fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.starts_with(" Z"))
}

/// Waits until a process that was just started shows its environment, by which other processes find it. The kernel
/// tells of a new program's start a moment before it has that.
fn await_environment(pid: Pid) {
    let pid = pid.as_raw_nonzero().get().unsigned_abs();
    while runs(pid) && fs::read(format!("/proc/{pid}/environ")).is_ok_and(|text| text.is_empty()) {
        thread::yield_now();
    }
}

/// CPU time in a `stat` file of /proc, of a process or of a thread.
pub(crate) fn cpu_of(stat: &str) -> Result<Duration> {
    let text = fs::read_to_string(stat).with_context(|| format!("cannot read {stat}"))?;
    // The program's name stands in parentheses and may contain anything.
    let fields = text.rsplit(')').next().context("no name in stat")?;
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// Every process that a lab named `prefix` started, or one of their children, wherever it is now.
pub fn marked(prefix: &str) -> Result<Vec<(Pid, String)>> {
    let found = marked_but(prefix, &[])?.into_iter();
    found
        .map(|(pid, name)| Ok((Pid::from_raw(pid).context("no process has the number 0")?, name)))
        .collect()
}

/// As [`marked`], leaving out those whose (sorted) numbers are known.
pub(crate) fn marked_but(prefix: &str, known: &[i32]) -> Result<Vec<(i32, String)>> {
    let mark = format!("{MARK}={prefix}");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if known.binary_search(&pid).is_ok() {
            continue;
        }
        // A process may end while we look at it.
        let Ok(environment) = fs::read(entry.path().join("environ")) else { continue };
        if environment.split(|&byte| byte == 0).any(|word| word == mark.as_bytes()) {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            found.push((pid, name.trim().to_string()));
        }
    }
    Ok(found)
}

/// Ends what a lab named `prefix` left behind: processes first, then their namespaces.
pub fn sweep(prefix: &str) -> Result<()> {
    let start = Instant::now();
    loop {
        let left = marked(prefix)?;
        if left.is_empty() {
            break;
        }
        if start.elapsed() > END_WAIT {
            bail!("processes of the lab {prefix} do not end: {left:?}");
        }
        for (pid, _) in left {
            kill_process(pid, Signal::KILL).ok();
        }
        thread::sleep(Duration::from_millis(5));
    }
    netns::list(prefix)?.iter().try_for_each(|name| netns::remove(name))
}

/// Makes signals end what the lab named `prefix` started.
pub(crate) fn guard(prefix: &str) -> Result<()> {
    live().prefixes.push(prefix.into());
    let mut outcome = Ok(());
    SIGNALS.call_once(|| outcome = watch_signals());
    outcome
}

/// The lab named `prefix` has ended in order.
pub(crate) fn unguard(prefix: &str) {
    live().prefixes.retain(|other| other != prefix);
}

fn watch_signals() -> Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    thread::Builder::new().name("lab signals".into()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            // Held until the end: nothing is started any more.
            let live = live();
            for pid in &live.processes {
                kill_process(*pid, Signal::KILL).ok();
            }
            for prefix in &live.prefixes {
                if let Err(error) = sweep(prefix) {
                    eprintln!("lab: {error:#}");
                }
            }
            std::process::exit(128 + signal);
        }
    })?;
    Ok(())
}

/// Whether a process was ended by a signal rather than by itself.
pub fn was_killed(status: ExitStatus) -> bool {
    status.signal().is_some()
}
