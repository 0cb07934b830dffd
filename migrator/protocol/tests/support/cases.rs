//! The VMs whose streams are captured.
#![allow(dead_code, reason = "every program uses its own part of this")]

use super::qemu::Version;

/// A VM, and how it is migrated.
pub struct Case {
    pub name: &'static str,
    pub version: Version,
    pub machine: &'static str,
    pub capabilities: &'static [&'static str],
    pub extra: &'static [&'static str],
    /// Whether the stream is slowed down until memory was sent several times.
    pub rounds: bool,
}

const PLAIN: Case = Case {
    name: "qemu-7.2",
    version: Version::V7_2,
    machine: "q35",
    capabilities: &[],
    extra: &[],
    rounds: false,
};
const NEW: Case = Case { name: "qemu-10.0", version: Version::V10_0, ..PLAIN };
const OLD_MACHINE: Case = Case { name: "qemu-10.0-as-7.2", machine: "pc-q35-7.2", ..NEW };

/// All captures there are.
pub const CASES: [Case; 10] = [
    PLAIN,
    NEW,
    OLD_MACHINE,
    Case { name: "qemu-7.2-rounds", rounds: true, ..PLAIN },
    Case { name: "qemu-10.0-rounds", rounds: true, ..NEW },
    Case { name: "qemu-7.2-multifd", capabilities: &["multifd"], rounds: true, ..PLAIN },
    Case { name: "qemu-10.0-multifd", capabilities: &["multifd"], rounds: true, ..NEW },
    Case { name: "qemu-10.0-as-7.2-multifd", capabilities: &["multifd"], ..OLD_MACHINE },
    Case {
        name: "qemu-7.2-bitmap",
        capabilities: &["dirty-bitmaps"],
        extra: &[
            "-blockdev",
            "null-co,node-name=disk,size=1048576",
            "-device",
            "virtio-blk-pci,drive=disk",
        ],
        ..PLAIN
    },
    Case {
        name: "qemu-10.0-virtio-mem",
        extra: &[
            "-object",
            "memory-backend-ram,id=more,size=16M",
            "-device",
            "virtio-mem-pci,memdev=more,requested-size=4M",
        ],
        ..NEW
    },
];
