use std::path::Path;

use super::{Qemu, VmSpec};

/// What a host must have for a spec, beside memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs<'a> {
    /// Machine type.
    pub machine: &'a str,
    /// QEMU, if the spec names one.
    pub qemu: Option<&'a Qemu>,
    /// CPU model with its options, if the spec names one.
    pub cpu: Option<&'a str>,
    /// Accelerator, as QEMU takes it.
    pub accel: &'a str,
    /// Hardware virtualisation.
    pub kvm: bool,
    /// The guest sees the host's own CPU, so the next host must have all its features.
    pub host_cpu: bool,
    /// Files, and whether they are written.
    pub files: Vec<(&'a Path, bool)>,
    /// Tap devices.
    pub taps: Vec<&'a str>,
}

impl VmSpec {
    /// What a host must have for it. Of a VM that was started outside of Rackferry only the spec is known.
    #[must_use]
    pub fn needs(&self) -> Needs<'_> {
        let fields = &self.fields;
        let kvm = fields.accel.split([',', ':']).any(|accel| accel == "kvm");
        let model = fields.cpu.as_deref().and_then(|cpu| cpu.split(',').next());
        let boot = fields.boot.iter().flat_map(|boot| [Some(&boot.kernel), boot.initrd.as_ref()]);
        let boot = boot.flatten().map(|path| (path.as_path(), false));
        let disks = fields.disks.iter().map(|disk| (disk.path.as_path(), !disk.readonly));
        Needs {
            machine: fields.machine.split(',').next().unwrap_or_default(),
            qemu: fields.qemu.as_ref(),
            cpu: fields.cpu.as_deref(),
            accel: &fields.accel,
            kvm,
            host_cpu: kvm && matches!(model, Some("host" | "max")),
            files: boot.chain(disks).collect(),
            taps: fields.nics.iter().map(|nic| nic.tap.as_str()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_says_what_it_needs() {
        let text = "name = 'a'\nmemory = '64MiB'\naccel = 'kvm'\ncpu = 'host,-x2apic'\n[boot]\nkernel = '/k'\n\
                    [[disk]]\npath = '/d'\n[[nic]]\ntap = 't0'\nmac = '52:54:00:00:00:01'\n";
        let spec = VmSpec::parse(text).unwrap();
        let needs = spec.needs();
        assert!(needs.kvm && needs.host_cpu);
        assert_eq!(needs.files, [(Path::new("/k"), false), (Path::new("/d"), true)]);
        assert_eq!((needs.cpu, needs.accel), (Some("host,-x2apic"), "kvm"));
        assert_eq!((needs.machine, needs.taps), ("q35", vec!["t0"]));
    }

    #[test]
    fn an_emulated_cpu_is_the_same_everywhere() {
        let spec = VmSpec::parse("name = 'a'\nmemory = '64MiB'\ncpu = 'max'\n").unwrap();
        assert!(!spec.needs().kvm && !spec.needs().host_cpu);
    }
}
