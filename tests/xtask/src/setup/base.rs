//! The guests' disks: real files of this machine's Debian packages in four sets that overlap in part.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rackferry_tests::image;

use super::stamp::{Stamp, fingerprint};
use crate::run::quiet;

/// Of 16 packages this many are on every disk; the others are dealt out to one disk each.
const COMMON_OF_16: u64 = 4;
/// Bytes of common files, and of a disk's own files.
const SHARE_BYTES: u64 = 150 << 20;
/// Bytes taken of one package, so that none makes up a disk by itself.
const PACKAGE_BYTES_MAX: u64 = 16 << 20;
/// Smaller files would cost more in inodes than they bring in pages.
const FILE_BYTES_MIN: u64 = 2048;
const BLOCK_BYTES: u64 = 4096;
/// Fewer bytes would not fill the page cache of the smallest profile.
const DISK_BYTES_MIN: u64 = 160 << 20;
const LISTS: &str = "/var/lib/dpkg/info";

/// Builds the disks.
pub fn build(stamp: &Stamp) -> Result<()> {
    let disks: Vec<PathBuf> = (0..image::DISKS).map(image::disk).collect();
    stamp.step("2", &disks, || {
        println!("set-up: building {} disks from this machine's packages", disks.len());
        let mut sets = vec![FileSet::default(); image::DISKS];
        let mut common = FileSet::default();
        for list in package_lists()? {
            let package = list.file_stem().context("a list without a name")?.to_string_lossy();
            let lot = fingerprint(package.as_bytes());
            let set = match lot % 16 {
                n if n < COMMON_OF_16 => &mut common,
                _ => &mut sets[(lot / 16) as usize % image::DISKS],
            };
            set.add_package(&list)?;
        }
        for (set, disk) in sets.iter().zip(&disks) {
            write_disk(&common, set, disk)?;
        }
        Ok(())
    })
}

#[derive(Clone, Default)]
struct FileSet {
    files: Vec<PathBuf>,
    bytes: u64,
}

impl FileSet {
    fn add_package(&mut self, list: &Path) -> Result<()> {
        let limit = SHARE_BYTES.min(self.bytes + PACKAGE_BYTES_MAX);
        for line in fs::read_to_string(list)?.lines().filter(|line| line.starts_with("/usr/")) {
            let path = PathBuf::from(line);
            let Ok(data) = path.symlink_metadata() else { continue };
            let bytes = data.len().next_multiple_of(BLOCK_BYTES);
            if data.is_file() && data.len() >= FILE_BYTES_MIN && self.bytes + bytes <= limit {
                self.bytes += bytes;
                self.files.push(path);
            }
        }
        Ok(())
    }
}

/// The lists of files of all installed packages, in an order that mixes large and small ones.
fn package_lists() -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(LISTS)?.map(|e| Ok(e?.path())).collect::<Result<Vec<_>>>()?;
    let mut lists: Vec<PathBuf> = entries;
    lists.retain(|path| path.extension().is_some_and(|extension| extension == "list"));
    lists.sort_by_key(|path| (fingerprint(path.as_os_str().as_encoded_bytes()), path.clone()));
    Ok(lists)
}

fn write_disk(common: &FileSet, own: &FileSet, disk: &Path) -> Result<()> {
    let bytes = common.bytes + own.bytes;
    ensure!(bytes >= DISK_BYTES_MIN, "this machine has too few packages: {bytes} bytes for a disk");
    let stage = disk.with_extension("stage");
    remove(&stage)?;
    for file in common.files.iter().chain(&own.files) {
        let place = stage.join(file.strip_prefix("/usr").unwrap_or(file));
        fs::create_dir_all(place.parent().context("a file without a folder")?)?;
        // Two packages may both list a file that one of them diverted.
        // A link is enough where stage and file lie on one file system.
        if !place.exists() && fs::hard_link(file, &place).is_err() {
            fs::copy(file, &place).with_context(|| format!("cannot copy {}", file.display()))?;
        }
    }
    let blocks_mib = (bytes >> 20) * 9 / 8 + 32;
    let fresh = disk.with_extension("new");
    remove(&fresh)?;
    quiet(
        Command::new("mke2fs")
            .args(["-q", "-t", "ext4", "-b", "4096", "-O", "^has_journal", "-m", "0", "-d"])
            .args([&stage, &fresh])
            .arg(format!("{blocks_mib}M")),
    )?;
    fs::rename(&fresh, disk)?;
    remove(&stage)
}

fn remove(path: &Path) -> Result<()> {
    if path.is_dir() {
        fs::remove_dir_all(path)?;
    } else if path.exists() {
        fs::remove_file(path)?;
    }
    Ok(())
}
