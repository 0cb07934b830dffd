use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::{DiskFormat, Qemu, Serial, VmSpec};

/// What a spec needs to know to become a command line on one host.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// QEMU to use if the spec names none.
    pub qemu: &'a Qemu,
    /// File of the guest memory, e.g. `/proc/AGENT/fd/N`.
    pub memory: &'a Path,
    /// QMP socket to be made.
    pub qmp: &'a Path,
    /// Folder that relative paths of the serial port lie in.
    pub dir: &'a Path,
    /// Wait for a migration.
    pub incoming: bool,
    /// Confine QEMU by seccomp.
    pub sandbox: bool,
}

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
        argv.option("-object", self.memory_backend(launch.memory));
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
        argv.option("-qmp", qmp_argument(launch.qmp));
        self.push_serial(&mut argv, launch.dir);
        self.push_devices(&mut argv);
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

    fn push_serial(&self, argv: &mut Argv, dir: &Path) {
        let (kind, path, end) = match &self.serial {
            Serial::None => return argv.option("-serial", "none"),
            // Appending keeps what another QEMU of this VM has written.
            Serial::File(path) => ("file", path, ",append=on"),
            Serial::Unix(path) => ("socket", path, ON),
        };
        let start = format!("{kind},id=serial0,path=");
        let path = escaped(&dir.join(path));
        argv.option("-chardev", joined([start.as_ref(), &path, end.as_ref()]));
        argv.option("-serial", "chardev:serial0");
    }

    fn push_devices(&self, argv: &mut Argv) {
        if let Some(boot) = &self.fields.boot {
            argv.option("-kernel", &boot.kernel);
            if let Some(initrd) = &boot.initrd {
                argv.option("-initrd", initrd);
            }
            argv.option("-append", &boot.append);
        }
        for (n, disk) in self.fields.disks.iter().enumerate() {
            let format = match disk.format {
                DiskFormat::Raw => "raw",
                DiskFormat::Qcow2 => "qcow2",
            };
            let readonly = if disk.readonly { "on" } else { "off" };
            let start = format!(
                "driver={format},node-name=disk{n},read-only={readonly},\
                 file.driver=file,file.filename="
            );
            argv.option("-blockdev", joined([start.as_ref(), &escaped(&disk.path)]));
            argv.option("-device", format!("virtio-blk-pci,id=vd{n},drive=disk{n}"));
        }
        for (n, nic) in self.fields.nics.iter().enumerate() {
            let tap = escaped(nic.tap.as_ref());
            let start = format!("tap,id=net{n},script=no,downscript=no,ifname=");
            argv.option("-netdev", joined([start.as_ref(), &tap]));
            let mac = nic.mac.replace(',', ",,");
            argv.option("-device", format!("virtio-net-pci,id=nic{n},netdev=net{n},mac={mac}"));
        }
    }
}

/// The argument that tells our QEMU at this socket from all others.
pub(in crate::vm) fn qmp_argument(socket: &Path) -> OsString {
    joined(["unix:".as_ref(), &escaped(socket), ON.as_ref()])
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
