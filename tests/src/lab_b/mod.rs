//! Lab B: an outer machine, emulated in software, in which KVM works, and RDMA if asked for. It has this machine's own root file system, so a
//! program that was built here runs there at the same path; Lab A runs inside with guests under KVM.
//!
//! The root is read-only below a tmpfs: what a job writes ends with the machine, except in the results folder, which
//! is the same folder inside and outside. One Lab B runs on a machine at a time (per name prefix, as with Lab A).

mod job;
mod outer;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

pub use job::Job;

use crate::image::{self, Qemu, text};
use crate::lab;
use crate::procs::{self, Process};

/// PID 1 of the initrd.
pub const INITRD: &str = include_str!("initrd.sh");
/// PID 1 after it.
const MACHINE: &str = include_str!("machine.sh");
/// Makes the device of [`Options::soft_roce`].
const SOFT_ROCE: &str = include_str!("soft_roce.sh");
/// What it needs, in this order: clients of a device are removed last-loaded first, and programs must hear of it by
/// `rdma_ucm` before `ib_uverbs` waits for them. Without a CRC no link can be added.
const SOFT_ROCE_MODULES: [&str; 4] = ["crc32_generic", "ib_uverbs", "rdma_ucm", "rdma_rxe"];
/// The folder, in the results folder, by which the two machines talk.
const SHARED: &str = ".lab-b";
/// Modules that a job has from the start. Those of links, bridges and qdiscs the kernel loads when it needs them.
const MODULES: [&str; 1] = ["kvm_amd"];
/// Lines of a log that an error shows.
const SHOWN_LINES: usize = 30;
const POLL: Duration = Duration::from_millis(50);

/// What an outer machine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Its memory, MiB; files written outside of the results folder count.
    pub memory_mib: u32,
    /// Its virtual CPUs; each is a thread of ours.
    pub cpus: u32,
    /// It is ended after this.
    pub limit: Duration,
    /// A folder that exists at the same path inside and outside.
    pub results: PathBuf,
    /// Kernel modules to load, beside KVM's.
    pub modules: Vec<String>,
    /// Whether it has an RDMA device, `rxe0`.
    pub soft_roce: bool,
}

impl Options {
    /// A machine of 4 GiB and two CPUs.
    pub fn of(results: PathBuf, limit: Duration) -> Self {
        Self { memory_mib: 4096, cpus: 2, limit, results, modules: vec![], soft_roce: false }
    }
}

/// Whether `cargo xtask setup --lab-b` was run.
pub fn is_set_up() -> bool {
    [image::lab_b_kernel(), image::lab_b_initrd(), image::lab_b_modules()]
        .iter()
        .all(|path| path.exists())
}

/// Boots an outer machine, runs a job in it, powers it off. What the job prints goes where our output goes; its exit
/// code is returned. An error if there is none: then the logs lie in the results folder.
pub fn run(options: &Options, job: &Job) -> Result<i32> {
    ensure!(rustix::process::geteuid().is_root(), "Lab B needs root");
    ensure!(is_set_up(), "run `cargo xtask setup --lab-b` first");
    fs::create_dir_all(&options.results)?;
    let results = options.results.canonicalize()?;
    let options = Options { results, ..options.clone() };
    let prefix = format!("{}.b", lab::prefix()?);
    let lock = lab::lock(&prefix)?;
    procs::guard(&prefix)?;
    let outcome = procs::sweep(&prefix).and_then(|()| boot(&prefix, &options, job));
    procs::unguard(&prefix);
    drop(lock);
    outcome
}

fn boot(prefix: &str, options: &Options, job: &Job) -> Result<i32> {
    let shared = share(options, job)?;
    let (console, log) = (shared.join("console.log"), shared.join("qemu.log"));
    let mut command = Command::new(Qemu::V10_0.binary());
    command
        .args(outer::arguments(options, &console)?)
        .stdin(Stdio::piped())
        .stdout(Stdio::inherit())
        .stderr(File::create(&log)?);
    let mut process = Process::start_here(prefix, "the outer machine", &mut command)?;
    // QEMU drops the job's output as soon as its own input has ended.
    let input = process.take_input();
    let outcome = wait(process, options.limit);
    drop(input);
    let code = fs::read_to_string(shared.join("code"));
    let said = || last_words(&[&console, &log]);
    outcome.map_err(|error| anyhow!("{error:#}\n{}", said()))?;
    let code =
        code.with_context(|| format!("the outer machine ended before its job\n{}", said()))?;
    fs::remove_dir_all(&shared)?;
    code.trim().parse().context("the job's exit code is no number")
}

/// Writes down what the outer machine reads; the folder.
fn share(options: &Options, job: &Job) -> Result<PathBuf> {
    let shared = options.results.join(SHARED);
    if shared.exists() {
        fs::remove_dir_all(&shared)?;
    }
    fs::create_dir(&shared)?;
    let soft_roce: &[&str] = if options.soft_roce { &SOFT_ROCE_MODULES } else { &[] };
    let modules = MODULES.iter().chain(soft_roce).copied();
    let modules = modules.chain(options.modules.iter().map(String::as_str));
    let modules: String = modules.map(|module| format!("{module}\n")).collect();
    fs::write(shared.join("machine.sh"), MACHINE)?;
    fs::write(shared.join("modules"), modules)?;
    if options.soft_roce {
        fs::write(shared.join("soft_roce.sh"), SOFT_ROCE)?;
    }
    fs::write(shared.join("tree"), text(&image::lab_b_modules()))?;
    fs::write(shared.join("job.sh"), job.script())?;
    Ok(shared)
}

/// Waits until the machine has powered off; ends it after `limit`.
fn wait(mut process: Process, limit: Duration) -> Result<()> {
    let start = Instant::now();
    loop {
        if let Some(status) = process.ended()? {
            ensure!(status.success(), "the outer machine's QEMU ended with {status}");
            return Ok(());
        }
        if start.elapsed() > limit {
            process.kill();
            bail!("the job did not end within {} s", limit.as_secs());
        }
        thread::sleep(POLL);
    }
}

fn last_words(logs: &[&Path]) -> String {
    let mut words = String::new();
    for log in logs {
        let text = fs::read(log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        words += &format!("--- {}\n", log.display());
        for line in &lines[lines.len().saturating_sub(SHOWN_LINES)..] {
            words += &format!("{}\n", line.trim_end());
        }
    }
    words
}
