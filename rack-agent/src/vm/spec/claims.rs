use std::path::Path;

use super::{Qemu, Serial, VmSpec};

/// What a spec would have of its host: what a policy looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims<'a> {
    /// QEMU, if the spec names one.
    pub qemu: Option<&'a Qemu>,
    /// Files and devices, by field.
    pub files: Vec<(&'static str, &'a Path)>,
    /// File or socket of the serial port; a relative path lies in the VM's folder.
    pub serial: Option<&'a Path>,
    /// Fields that go into QEMU's own arguments as they are.
    pub arguments: Vec<(&'static str, &'a str)>,
    /// Further arguments.
    pub extra_args: &'a [String],
}

impl VmSpec {
    /// What the spec would have of its host.
    #[must_use]
    pub fn claims(&self) -> Claims<'_> {
        let fields = &self.fields;
        let boot = fields.boot.iter().flat_map(|boot| {
            let initrd = boot.initrd.as_deref().map(|path| ("boot.initrd", path));
            [Some(("boot.kernel", boot.kernel.as_path())), initrd]
        });
        let disks = fields.disks.iter().map(|disk| ("disk.path", disk.path.as_path()));
        let cpu = fields.cpu.as_deref().map(|cpu| ("cpu", cpu));
        let own = [("machine", fields.machine.as_str()), ("accel", fields.accel.as_str())];
        Claims {
            qemu: fields.qemu.as_ref(),
            files: boot.flatten().chain(disks).collect(),
            serial: match &self.serial {
                Serial::None => None,
                Serial::File(path) | Serial::Unix(path) => Some(path),
            },
            arguments: own.into_iter().chain(cpu).collect(),
            extra_args: fields.extra_args.as_ref().map_or(&[], |args| args.get_ref().as_slice()),
        }
    }
}
