use std::ffi::{OsStr, OsString};
use std::os::fd::RawFd;
use std::path::Path;

use super::{DiskFormat, Qemu, Serial, VmSpec};
use crate::vm::descriptors::{Descriptors, added, own_path};

/// What a spec needs to know to become a command line on one host.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// QEMU to use if the spec names none.
    pub qemu: &'a Qemu,
    /// What QEMU has open.
    pub descriptors: &'a Descriptors,
    /// QEMU's log, by which it is found again.
    pub log: &'a Path,
    /// Wait for a migration.
    pub incoming: bool,
    /// Confine QEMU by seccomp.
    pub sandbox: bool,
}

/// Sets of descriptors, as QEMU numbers them: its log, its serial port, its first disk.
const LOG_SET: usize = 0;
/// See [`LOG_SET`].
const SERIAL_SET: usize = 1;
/// See [`LOG_SET`].
const DISK_SET: usize = 2;

/// QEMU starts no programs, and changes neither privileges nor scheduling.
const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

impl VmSpec {
    /// The program and its arguments. QEMU is started stopped (`-S`), also for a first boot, so that it
    /// never runs before it is written down. Devices are the same with and without `incoming`.
    #[must_use]
    pub fn to_command(&self, launch: &Launch<'_>) -> Vec<OsString> {
        let qemu = self.fields.qemu.as_ref().unwrap_or(launch.qemu);
        let mut argv = Argv(vec![qemu.binary.clone().into_os_string()]);
        for folder in &qemu.firmware {
            argv.option("-L", folder);
        }
        // Threads with names: an operator on the host sees what is the guest's and what is QEMU's.
        argv.option("-name", format!("{},debug-threads=on", self.name));
        argv.flags(&["-nodefaults", "-no-user-config", "-S", "-display", "none"]);
        if launch.sandbox {
            argv.option("-sandbox", SANDBOX);
        }
        let open = launch.descriptors;
        argv.option("-add-fd", log_argument(open.log, launch.log));
        argv.option("-object", self.memory_backend(&own_path(open.memory)));
        let fields = &self.fields;
        let (machine, accel) = (&fields.machine, &fields.accel);
        if let Some(entries) = &fields.dirty_ring {
            // An accelerator's own options do not go into -machine, and QEMU takes only one of the two forms.
            argv.option("-machine", format!("{machine},memory-backend=pc.ram"));
            let entries = entries.get_ref();
            argv.option("-accel", format!("{accel},dirty-ring-size={entries}"));
        } else {
            argv.option("-machine", format!("{machine},accel={accel},memory-backend=pc.ram"));
        }
        argv.option("-m", format!("size={}k", self.memory_bytes >> 10));
        argv.option("-smp", fields.cpus.get_ref().to_string());
        if let Some(cpu) = &fields.cpu {
            argv.option("-cpu", self.cpu_model(cpu));
        }
        argv.option("-chardev", format!("socket,id=rackferry-qmp,fd={}{ON}", open.qmp));
        argv.option("-mon", "chardev=rackferry-qmp,mode=control");
        self.push_serial(&mut argv, open);
        self.push_boot(&mut argv, open);
        self.push_devices(&mut argv, open);
        for argument in fields.extra_args.iter().flat_map(|args| args.get_ref()) {
            argv.0.push(argument.into());
        }
        if launch.incoming {
            argv.option("-incoming", "defer");
        }
        argv.0
    }

    /// QEMU's block of this memory is named `pc.ram`, as with a plain `-m`.
    fn memory_backend(&self, path: &Path) -> OsString {
        let size = format!(",share=on,size={},prealloc=off", self.memory_bytes);
        let start = "memory-backend-file,id=pc.ram,mem-path=".as_ref();
        joined([start, &escaped(path), size.as_ref()])
    }

    /// Under KVM a model leaves out what the host's CPU lacks, so that a guest would lose features when it moves: QEMU has to
    /// refuse to start it instead, unless the spec says otherwise.
    fn cpu_model(&self, cpu: &str) -> String {
        let named = !matches!(cpu.split(',').next(), Some("host" | "max"));
        let silent = !cpu.split(',').any(|option| option.starts_with("enforce"));
        if self.needs().kvm && named && silent { format!("{cpu},enforce") } else { cpu.to_owned() }
    }

    fn push_serial(&self, argv: &mut Argv, open: &Descriptors) {
        match (&self.serial, open.serial) {
            (Serial::File(path), Some(fd)) => {
                argv.option("-add-fd", added(fd, SERIAL_SET, &escaped(path)));
                let file = format!("file,id=serial0,path=/dev/fdset/{SERIAL_SET},append=on");
                argv.option("-chardev", file);
            }
            (Serial::Unix(_), Some(fd)) => {
                argv.option("-chardev", format!("socket,id=serial0,fd={fd}{ON}"));
            }
            _ => return argv.option("-serial", "none"),
        }
        argv.option("-serial", "chardev:serial0");
    }

    fn push_boot(&self, argv: &mut Argv, open: &Descriptors) {
        if let (Some(boot), Some((kernel, initrd))) = (&self.fields.boot, open.boot) {
            argv.option("-kernel", own_path(kernel));
            if let Some(initrd) = initrd {
                argv.option("-initrd", own_path(initrd));
            }
            argv.option("-append", &boot.append);
        }
    }

    fn push_devices(&self, argv: &mut Argv, open: &Descriptors) {
        for (n, (disk, fds)) in self.fields.disks.iter().zip(&open.disks).enumerate() {
            let format = match disk.format {
                DiskFormat::Raw => "raw",
                DiskFormat::Qcow2 => "qcow2",
            };
            let (readonly, set) = (if disk.readonly { "on" } else { "off" }, DISK_SET + n);
            let driver = if fds.is_device { "host_device" } else { "file" };
            // QEMU takes of the set the one that is open as it needs it.
            for fd in [Some(fds.read), fds.write].into_iter().flatten() {
                argv.option("-add-fd", added(fd, set, &escaped(&disk.path)));
            }
            let node = format!(
                "driver={format},node-name=disk{n},read-only={readonly},\
                 file.driver={driver},file.filename=/dev/fdset/{set}"
            );
            argv.option("-blockdev", node);
            argv.option("-device", format!("virtio-blk-pci,id=vd{n},drive=disk{n}"));
        }
        for (n, (nic, fd)) in self.fields.nics.iter().zip(&open.taps).enumerate() {
            argv.option("-netdev", format!("tap,id=net{n},fd={fd}"));
            let mac = nic.mac.replace(',', ",,");
            argv.option("-device", format!("virtio-net-pci,id=nic{n},netdev=net{n},mac={mac}"));
        }
    }
}

fn log_argument(fd: RawFd, log: &Path) -> OsString {
    added(fd, LOG_SET, &escaped(log))
}

/// Whether an argument tells the QEMU with this log and this monitor from all others. Those of earlier agents have the monitor
/// in theirs.
pub(in crate::vm) fn is_of(argument: &[u8], log: &Path, monitor: &Path) -> bool {
    let log = joined([",opaque=".as_ref(), &escaped(log)]);
    let earlier = joined(["unix:".as_ref(), &escaped(monitor), ON.as_ref()]);
    let start = format!(",set={LOG_SET},");
    let has_set = argument.windows(start.len()).any(|part| part == start.as_bytes());
    (has_set && argument.ends_with(log.as_encoded_bytes()))
        || argument == earlier.as_encoded_bytes()
}

/// A socket QEMU listens on without waiting for a client.
const ON: &str = ",server=on,wait=off";

struct Argv(Vec<OsString>);

impl Argv {
    fn flags(&mut self, flags: &[&str]) {
        self.0.extend(flags.iter().map(OsString::from));
    }

    fn option(&mut self, name: &str, value: impl AsRef<OsStr>) {
        self.0.push(name.into());
        self.0.push(value.as_ref().to_owned());
    }
}

fn joined<const N: usize>(parts: [&OsStr; N]) -> OsString {
    parts.into_iter().collect()
}

/// QEMU takes two commas for one inside of a value.
fn escaped(path: &Path) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut bytes = Vec::with_capacity(path.as_os_str().len());
    for byte in path.as_os_str().as_bytes() {
        bytes.extend(std::iter::repeat_n(*byte, if *byte == b',' { 2 } else { 1 }));
    }
    OsString::from_vec(bytes)
}
