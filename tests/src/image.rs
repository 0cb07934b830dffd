//! Where `cargo xtask setup` puts what the lab runs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// How many different disks there are.
pub const DISKS: usize = 4;

/// The lab's folder: `RACKFERRY_CACHE`, or `/var/cache/rackferry`.
pub fn cache() -> PathBuf {
    std::env::var_os("RACKFERRY_CACHE")
        .map_or_else(|| PathBuf::from("/var/cache/rackferry"), PathBuf::from)
}

/// The folder of kernel, initrd and disks.
pub fn folder() -> PathBuf {
    cache().join("images")
}

/// The guests' kernel.
pub fn kernel() -> PathBuf {
    folder().join("vmlinuz")
}

/// The guests' initrd: init and the modules it loads.
pub fn initrd() -> PathBuf {
    folder().join("initrd.cpio")
}

/// Disk `number` modulo [`DISKS`]: real files of Debian packages, to be attached read-only.
pub fn disk(number: usize) -> PathBuf {
    folder().join(format!("base-{}.img", number % DISKS))
}

/// The folder of Lab B: what its outer machine boots.
pub fn lab_b() -> PathBuf {
    cache().join("lab-b")
}

/// The outer machine's kernel, Debian's stock one.
pub fn lab_b_kernel() -> PathBuf {
    lab_b().join("vmlinuz")
}

/// The outer machine's initrd: busybox and the modules that its root file system needs.
pub fn lab_b_initrd() -> PathBuf {
    lab_b().join("initrd.cpio")
}

/// All modules of the outer machine's kernel, as `modprobe` wants them.
pub fn lab_b_modules() -> PathBuf {
    lab_b().join("modules")
}

/// A QEMU of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Qemu {
    /// Debian 12's own.
    V7_2,
    /// From bookworm-backports, in the cache folder.
    V10_0,
}

impl Qemu {
    /// The program.
    pub fn binary(self) -> PathBuf {
        match self {
            Self::V7_2 => PathBuf::from("/usr/bin/qemu-system-x86_64"),
            Self::V10_0 => self.root().join("usr/bin/qemu-system-x86_64"),
        }
    }

    /// Folders of the firmware that the program does not find by itself, in the order to search.
    pub fn firmware(self) -> Vec<PathBuf> {
        match self {
            Self::V7_2 => vec![],
            Self::V10_0 => vec![
                self.root().join("usr/share/qemu"),
                PathBuf::from("/usr/share/seabios"),
                PathBuf::from("/usr/lib/ipxe/qemu"),
                PathBuf::from("/usr/share/qemu"),
            ],
        }
    }

    fn root(self) -> PathBuf {
        cache().join("qemu-10.0")
    }
}

impl fmt::Display for Qemu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V7_2 => "7.2",
            Self::V10_0 => "10.0",
        })
    }
}

impl FromStr for Qemu {
    type Err = anyhow::Error;

    fn from_str(version: &str) -> Result<Self, Self::Err> {
        match version {
            "7.2" => Ok(Self::V7_2),
            "10.0" => Ok(Self::V10_0),
            _ => anyhow::bail!("the lab has no QEMU {version}: take 7.2 or 10.0"),
        }
    }
}

/// A path as QEMU's command line takes it.
pub(crate) fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
