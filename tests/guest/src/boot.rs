//! What PID 1 does before it can do its work.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, mount};
use rustix::system::finit_module;

/// Where the shared disk is mounted.
pub const BASE: &str = "/base";
const DISK: &str = "/dev/vda";
/// The disk appears as soon as its driver has probed it.
const DISK_WAIT: Duration = Duration::from_secs(10);

/// Mounts the kernel's own file systems.
pub fn mount_kernel_files() -> io::Result<()> {
    for (kind, place) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        fs::create_dir_all(place)?;
        match mount(kind, place, kind, MountFlags::NOSUID, None) {
            Ok(()) | Err(rustix::io::Errno::BUSY) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Loads the modules of the initrd in the order of their names.
pub fn load_modules(folder: &Path) -> io::Result<()> {
    let mut names = fs::read_dir(folder)?.map(|e| Ok(e?.path())).collect::<io::Result<Vec<_>>>()?;
    names.sort();
    for name in names {
        finit_module(File::open(&name)?, c"", 0)
            .map_err(|error| io::Error::other(format!("module {}: {error}", name.display())))?;
    }
    Ok(())
}

/// Mounts the shared disk read-only.
pub fn mount_base() -> io::Result<()> {
    let start = Instant::now();
    while !Path::new(DISK).exists() {
        if start.elapsed() > DISK_WAIT {
            return Err(io::Error::other(format!("{DISK} did not appear")));
        }
        thread::sleep(Duration::from_millis(5));
    }
    fs::create_dir_all(BASE)?;
    mount(DISK, BASE, "ext4", MountFlags::RDONLY | MountFlags::NOATIME, None)?;
    Ok(())
}
