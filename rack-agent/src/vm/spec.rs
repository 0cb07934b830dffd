//! The VM spec file: everything needed to start the same VM on any host.

mod claims;
mod command;
mod needs;

use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use rackferry_migrator::memory::HugePages;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::policy::option_name;

pub use claims::Claims;
pub use command::Launch;
pub(super) use command::is_of;
pub use needs::Needs;

/// Longest spec taken; specs also come from peers.
const SPEC_BYTES_MAX: usize = 64 << 10;
/// Longest name.
const NAME_BYTES_MAX: usize = 63;
/// Most virtual CPUs.
const CPUS_MAX: u32 = 1024;
/// Entries of a dirty ring, as KVM takes them.
const DIRTY_RING: RangeInclusive<u32> = 1024..=65536;
/// Options the agent sets itself; QEMU takes each behind one dash or two.
const OWN_OPTIONS: [&str; 10] =
    ["incoming", "S", "machine", "M", "m", "smp", "name", "daemonize", "mem-path", "accel"];

/// Why a spec is refused.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// Longer than 64 KiB.
    #[error("spec of {bytes} bytes is too long, at most {SPEC_BYTES_MAX} are taken")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Not TOML, or fields missing, unknown or of the wrong type; the text shows the place.
    #[error("{0}")]
    Syntax(#[from] toml::de::Error),
    /// A value that cannot be.
    #[error("line {line}: {field} = {value}: {advice}")]
    Field {
        /// Line of the value, from 1.
        line: usize,
        /// Name of the field.
        field: &'static str,
        /// The value.
        value: String,
        /// What to write instead.
        advice: String,
    },
    /// A spec that was taken cannot be written again.
    #[error("cannot write the spec")]
    Write(#[from] toml::ser::Error),
}

/// A checked spec.
#[derive(Clone, Debug, PartialEq)]
pub struct VmSpec {
    name: String,
    memory_bytes: u64,
    huge_pages: Option<HugePages>,
    serial: Serial,
    fields: Fields,
    text: String,
}

/// The file as it is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    name: Spanned<String>,
    memory: Spanned<String>,
    #[serde(default = "default_machine")]
    machine: String,
    #[serde(default = "default_accel")]
    accel: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dirty_ring: Option<Spanned<u32>>,
    #[serde(default = "default_cpus")]
    cpus: Spanned<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cpu: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hugepages: Option<Spanned<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    serial: Option<Spanned<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    extra_args: Option<Spanned<Vec<String>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    qemu: Option<Qemu>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boot: Option<Boot>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attach: Option<Attach>,
    #[serde(default, rename = "disk", skip_serializing_if = "Vec::is_empty")]
    disks: Vec<Disk>,
    #[serde(default, rename = "nic", skip_serializing_if = "Vec::is_empty")]
    nics: Vec<Nic>,
}

/// A QEMU program.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Qemu {
    /// Path of the binary.
    pub binary: PathBuf,
    /// Folders of firmware, in the order they are searched; empty: built in.
    #[serde(default)]
    pub firmware: Vec<PathBuf>,
}

impl Default for Qemu {
    fn default() -> Self {
        Self { binary: "/usr/bin/qemu-system-x86_64".into(), firmware: Vec::new() }
    }
}

/// Direct boot of a Linux kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Boot {
    kernel: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    initrd: Option<PathBuf>,
    #[serde(default)]
    append: String,
}

/// A virtio disk; its file must be reachable on every host the VM may run on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Image file or block device.
    pub path: PathBuf,
    /// `raw` or `qcow2`.
    #[serde(default)]
    pub format: DiskFormat,
    /// Never written.
    #[serde(default)]
    pub readonly: bool,
}

/// Format of a disk image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskFormat {
    /// Plain bytes.
    #[default]
    Raw,
    /// QEMU's own format.
    Qcow2,
}

/// A virtio network card on a tap device that exists on every host the VM may run on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nic {
    /// Name of the tap device.
    pub tap: String,
    /// Hardware address; part of the VM, so never made up.
    pub mac: String,
}

/// A VM that was started outside of Rackferry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attach {
    /// Its QMP socket, with no other client.
    pub qmp: PathBuf,
}

/// Where the guest's serial port goes; a relative path lies in the VM's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Serial {
    None,
    File(PathBuf),
    Unix(PathBuf),
}

/// What a Linux guest is booted from.
#[derive(Clone, Copy, Debug)]
pub(super) struct BootFiles<'a> {
    pub(super) kernel: &'a Path,
    pub(super) initrd: Option<&'a Path>,
}

fn default_machine() -> String {
    "q35".to_owned()
}

fn default_accel() -> String {
    "tcg".to_owned()
}

fn default_cpus() -> Spanned<u32> {
    Spanned::new(0..0, 1)
}

impl VmSpec {
    /// Reads and checks a spec.
    ///
    /// # Errors
    /// What is wrong, where, and what to write instead.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        if text.len() > SPEC_BYTES_MAX {
            return Err(SpecError::TooLong { bytes: text.len() });
        }
        let fields: Fields = toml::from_str(text)?;
        Self::check(fields, text)
    }

    fn check(fields: Fields, text: &str) -> Result<Self, SpecError> {
        let at = Place { text };
        check_name(&at, &fields.name)?;
        let huge_pages = fields.hugepages.as_ref().map(|size| huge_pages(&at, size)).transpose()?;
        let memory_bytes = memory_bytes(&at, &fields.memory, huge_pages)?;
        let serial = serial(&at, fields.serial.as_ref())?;
        let cpus = *fields.cpus.get_ref();
        if !(1..=CPUS_MAX).contains(&cpus) {
            return Err(at.refuse("cpus", &fields.cpus, format!("take 1 to {CPUS_MAX}")));
        }
        if let Some(args) = &fields.extra_args {
            check_extra_args(&at, args)?;
        }
        if let Some(ring) = &fields.dirty_ring {
            check_dirty_ring(&at, ring, &fields.accel)?;
        }
        Ok(Self {
            name: fields.name.get_ref().clone(),
            memory_bytes,
            huge_pages,
            serial,
            text: text.to_owned(),
            fields,
        })
    }

    /// The same spec with the machine type QEMU really made, e.g. `pc-q35-7.2` for `q35`, and its options: another
    /// version of QEMU would take the short name for another machine.
    ///
    /// # Errors
    /// It cannot be written as TOML.
    pub fn with_machine(&self, machine: &str) -> Result<Self, SpecError> {
        let machine = match self.fields.machine.split_once(',') {
            Some((_, options)) => format!("{machine},{options}"),
            None => machine.to_owned(),
        };
        let fields = Fields { machine, ..self.fields.clone() };
        Self::parse(&toml::to_string(&fields)?)
    }

    /// Name of the VM, unique in the fleet.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes of guest memory.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// Pages behind the guest memory when it is started by us.
    #[must_use]
    pub fn huge_pages(&self) -> Option<HugePages> {
        self.huge_pages
    }

    /// Machine type as written.
    #[must_use]
    pub fn machine(&self) -> &str {
        &self.fields.machine
    }

    pub(super) fn serial(&self) -> &Serial {
        &self.serial
    }

    pub(super) fn boot_files(&self) -> Option<BootFiles<'_>> {
        let boot = self.fields.boot.as_ref()?;
        Some(BootFiles { kernel: &boot.kernel, initrd: boot.initrd.as_deref() })
    }

    pub(super) fn disks(&self) -> &[Disk] {
        &self.fields.disks
    }

    /// The file in the VM's folder that its serial port writes to; none if that is elsewhere, and its operator's to keep.
    pub(super) fn serial_log(&self, dir: &Path) -> Option<PathBuf> {
        match &self.serial {
            Serial::File(path) if Some(path.as_os_str()) == path.file_name() => {
                Some(dir.join(path))
            }
            _ => None,
        }
    }

    /// How to reach the VM if it was started outside of Rackferry.
    #[must_use]
    pub fn attach(&self) -> Option<&Attach> {
        self.fields.attach.as_ref()
    }

    /// The TOML text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// Finds lines for complaints.
struct Place<'a> {
    text: &'a str,
}

impl Place<'_> {
    fn refuse<T: fmt::Debug>(
        &self,
        field: &'static str,
        value: &Spanned<T>,
        advice: impl Into<String>,
    ) -> SpecError {
        let before = self.text.get(..value.span().start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        SpecError::Field {
            line,
            field,
            value: format!("{:?}", value.get_ref()),
            advice: advice.into(),
        }
    }
}

fn check_name(at: &Place<'_>, name: &Spanned<String>) -> Result<(), SpecError> {
    let text = name.get_ref();
    let known =
        |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'_' | b'.');
    let fits = (1..=NAME_BYTES_MAX).contains(&text.len());
    if fits && text.bytes().all(known) && !text.starts_with('.') {
        return Ok(());
    }
    let advice = "use 1 to 63 of a-z 0-9 - _ . and do not begin with a dot";
    Err(at.refuse("name", name, advice))
}

fn check_extra_args(at: &Place<'_>, args: &Spanned<Vec<String>>) -> Result<(), SpecError> {
    let is_own = |arg: &&String| option_name(arg).is_some_and(|name| OWN_OPTIONS.contains(&name));
    let own = args.get_ref().iter().find(is_own);
    own.map_or(Ok(()), |option| {
        let advice = format!("{option} is set by the agent, use the spec's own fields");
        Err(at.refuse("extra_args", args, advice))
    })
}

fn check_dirty_ring(at: &Place<'_>, ring: &Spanned<u32>, accel: &str) -> Result<(), SpecError> {
    let entries = *ring.get_ref();
    if accel != "kvm" {
        return Err(at.refuse("dirty_ring", ring, "needs accel = \"kvm\""));
    }
    if !DIRTY_RING.contains(&entries) || !entries.is_power_of_two() {
        let advice = "take a power of two from 1024 to 65536, or leave it out";
        return Err(at.refuse("dirty_ring", ring, advice));
    }
    Ok(())
}

fn huge_pages(at: &Place<'_>, size: &Spanned<String>) -> Result<HugePages, SpecError> {
    match size.get_ref().as_str() {
        "2MiB" => Ok(HugePages::TwoMiB),
        "1GiB" => Ok(HugePages::OneGiB),
        _ => Err(at.refuse("hugepages", size, "take \"2MiB\" or \"1GiB\", or leave it out")),
    }
}

fn memory_bytes(
    at: &Place<'_>,
    memory: &Spanned<String>,
    huge: Option<HugePages>,
) -> Result<u64, SpecError> {
    let text = memory.get_ref().as_str();
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];
    let parsed = units.iter().find_map(|(unit, shift)| {
        let number: u64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
        number.checked_mul(1 << shift)
    });
    let unit = huge.map_or(4 << 10, HugePages::bytes);
    match parsed {
        Some(bytes) if bytes > 0 && bytes.is_multiple_of(unit) && bytes <= 1 << 46 => Ok(bytes),
        Some(_) => {
            let unit = if huge.is_some() { format!("{} MiB", unit >> 20) } else { "4 KiB".into() };
            let advice = format!("take a positive multiple of {unit}");
            Err(at.refuse("memory", memory, advice))
        }
        None => Err(at.refuse("memory", memory, "write a size like \"256MiB\" or \"4GiB\"")),
    }
}

fn serial(at: &Place<'_>, serial: Option<&Spanned<String>>) -> Result<Serial, SpecError> {
    let Some(written) = serial else { return Ok(Serial::File("serial.log".into())) };
    match written.get_ref().split_once(':') {
        Some(("file", path)) if !path.is_empty() => Ok(Serial::File(path.into())),
        Some(("unix", path)) if !path.is_empty() => Ok(Serial::Unix(path.into())),
        None if written.get_ref() == "none" => Ok(Serial::None),
        _ => {
            let advice = "write \"file:PATH\", \"unix:PATH\" (a relative path lies in the VM's \
                          state directory) or \"none\"";
            Err(at.refuse("serial", written, advice))
        }
    }
}

#[cfg(test)]
mod tests;
