//! The lab's VMs: what they are, how QEMU is started for them.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::image::{self, Qemu, text};
use crate::lab::accel::Accel;
use crate::lab::heartbeat::SERIAL;
use crate::lab::qmp::Qmp;
use crate::lab::topology::Host;
use crate::procs::Process;

/// The oldest machine type that both QEMUs of the lab have: guests may move between them.
pub const MACHINE: &str = "pc-q35-7.2";
/// A pause is the gap between two beats less this, and guest time stands still in it: a slower heartbeat
/// measures as well, and 24 idle guests leave the machine to the processes that are measured.
const HEARTBEAT: Duration = Duration::from_millis(50);

/// The lab's own monitor of a VM that an agent runs: an abstract socket of this name and the VM's.
pub(crate) const MONITOR: &str = "rf-monitor-";

/// How a guest fills and uses its memory; `tests/guest` has the details.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    /// Same disk everywhere, files in the page cache, a few services, little activity.
    Idle,
    /// As `Idle` moments after boot: hardly any private data.
    Template,
    /// As `Idle` with a working set that is rewritten all the time.
    Busy,
    /// Four disks, and as much private data that compresses like a heap.
    Mixed,
    /// Random private data.
    Unique,
    /// Touched, and zero.
    Zero,
    /// A working set rewritten and checked in sleeps of 2 ms by PID 1 alone: notices writes that QEMU does not track.
    Hot,
}

impl Profile {
    /// Every profile.
    pub const ALL: [Self; 7] =
        [Self::Idle, Self::Template, Self::Busy, Self::Mixed, Self::Unique, Self::Zero, Self::Hot];
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::Template => "template",
            Self::Busy => "busy",
            Self::Mixed => "mixed",
            Self::Unique => "unique",
            Self::Zero => "zero",
            Self::Hot => "hot",
        })
    }
}

impl std::str::FromStr for Profile {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|profile| profile.to_string() == name);
        found.ok_or_else(|| anyhow::anyhow!("unknown profile {name}"))
    }
}

/// What the guest is told on its kernel command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// How memory is filled and used.
    pub profile: Profile,
    /// MiB that the profile fills.
    pub fill_mib: u32,
    /// MiB of the working set of `busy` and `hot`.
    pub wss_mib: u32,
    /// KiB per second that `busy` and `hot` rewrite.
    pub rate_kib: u32,
    /// What makes its private data its own.
    pub seed: u64,
    /// Time between two heartbeats.
    pub heartbeat: Duration,
}

/// A VM that can be started on any host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmDef {
    /// Unique in the lab.
    pub name: String,
    /// Which QEMU starts it.
    pub qemu: Qemu,
    /// What runs its instructions.
    pub accel: Accel,
    /// MiB of guest memory.
    pub memory_mib: u32,
    /// Has two pages more, see [`VmDef::uneven`].
    pub uneven: bool,
    /// Which of the disks of [`image::disk`] it reads.
    pub disk: usize,
    /// What the guest does.
    pub guest: Guest,
}

/// A VM's spec file as agents read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Spec {
    name: String,
    memory: String,
    machine: &'static str,
    accel: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dirty_ring: Option<u32>,
    serial: &'static str,
    extra_args: Vec<String>,
    boot: SpecBoot,
    disk: Vec<SpecDisk>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct SpecBoot {
    kernel: PathBuf,
    initrd: PathBuf,
    append: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct SpecDisk {
    path: PathBuf,
    format: &'static str,
    readonly: bool,
}

impl VmDef {
    /// An idle VM of 256 MiB whose name is its seed.
    pub fn named(name: &str) -> Self {
        let seed =
            name.bytes().fold(7, |hash: u64, b| hash.wrapping_mul(31).wrapping_add(b.into()));
        let guest = Guest {
            profile: Profile::Idle,
            fill_mib: 128,
            wss_mib: 8,
            rate_kib: 4096,
            seed,
            heartbeat: HEARTBEAT,
        };
        Self {
            name: name.into(),
            qemu: Qemu::V10_0,
            accel: Accel::Tcg,
            memory_mib: 256,
            uneven: false,
            disk: 0,
            guest,
        }
    }

    /// With another profile, filling half of its memory.
    pub fn profile(mut self, profile: Profile) -> Self {
        self.guest.profile = profile;
        self
    }

    /// Under another accelerator.
    pub fn accel(mut self, accel: Accel) -> Self {
        self.accel = accel;
        self
    }

    /// With another size; the guest fills half of it.
    pub fn memory_mib(mut self, mib: u32) -> Self {
        self.memory_mib = mib;
        self.guest.fill_mib = mib / 2;
        self
    }

    /// With two pages more, for QEMU 7.2: under TCG it loses dirty pages of blocks whose length is a multiple of 256 KiB
    /// (256 of 256 rewritten pages were stale at a stock target; mended in 9.0). QEMU 10.0 can lose writes on the same
    /// path, decision 0015: a VM of an even size is the harder trial.
    pub fn uneven(mut self) -> Self {
        self.uneven = true;
        self
    }

    /// Its memory, KiB.
    pub fn memory_kib(&self) -> u32 {
        self.memory_mib * 1024 + if self.uneven { 8 } else { 0 }
    }

    /// The text of its spec file, for an agent. Which QEMU runs it is the host's matter ([`crate::lab::site::Settings`]).
    pub fn spec(&self) -> Result<String> {
        let spec = Spec {
            name: self.name.clone(),
            memory: format!("{}KiB", self.memory_kib()),
            machine: MACHINE,
            accel: self.accel.name(),
            dirty_ring: self.accel.dirty_ring(),
            serial: "none",
            extra_args: [self.serial_arguments(), self.monitor_arguments()].concat(),
            boot: SpecBoot {
                kernel: image::kernel(),
                initrd: image::initrd(),
                append: self.kernel_arguments(),
            },
            disk: vec![SpecDisk { path: image::disk(self.disk), format: "raw", readonly: true }],
        };
        Ok(toml::to_string(&spec)?)
    }

    /// QEMU's arguments for everything but the monitor and incoming migration: the same devices as an agent
    /// gives it by the spec file, and memory as plain `-m` makes it.
    pub fn arguments(&self) -> Vec<String> {
        let firmware = self.qemu.firmware();
        let mut arguments: Vec<String> =
            firmware.iter().flat_map(|folder| ["-L".into(), text(folder)]).collect();
        let mut add = |words: &[&str]| arguments.extend(words.iter().map(|word| (*word).into()));
        let disk = format!(
            "driver=raw,node-name=disk0,read-only=on,file.driver=file,file.filename={}",
            text(&image::disk(self.disk))
        );
        let name = format!("{},debug-threads=on", self.name);
        add(&["-name", &name, "-nodefaults", "-no-user-config", "-display", "none"]);
        add(&["-machine", MACHINE, "-accel", &self.accel.to_string(), "-smp", "1"]);
        add(&["-m", &format!("{}K", self.memory_kib()), "-serial", "none"]);
        add(&["-kernel", &text(&image::kernel()), "-initrd", &text(&image::initrd())]);
        add(&["-append", &self.kernel_arguments()]);
        add(&["-blockdev", &disk, "-device", "virtio-blk-pci,id=vd0,drive=disk0"]);
        arguments.extend(self.serial_arguments());
        arguments
    }

    /// The serial line is an abstract socket: each network namespace has names of its own, so the arguments
    /// are the same on every host.
    fn serial_arguments(&self) -> [String; 4] {
        let name = format!("{SERIAL}{}", self.name);
        let socket = format!("socket,id=lab,path={name},abstract=on,server=on,wait=off");
        ["-chardev".into(), socket, "-device".into(), "isa-serial,chardev=lab".into()]
    }

    /// A monitor beside the agent's. Abstract for the same reason, and because the QEMU a VM leaves and the
    /// one it arrives in live at the same time.
    fn monitor_arguments(&self) -> [String; 4] {
        let name = format!("{MONITOR}{}", self.name);
        let socket = format!("socket,id=labmon,path={name},abstract=on,server=on,wait=off");
        ["-chardev".into(), socket, "-mon".into(), "chardev=labmon,mode=control".into()]
    }

    /// `no_timer_check`: on a busy host the kernel's check of its timer panics. `mitigations=off`: under
    /// emulation they cost much and guard nothing.
    fn kernel_arguments(&self) -> String {
        let Guest { profile, fill_mib, wss_mib, rate_kib, seed, heartbeat } = &self.guest;
        format!(
            "console=ttyS0 quiet no_timer_check mitigations=off panic=-1 rf.profile={profile} rf.fill={fill_mib} \
             rf.wss={wss_mib} rf.rate={rate_kib} rf.seed={seed} rf.hb={}",
            heartbeat.as_millis()
        )
    }
}

/// A VM that the lab itself runs; killed when dropped.
#[derive(Debug)]
pub struct Vm {
    /// What it is.
    pub def: VmDef,
    /// Where it runs.
    pub host: Host,
    /// Its QEMU.
    pub process: Process,
    /// Its monitor.
    pub qmp: Qmp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_have_the_names_the_guest_knows() {
        for profile in Profile::ALL {
            assert_eq!(profile.to_string().parse::<Profile>().unwrap(), profile);
        }
        assert!("lazy".parse::<Profile>().is_err());
    }

    #[test]
    fn a_spec_is_the_same_for_every_host_and_has_what_the_guest_is_told() {
        let spec: toml::Table =
            VmDef::named("web").memory_mib(512).spec().unwrap().parse().unwrap();
        assert_eq!(spec["memory"].as_str(), Some("524288KiB"));
        let append = spec["boot"]["append"].as_str().unwrap();
        assert!(append.contains("rf.fill=256 ") && append.contains("rf.profile=idle "));
        assert!(spec["accel"].as_str() == Some("tcg") && !spec.contains_key("dirty_ring"));
    }

    #[test]
    fn a_spec_has_the_dirty_ring_beside_the_accelerator() {
        let def = VmDef::named("web").accel(Accel::KvmRing(4096));
        let spec: toml::Table = def.spec().unwrap().parse().unwrap();
        assert_eq!(
            (spec["accel"].as_str(), spec["dirty_ring"].as_integer()),
            (Some("kvm"), Some(4096))
        );
    }
}
