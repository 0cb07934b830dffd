//! What outlives the agent: one folder per VM, `vms/NAME/` with `spec.toml`, `status.json`, sockets and
//! log. A folder appears and disappears as a whole, `status.json` is always whole, so the agent may be
//! killed between any two instructions.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rackferry_agent_core::Standing;
use rackferry_migrator::socket::StreamSocket;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::installation::Installation;
use super::{ProcessId, VmError};

/// Longest path of a unix socket.
const SOCKET_PATH_MAX: usize = 107;
/// Begin of the names of folders that are being made or removed.
const UNFINISHED: char = '.';

/// `status.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Whether the VM belongs here, and the migration it takes part in.
    #[serde(flatten)]
    pub standing: Standing,
    /// The VM's QEMU; `None` while it is being started, and if it was started outside of Rackferry and cannot be told.
    pub process: Option<ProcessId>,
    /// Name of its memory; `None` if the agent does not own it.
    pub memfd: Option<String>,
    /// Whether the VM was started outside of Rackferry.
    #[serde(default)]
    pub attached: bool,
    /// The uid of its QEMU, if that has one of its own. An earlier agent drops it: a running QEMU's own word counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
}

/// The state directory, locked against other agents.
#[derive(Debug)]
pub struct StateDir {
    vms: PathBuf,
    installation: Installation,
    /// Holds the lock.
    _lock: File,
}

/// Folder of one VM.
#[derive(Clone, Debug)]
pub struct VmDir {
    path: PathBuf,
}

impl StateDir {
    /// Opens or makes the state directory and removes what was left unfinished.
    ///
    /// # Errors
    /// Another agent uses it, or it cannot be written.
    pub fn open(path: &Path) -> Result<Self, VmError> {
        let vms = path.join("vms");
        fs::create_dir_all(&vms).map_err(at(&vms))?;
        // Monitors of guests, and what they write to their serial ports.
        fs::set_permissions(&vms, fs::Permissions::from_mode(0o700)).map_err(at(&vms))?;
        let vms = vms.canonicalize().map_err(at(&vms))?;
        let lock_path = path.join("lock");
        let lock = File::options().create(true).append(true).open(&lock_path);
        let lock = lock.map_err(at(&lock_path))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| VmError::InUse { path: path.to_owned() })?;
        let installation = Installation::open(path)?;
        let state = Self { vms, installation, _lock: lock };
        for name in state.entries()?.iter().filter(|name| name.starts_with(UNFINISHED)) {
            let path = state.vms.join(name);
            // It is no VM's, and must not keep the agent from starting.
            if let Err(error) = fs::remove_dir_all(&path) {
                warn!(path = %path.display(), %error, "an unfinished folder cannot be removed");
            }
        }
        Ok(state)
    }

    /// What tells this agent from another one with the name of this host.
    #[must_use]
    pub fn installation(&self) -> &str {
        self.installation.id()
    }

    /// Folders of all VMs.
    ///
    /// # Errors
    /// The state directory cannot be read.
    pub fn all(&self) -> Result<Vec<(String, VmDir)>, VmError> {
        let names = self.entries()?.into_iter().filter(|name| !name.starts_with(UNFINISHED));
        Ok(names.map(|name| (name.clone(), self.vm(&name))).collect())
    }

    fn entries(&self) -> Result<Vec<String>, VmError> {
        let entries = fs::read_dir(&self.vms).map_err(at(&self.vms))?;
        entries
            .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_, _>>()
            .map_err(at(&self.vms))
    }

    /// Folder of a VM, whether there is one or not.
    #[must_use]
    pub fn vm(&self, name: &str) -> VmDir {
        VmDir { path: self.vms.join(name) }
    }

    /// Makes the folder of a VM, durable when this returns.
    ///
    /// # Errors
    /// There is one already, its socket paths get too long, or it cannot be written.
    pub fn create(&self, name: &str, spec: &str, status: &Status) -> Result<VmDir, VmError> {
        let dir = self.vm(name);
        let socket = dir.arrival_socket(status.uid).path;
        if socket.as_os_str().len() > SOCKET_PATH_MAX {
            return Err(VmError::PathTooLong { path: socket });
        }
        if dir.path.exists() {
            return Err(VmError::Exists { name: name.to_owned() });
        }
        let new = VmDir { path: self.vms.join(format!("{UNFINISHED}new-{name}")) };
        match fs::remove_dir_all(&new.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(at(&new.path)(error));
            }
            _ => {}
        }
        // A QEMU with a uid of its own may pass, to the one file that is made for it; all others are the agent's. No other
        // user comes even here.
        let mode = if status.uid.is_some() { 0o711 } else { 0o700 };
        make_dir(&new.path, mode).map_err(at(&new.path))?;
        if status.uid.is_some() {
            let run = new.run();
            make_dir(&run, 0o700)
                .and_then(|()| chown(&run, status.uid, status.uid))
                .map_err(at(&run))?;
        }
        write_durably(&new.path, "spec.toml", spec.as_bytes())?;
        new.write_status(status)?;
        fs::rename(&new.path, &dir.path).map_err(at(&dir.path))?;
        sync_dir(&self.vms)?;
        Ok(dir)
    }

    /// Removes the folder of a VM; it vanishes at once, even if this is cut short.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(&self, name: &str) -> Result<(), VmError> {
        let path = self.vms.join(name);
        let gone = self.vms.join(format!("{UNFINISHED}gone-{name}"));
        let _ = fs::remove_dir_all(&gone);
        match fs::rename(&path, &gone) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            renamed => renamed.map_err(at(&path))?,
        }
        sync_dir(&self.vms)?;
        if let Err(error) = fs::remove_dir_all(&gone) {
            warn!(path = %gone.display(), %error, "a removed VM's folder is left");
        }
        Ok(())
    }
}

impl VmDir {
    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// QMP socket of a QEMU we start.
    #[must_use]
    pub fn qmp_socket(&self) -> PathBuf {
        self.path.join("qmp.sock")
    }

    /// The folder that a QEMU with a uid of its own has for itself.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.path.join("run")
    }

    /// The folder that QEMU stands in; `uid` if it has one of its own.
    #[must_use]
    pub fn working_folder(&self, uid: Option<u32>) -> PathBuf {
        if uid.is_some() { self.run() } else { self.path.clone() }
    }

    /// Socket of the migration stream that the agent listens on, when the VM leaves.
    #[must_use]
    pub fn departure_socket(&self, uid: Option<u32>) -> StreamSocket {
        let path = self.path.join("migrate.sock");
        match uid {
            // As QEMU sees it from where it stands.
            Some(_) => StreamSocket { path, qemu_path: "../migrate.sock".into(), uid },
            None => StreamSocket::shared(path),
        }
    }

    /// Socket of the migration stream that QEMU listens on, when the VM arrives.
    #[must_use]
    pub fn arrival_socket(&self, uid: Option<u32>) -> StreamSocket {
        let path = self.working_folder(uid).join("migrate.sock");
        match uid {
            Some(_) => StreamSocket { path, qemu_path: "migrate.sock".into(), uid },
            None => StreamSocket::shared(path),
        }
    }

    /// QEMU's output.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.path.join("qemu.log")
    }

    /// Opens QEMU's output.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn open_log(&self) -> Result<File, VmError> {
        let log = self.log();
        File::options().create(true).append(true).mode(0o600).open(&log).map_err(at(&log))
    }

    /// Last bytes of QEMU's output, for error messages.
    #[must_use]
    pub fn log_tail(&self) -> String {
        const TAIL_BYTES: usize = 2048;
        let log = fs::read(self.log()).unwrap_or_default();
        let tail = &log[log.len().saturating_sub(TAIL_BYTES)..];
        String::from_utf8_lossy(tail).trim().to_owned()
    }

    /// Reads the spec's text.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read_spec(&self) -> Result<String, VmError> {
        let path = self.path.join("spec.toml");
        fs::read_to_string(&path).map_err(at(&path))
    }

    /// Replaces the spec's text, durably.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_spec(&self, spec: &str) -> Result<(), VmError> {
        write_durably(&self.path, "spec.toml", spec.as_bytes())
    }

    /// Reads the status.
    ///
    /// # Errors
    /// It cannot be read, or is of another version.
    pub fn read_status(&self) -> Result<Status, VmError> {
        let path = self.path.join("status.json");
        let text = fs::read(&path).map_err(at(&path))?;
        serde_json::from_slice(&text).map_err(|error| at(&path)(error.into()))
    }

    /// Replaces the status, durably.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_status(&self, status: &Status) -> Result<(), VmError> {
        let text = serde_json::to_vec_pretty(status).map_err(|e| at(&self.path)(e.into()))?;
        write_durably(&self.path, "status.json", &text)
    }
}

pub(super) fn at(path: &Path) -> impl Fn(io::Error) -> VmError {
    let path = path.to_owned();
    move |source| VmError::State { path: path.clone(), source }
}

/// The file is the old or the new one, whatever happens, and the new one when this returns.
pub(crate) fn write_durably(dir: &Path, name: &str, content: &[u8]) -> Result<(), VmError> {
    let path = dir.join(name);
    let new = dir.join(format!("{name}.new"));
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&new).map_err(at(&new))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(at(&new))?;
    fs::rename(&new, &path).map_err(at(&path))?;
    sync_dir(dir)
}

fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().mode(mode).create(path)?;
    // Whatever the umask is.
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn sync_dir(dir: &Path) -> Result<(), VmError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(at(dir))
}

#[cfg(test)]
mod tests {
    use rackferry_agent_core::{Mark, MigrationId, Side};

    use super::*;

    fn status(generation: u64) -> Status {
        let mark = Mark { migration: MigrationId(1), generation: 4, side: Side::Target };
        Status {
            standing: Standing { generation, ..Standing::incoming(mark) },
            process: None,
            memfd: Some("rackferry-a".into()),
            attached: false,
            uid: None,
        }
    }

    #[test]
    fn folders_appear_and_vanish_whole() {
        let temp = tempfile::tempdir().unwrap();
        let state = StateDir::open(temp.path()).unwrap();
        let mode = fs::metadata(temp.path().join("vms")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let dir = state.create("a", "text", &status(1)).unwrap();
        assert!(matches!(state.create("a", "x", &status(1)), Err(VmError::Exists { .. })));
        assert_eq!(dir.read_spec().unwrap(), "text");
        dir.write_status(&status(2)).unwrap();
        assert_eq!(dir.read_status().unwrap(), status(2));
        fs::create_dir(temp.path().join("vms/.new-b")).unwrap();
        drop(state);
        let state = StateDir::open(temp.path()).unwrap();
        assert_eq!(state.all().unwrap().len(), 1);
        assert!(!temp.path().join("vms/.new-b").exists());
        state.remove("a").unwrap();
        state.remove("a").unwrap();
        assert!(state.entries().unwrap().is_empty());
    }

    /// Agents before and after this one read it too.
    #[test]
    fn a_status_has_its_form() {
        let text = r#"{"role":"incoming","generation":1,"migration":{"id":"mig-1","generation":4,"side":"target"},"process":null,"memfd":"rackferry-a","attached":false}"#;
        assert_eq!(serde_json::to_string(&status(1)).unwrap(), text);
        assert_eq!(serde_json::from_str::<Status>(text).unwrap(), status(1));
        let text = r#"{"role":"run","generation":7,"migration":null,"process":null,"memfd":null}"#;
        let standing = Standing::owned(7);
        assert_eq!(serde_json::from_str::<Status>(text).unwrap().standing, standing);
        let own = Status { uid: Some(1_900_000_003), ..status(1) };
        let text = serde_json::to_string(&own).unwrap();
        assert!(text.ends_with(r#""attached":false,"uid":1900000003}"#), "{text}");
        assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), own);
    }

    #[test]
    fn one_agent_per_directory() {
        let temp = tempfile::tempdir().unwrap();
        let _state = StateDir::open(temp.path()).unwrap();
        assert!(matches!(StateDir::open(temp.path()), Err(VmError::InUse { .. })));
    }

    #[test]
    fn long_socket_paths_are_refused() {
        let temp = tempfile::tempdir().unwrap();
        let state = StateDir::open(&temp.path().join("x".repeat(80))).unwrap();
        let made = state.create("a", "", &status(1));
        assert!(matches!(made, Err(VmError::PathTooLong { .. })));
    }
}
