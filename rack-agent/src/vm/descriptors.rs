//! What a QEMU is given open: its user has no rights to files of the host, so the agent opens them, once the host's policy has
//! been asked. QEMU finds each under the number that it has here; the numbers go into its arguments.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::try_join_all;
use rackferry_migrator::memory::GuestMemory;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tun_rs::{DeviceBuilder, Layer};

use super::spec::{BootFiles, Serial};
use super::{Disk, VmDir, VmError, VmSpec};
use crate::storage::Storage;

/// Longest kernel or initrd that is copied.
const COPY_BYTES_MAX: u64 = 1 << 30;
/// Opening, and copying, may take longer than a look at storage: the policy has looked at the same files before.
const OPEN_LIMIT: Duration = Duration::from_secs(10);

/// The numbers of what a QEMU has open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Descriptors {
    /// The socket of its monitor, bound; QEMU listens.
    pub qmp: RawFd,
    /// The guest's memory.
    pub memory: RawFd,
    /// Its log once more, so that an argument has the log's path: by it the agent finds a QEMU that it has not written down.
    pub log: RawFd,
    /// File, or bound socket, of the serial port.
    pub serial: Option<RawFd>,
    /// Kernel, and initrd.
    pub boot: Option<(RawFd, Option<RawFd>)>,
    /// Disks, in the order of the spec.
    pub disks: Vec<OpenDisk>,
    /// Tap devices, in the order of the spec.
    pub taps: Vec<RawFd>,
}

/// A disk that is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenDisk {
    /// For reading.
    pub read: RawFd,
    /// For reading and writing, unless it is never written.
    pub write: Option<RawFd>,
    /// A block device: QEMU has another driver for it.
    pub is_device: bool,
}

/// The descriptors, and their numbers; they are open until this is dropped.
#[derive(Debug, Default)]
pub(super) struct Opened {
    pub(super) numbers: Descriptors,
    pub(super) all: Vec<OwnedFd>,
}

impl Opened {
    /// Opens everything that a QEMU of this spec needs. Storage may not answer: within its limits. Cancel safe.
    pub(super) async fn of(
        spec: &VmSpec,
        dir: &VmDir,
        memory: &GuestMemory,
        log: &File,
        storage: &Storage,
    ) -> Result<Self, VmError> {
        let opening = Opening { vm: spec.name(), storage };
        let mut opened = Self::default();
        let own = |path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| VmError::State { path, source }
        };
        let qmp = dir.qmp_socket();
        opened.numbers.qmp = opened.keep(bind(&qmp).map_err(own(&qmp))?);
        // Opened anew: flags of the agent's own descriptor are not QEMU's to set.
        let memory = memory.proc_path();
        let again = File::options().read(true).write(true).open(&memory);
        opened.numbers.memory = opened.keep(again.map_err(own(&memory))?);
        opened.numbers.log = opened.keep(log.try_clone().map_err(own(dir.path()))?);
        if let Some(serial) = opening.serial(spec.serial(), dir.path()).await? {
            opened.numbers.serial = Some(opened.keep(serial));
        }
        if let Some(BootFiles { kernel, initrd }) = spec.boot_files() {
            let kernel = opened.keep(opening.readable(kernel).await?);
            let initrd = match initrd {
                Some(initrd) => Some(opened.keep(opening.readable(initrd).await?)),
                None => None,
            };
            opened.numbers.boot = Some((kernel, initrd));
        }
        for disk in try_join_all(spec.disks().iter().map(|disk| opening.disk(disk))).await? {
            let (read, write) = (opened.keep(disk.read), disk.write.map(|fd| opened.keep(fd)));
            opened.numbers.disks.push(OpenDisk { read, write, is_device: disk.is_device });
        }
        for name in spec.needs().taps {
            let tap = opened.keep(opening.tap(name)?);
            opened.numbers.taps.push(tap);
        }
        Ok(opened)
    }

    fn keep(&mut self, fd: impl Into<OwnedFd>) -> RawFd {
        let fd = fd.into();
        let number = fd.as_raw_fd();
        self.all.push(fd);
        number
    }
}

struct Opening<'a> {
    vm: &'a str,
    storage: &'a Storage,
}

struct DiskFiles {
    read: File,
    write: Option<File>,
    is_device: bool,
}

impl Opening<'_> {
    async fn ask<T: Send + 'static>(
        &self,
        path: &Path,
        call: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, VmError> {
        let asked = self.storage.ask_within(OPEN_LIMIT, path, call).await;
        asked.map_err(|source| VmError::Open {
            name: self.vm.to_owned(),
            path: path.to_owned(),
            source,
        })
    }

    async fn disk(&self, disk: &Disk) -> Result<DiskFiles, VmError> {
        let writable = !disk.readonly;
        let open = move |path: &Path| {
            let read = File::open(path)?;
            let open_again = || OpenOptions::new().read(true).write(true).open(path);
            let write = writable.then(open_again).transpose()?;
            let is_device = read.metadata()?.file_type().is_block_device();
            Ok(DiskFiles { read, write, is_device })
        };
        self.ask(&disk.path, open).await
    }

    async fn serial(&self, serial: &Serial, dir: &Path) -> Result<Option<OwnedFd>, VmError> {
        match serial {
            Serial::None => Ok(None),
            // Appending keeps what another QEMU of this VM has written.
            Serial::File(path) => {
                let open =
                    |path: &Path| File::options().create(true).append(true).mode(0o600).open(path);
                Ok(Some(self.ask(&dir.join(path), open).await?.into()))
            }
            Serial::Unix(path) => Ok(Some(self.ask(&dir.join(path), bind).await?)),
        }
    }

    /// A file that QEMU opens again, by the number of its descriptor: the kernel then asks whether QEMU's user may read it.
    async fn readable(&self, path: &Path) -> Result<File, VmError> {
        self.ask(path, |path| {
            let file = File::open(path)?;
            let others_read = file.metadata()?.mode() & 0o004 != 0;
            if others_read { Ok(file) } else { copied(file) }
        })
        .await
    }

    fn tap(&self, name: &str) -> Result<OwnedFd, VmError> {
        open_tap(name).map_err(|source| VmError::Tap {
            name: self.vm.to_owned(),
            tap: name.to_owned(),
            source,
        })
    }
}

/// The same in memory that any user may read who is given it.
fn copied(file: File) -> io::Result<File> {
    let bytes = file.metadata()?.len();
    if bytes > COPY_BYTES_MAX {
        let why = format!(
            "root alone may read it, and with {bytes} bytes it is too long to be copied: chmod o+r"
        );
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    let memfd = memfd_create("rackferry-boot", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut copy = File::from(memfd);
    io::copy(&mut io::Read::take(file, COPY_BYTES_MAX), &mut copy)?;
    fcntl_add_seals(
        &copy,
        SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL,
    )?;
    Ok(copy)
}

/// A socket with this name on which QEMU will listen. One that an earlier QEMU has left is replaced.
fn bind(path: &Path) -> io::Result<OwnedFd> {
    if fs::symlink_metadata(path).is_ok_and(|about| about.file_type().is_socket()) {
        fs::remove_file(path)?;
    }
    let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// Opens a tap device as QEMU itself would: with headers that tell of offloads, which a VM that arrives may want. Its owner and
/// the device's state stay as they are.
fn open_tap(name: &str) -> io::Result<OwnedFd> {
    use rustix::net::{netdevice, socket};
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    // The kernel would make one.
    netdevice::name_to_index(&any, name)?;
    let device = DeviceBuilder::default().name(name).layer(Layer::L2).offload(true);
    device.build_sync()?.as_fd().try_clone_to_owned()
}

/// The path by which a process opens one of its own descriptors anew.
pub(super) fn own_path(number: RawFd) -> PathBuf {
    format!("/proc/self/fd/{number}").into()
}

/// A value of QEMU's option that adds a descriptor to a set. `what` is for people, in `ps` and `query-fdsets`.
pub(super) fn added(number: RawFd, set: usize, what: &OsString) -> OsString {
    let mut value = OsString::from(format!("fd={number},set={set},opaque="));
    value.push(what);
    value
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn what_root_alone_may_read_is_copied_and_the_rest_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vmlinuz");
        fs::write(&path, "kernel").unwrap();
        let storage = Storage::default();
        let opening = Opening { vm: "web", storage: &storage };
        for (mode, is_copied) in [(0o644, false), (0o600, true), (0o640, true)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let file = opening.readable(&path).await.unwrap();
            let is_other = file.metadata().unwrap().ino() != fs::metadata(&path).unwrap().ino();
            assert_eq!(is_other, is_copied, "{mode:o}");
            let mut content = String::new();
            let again = File::open(own_path(file.as_raw_fd()));
            again.unwrap().read_to_string(&mut content).unwrap();
            assert_eq!(content, "kernel");
            assert!(file.metadata().unwrap().mode() & 0o004 != 0, "others may read it");
        }
        let absent = opening.readable(&folder.path().join("absent")).await.unwrap_err();
        assert!(absent.to_string().contains("absent"), "{absent}");
    }

    #[test]
    fn a_socket_is_replaced_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("qmp.sock");
        drop(bind(&path).unwrap());
        bind(&path).unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "mine").unwrap();
        bind(&file).unwrap_err();
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    }

    #[test]
    fn a_tap_that_is_not_there_is_not_made() {
        let error = open_tap("rf-no-such-tap").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::NODEV.raw_os_error()), "{error}");
    }
}
