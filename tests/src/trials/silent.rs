//! What is kept of a guest that shows no heartbeat: what its QEMU and its virtual CPUs do, and all of its memory.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::Lab;
use crate::leak::memfds_of;

/// A guest that runs beats within this.
const BEAT: Duration = Duration::from_secs(5);
/// Between two looks at what should change.
const PAUSE: Duration = Duration::from_secs(1);
/// What the human monitor is asked, each time.
const QUESTIONS: [&str; 6] =
    ["info status", "info registers -a", "info lapic", "info pic", "info chardev", "info migrate"];
/// Lines of the guest that are kept.
const LINES: usize = 40;

/// Writes `VM.txt` and `VM.memory` into a folder for each of the guests that is silent; their names.
///
/// # Errors
/// The folder cannot be written.
pub fn keep<'a>(
    lab: &Lab,
    vms: impl Iterator<Item = &'a String>,
    folder: &Path,
) -> Result<Vec<String>> {
    let silent: Vec<String> =
        vms.filter(|vm| lab.heartbeats().wait_beat(vm, BEAT).is_err()).cloned().collect();
    for vm in &silent {
        let mut text = heard(lab, vm);
        let seen = look(lab, vm, folder, &mut text);
        if let Err(error) = seen {
            let _ = writeln!(text, "not seen: {error:#}");
        }
        fs::write(folder.join(format!("{vm}.txt")), text)?;
    }
    Ok(silent)
}

fn heard(lab: &Lab, vm: &str) -> String {
    let log = lab.heartbeats().log(vm);
    let beats = log.beats().iter().rev().take(5).map(|beat| {
        let ago = beat.at.elapsed().as_millis();
        format!("beat {} {ago} ms ago, connection {}", beat.number, beat.source)
    });
    let lines = log.lines().iter().rev().take(LINES).rev().cloned();
    beats.chain(lines).collect::<Vec<_>>().join("\n") + "\n"
}

/// At every host that has a QEMU of this name.
fn look(lab: &Lab, vm: &str, folder: &Path, text: &mut String) -> Result<()> {
    for host in lab.hosts() {
        let Ok((pid, mut qmp)) = lab.monitor(host, vm) else { continue };
        let pid = pid.as_raw_nonzero().get();
        for _ in 0..2 {
            writeln!(text, "== {} pid {pid}\n{}", host.name(), threads(pid))?;
            for question in QUESTIONS {
                let answer = qmp.human(question).unwrap_or_else(|error| format!("{error:#}"));
                writeln!(text, "-- {question}\n{answer}")?;
            }
            thread::sleep(PAUSE);
        }
        let (fd, length) = memory(pid).context("no guest memory")?;
        writeln!(text, "memory: {length} bytes")?;
        fs::copy(fd, folder.join(format!("{vm}.{}.memory", host.name())))?;
    }
    Ok(())
}

fn threads(pid: i32) -> String {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let read = |path: &Path, name| fs::read_to_string(path.join(name)).unwrap_or_default();
    let line = |task: fs::DirEntry| {
        let path = task.path();
        let [stat, wait, call] = ["stat", "wchan", "syscall"].map(|name| read(&path, name));
        format!("{} waits in {} {}", stat.trim(), wait.trim(), call.trim())
    };
    tasks.map(line).collect::<Vec<_>>().join("\n")
}

/// The largest memory file that a process has open.
fn memory(pid: i32) -> Option<(String, u64)> {
    let (_, name, length) = memfds_of(pid).into_iter().max_by_key(|(_, _, length)| *length)?;
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
    let wanted = format!("/memfd:{name}");
    let mut own = fds.map(|fd| fd.path()).filter(|path| {
        fs::read_link(path).is_ok_and(|target| target.to_string_lossy().starts_with(&wanted))
    });
    Some((own.next()?.to_str()?.to_owned(), length))
}
