//! QEMU processes that outlive the agent. A process is known by pid, start time and boot, and held by a
//! pidfd: a pid that was given to another process is never killed.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use command_fds::CommandFdExt;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

use super::VmError;
use super::user::{self, User};

/// A killed process ends within this, or is stuck in the kernel.
const KILL_LIMIT: Duration = Duration::from_secs(30);

/// A process, told from every other one that ever had its pid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Process id.
    pub pid: u32,
    /// Start in clock ticks since boot.
    pub start_time: u64,
    /// Boot of the host.
    pub boot_id: String,
}

/// How a program is started.
#[derive(Debug)]
pub struct Start {
    /// The program and its arguments.
    pub argv: Vec<OsString>,
    /// What it says is appended here.
    pub log: File,
    /// The folder it stands in: names without a folder lead nowhere else.
    pub folder: File,
    /// What it has open from the beginning, under the same numbers as here.
    pub descriptors: Vec<OwnedFd>,
    /// What it runs as, if not as we do.
    pub user: Option<User>,
}

/// A QEMU process, alive or not yet noticed to be dead.
#[derive(Debug)]
pub struct QemuProcess {
    id: ProcessId,
    pidfd: AsyncFd<OwnedFd>,
}

impl QemuProcess {
    /// Starts a program in a session of its own.
    ///
    /// # Errors
    /// The program cannot be run.
    pub fn spawn(start: Start) -> Result<Self, VmError> {
        let Start { argv, log, folder, descriptors, user } = start;
        let program = Path::new(argv.first().map_or("".as_ref(), OsString::as_os_str));
        let failed = |source| VmError::Spawn { program: program.to_owned(), source };
        if !program.is_file() {
            return Err(failed(io::ErrorKind::NotFound.into()));
        }
        let error_log = log.try_clone().map_err(failed)?;
        // setsid(1) makes the session and becomes the program: same pid, no fork.
        let mut command = Command::new("setsid");
        // By its descriptor: the program's user may stand in it, but not pass the folders above.
        command.args(&argv).current_dir(format!("/proc/self/fd/{}", folder.as_raw_fd()));
        command.stdin(Stdio::null()).stdout(log).stderr(error_log);
        if let Some(User { uid, gid }) = user {
            // Gives up all other groups, too, and with the uid every capability.
            command.uid(uid).gid(gid);
        }
        // Under the numbers that they have here: in the child no other descriptor can have these.
        command.preserved_fds(descriptors);
        let mut child = command.spawn().map_err(failed)?;
        // Closes them here: locks and sockets end with the program.
        drop(command);
        // Not reaped yet, so the pid cannot be another process's. From here on the pidfd is used.
        match Self::of_pid(child.id())? {
            Some(process) => Ok(process),
            None => {
                let _ = child.wait();
                Err(failed(io::Error::other("it ended at once")))
            }
        }
    }

    /// The process with this pid now, `None` if there is none (or a dead one that was not reaped).
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn of_pid(pid: u32) -> Result<Option<Self>, VmError> {
        let failed = |source| VmError::Process { pid, source };
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let Some(raw) = raw else { return Ok(None) };
        let pidfd = match pidfd_open(raw, PidfdFlags::NONBLOCK) {
            Ok(pidfd) => pidfd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(failed(error.into())),
        };
        // Read after the pidfd was opened: if this is the wanted process, so is the pidfd's.
        let Some(start_time) = start_time(pid) else { return Ok(None) };
        let boot_id = boot_id().map_err(failed)?;
        Ok(Some(Self {
            id: ProcessId { pid, start_time, boot_id },
            pidfd: watched(pidfd).map_err(failed)?,
        }))
    }

    /// The process `id` if it still lives.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn find(id: &ProcessId) -> Result<Option<Self>, VmError> {
        Ok(Self::of_pid(id.pid)?.filter(|process| process.id == *id))
    }

    /// The process whose command line has such an argument: finds a QEMU that was started but not written down.
    ///
    /// # Errors
    /// /proc cannot be read.
    pub fn with_argument(wanted: impl Fn(&[u8]) -> bool) -> Result<Option<Self>, VmError> {
        let entries = fs::read_dir("/proc");
        let entries = entries.map_err(|source| VmError::Process { pid: 0, source })?;
        let pids = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
        for pid in pids {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if command.split(|byte| *byte == 0).any(&wanted) {
                return Self::of_pid(pid);
            }
        }
        Ok(None)
    }

    /// The identity of the process.
    #[must_use]
    pub fn id(&self) -> &ProcessId {
        &self.id
    }

    /// The uid that it runs as, if that is another one than ours.
    #[must_use]
    pub fn other_uid(&self) -> Option<u32> {
        let own = rustix::process::geteuid().as_raw();
        user::uid_of(self.id.pid).filter(|uid| *uid != own)
    }

    /// True if its program's file name has `qemu` in it.
    #[must_use]
    pub fn is_qemu(&self) -> bool {
        let exe = fs::read_link(format!("/proc/{}/exe", self.id.pid)).unwrap_or_default();
        let name = exe.file_name().unwrap_or_default().as_bytes().to_owned();
        name.windows(4).any(|part| part == b"qemu")
    }

    /// Waits until it is dead, and reaps it if it is our child. Cancel safe.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn gone(&self) -> Result<(), VmError> {
        let failed = |source| VmError::Process { pid: self.id.pid, source };
        // Never cleared: a pidfd that is readable stays so.
        drop(self.pidfd.ready(Interest::READABLE).await.map_err(failed)?);
        // Not our child any more after a restart of the agent: then init reaps it.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let _ = waitid(WaitId::PidFd(self.pidfd.get_ref().as_fd()), options);
        Ok(())
    }

    /// Kills it and waits until it is dead.
    ///
    /// Cancel safe: the signal stays sent.
    ///
    /// # Errors
    /// It does not end within 30 s.
    pub async fn kill(&self) -> Result<(), VmError> {
        let pid = self.id.pid;
        match pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(VmError::Process { pid, source: error.into() }),
        }
        timeout(KILL_LIMIT, self.gone()).await.unwrap_or(Err(VmError::WillNotEnd { pid }))
    }
}

#[allow(deprecated, reason = "an OwnedFd keeps what the new, unsafe constructor asks for")]
fn watched(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(pidfd, Interest::READABLE)
}

/// Start time of a process that is not dead: field 22, counted behind the name, which may hold anything.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(dir: &Path, argv: &[&str]) -> Start {
        Start {
            argv: argv.iter().map(Into::into).collect(),
            log: File::options().create(true).append(true).open(dir.join("log")).unwrap(),
            folder: File::open(dir).unwrap(),
            descriptors: Vec::new(),
            user: None,
        }
    }

    fn sleeper(dir: &Path, seconds: &str) -> QemuProcess {
        QemuProcess::spawn(start(dir, &["/bin/sleep", seconds])).unwrap()
    }

    #[tokio::test]
    async fn death_is_told_and_a_reused_pid_is_somebody_else() {
        let temp = tempfile::tempdir().unwrap();
        let process = sleeper(temp.path(), "1000");
        let id = process.id().clone();
        let again = QemuProcess::find(&id).unwrap().unwrap();
        let other = ProcessId { start_time: id.start_time - 1, ..id.clone() };
        assert!(QemuProcess::find(&other).unwrap().is_none());
        let rebooted = ProcessId { boot_id: "x".into(), ..id.clone() };
        assert!(QemuProcess::find(&rebooted).unwrap().is_none());
        let seen = tokio::spawn(async move { again.gone().await });
        process.kill().await.unwrap();
        seen.await.unwrap().unwrap();
        process.kill().await.unwrap();
        assert!(QemuProcess::find(&id).unwrap().is_none());
        assert!(!Path::new(&format!("/proc/{}", id.pid)).exists(), "not reaped");
    }

    #[tokio::test]
    async fn own_session_and_found_by_argument() {
        let temp = tempfile::tempdir().unwrap();
        let process = sleeper(temp.path(), "1000.0625");
        let pid = process.id().pid;
        let found = loop {
            // Until setsid has become sleep its command line has the argument as well.
            if let Some(found) = QemuProcess::with_argument(|part| part == b"1000.0625").unwrap() {
                break found;
            }
        };
        assert_eq!(found.id(), process.id());
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        let session = || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            stat.rsplit(')').next().unwrap().split_whitespace().nth(3).unwrap().to_owned()
        };
        while session() != pid.to_string() {
            assert!(std::time::Instant::now() < deadline, "no session of its own");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        process.kill().await.unwrap();
    }

    #[tokio::test]
    async fn missing_program_is_told() {
        let temp = tempfile::tempdir().unwrap();
        let spawned = QemuProcess::spawn(start(temp.path(), &["/no/qemu"]));
        assert!(matches!(spawned, Err(VmError::Spawn { .. })));
    }

    #[tokio::test]
    async fn a_program_has_what_it_is_given_and_stands_in_its_folder() {
        let temp = tempfile::tempdir().unwrap();
        let (given, kept) = (temp.path().join("given"), temp.path().join("kept"));
        let (given, kept) = (File::create(given).unwrap(), File::create(kept).unwrap());
        let script = format!(
            "pwd -P; cd /proc/self/fd; echo yes >{}; (echo no >{}) 2>&-; exec sleep 1000",
            given.as_raw_fd(),
            kept.as_raw_fd()
        );
        let descriptors = vec![given.into()];
        let start = Start { descriptors, ..start(temp.path(), &["/bin/sh", "-c", &script]) };
        let process = QemuProcess::spawn(start).unwrap();
        let exe = format!("/proc/{}/exe", process.id().pid);
        while !fs::read_link(&exe).unwrap().ends_with("sleep") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(fs::read_to_string(temp.path().join("given")).unwrap(), "yes\n");
        let said = fs::read_to_string(temp.path().join("log")).unwrap();
        assert_eq!(Path::new(said.trim()), temp.path().canonicalize().unwrap());
        assert_eq!(fs::read_to_string(temp.path().join("kept")).unwrap(), "");
        assert_eq!(process.other_uid(), None);
        process.kill().await.unwrap();
    }
}
