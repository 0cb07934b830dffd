//! Disks that guests write to, as files that root alone may open.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const SECTOR: usize = 512;
/// Of the qcow2 images: 64 KiB.
const CLUSTER: usize = 1 << 16;
const BYTES: u64 = 1 << 20;

/// A boot sector that writes itself to the sector behind it, by the BIOS, and then switches the machine off as ACPI's `_S5` says.
const WRITES_AND_POWERS_OFF: [u8; 31] = [
    0x31, 0xdb, 0x8e, 0xc3, 0xbb, 0x00, 0x7c, 0xb8, 0x01, 0x03, 0xb9, 0x02, 0x00, 0xba, 0x80, 0x00,
    0xcd, 0x13, 0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef, 0xf4, 0xeb, 0xfd, 0x90, 0x90, 0x90,
];

/// A disk image.
pub struct Image {
    pub path: PathBuf,
    pub format: &'static str,
    /// Where the guest's first sector is in the file.
    begin: usize,
}

impl Image {
    /// One of each format, with `code` in its boot sector; an empty one boots nothing.
    pub fn all(folder: &Path, code: &[u8]) -> [Self; 2] {
        let mut sector = vec![0; SECTOR];
        sector[..code.len()].copy_from_slice(code);
        if !code.is_empty() {
            sector[SECTOR - 2..].copy_from_slice(&[0x55, 0xaa]);
        }
        let mut raw = vec![0; BYTES as usize];
        raw[..SECTOR].copy_from_slice(&sector);
        let (qcow2, begin) = qcow2(&sector);
        let make = |name: &str, format, begin, content: Vec<u8>| {
            let path = folder.join(name);
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            Self { path, format, begin }
        };
        [make("disk.img", "raw", 0, raw), make("disk.qcow2", "qcow2", begin, qcow2)]
    }

    /// One of each format, of guests that write and end.
    pub fn all_written(folder: &Path) -> [Self; 2] {
        Self::all(folder, &WRITES_AND_POWERS_OFF)
    }

    pub fn spec(&self) -> String {
        format!("[[disk]]\npath = {:?}\nformat = '{}'\n", self.path, self.format)
    }

    /// The guest has written its boot sector again.
    pub fn is_written(&self) -> bool {
        let content = fs::read(&self.path).unwrap();
        let sector = |n: usize| &content[self.begin + n * SECTOR..][..SECTOR];
        sector(0) == sector(1)
    }
}

/// A qcow2 image whose first cluster is there: header, table of reference counts, reference counts, L1, L2, data.
fn qcow2(first_sector: &[u8]) -> (Vec<u8>, usize) {
    let mut image = vec![0; 6 * CLUSTER];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    let at = |cluster: usize| (cluster * CLUSTER) as u64;
    let is_only_use = 1 << 63;
    put(0, b"QFI\xfb");
    put(4, &2u32.to_be_bytes());
    put(20, &16u32.to_be_bytes());
    put(24, &BYTES.to_be_bytes());
    put(36, &1u32.to_be_bytes());
    put(40, &at(3).to_be_bytes());
    put(48, &at(1).to_be_bytes());
    put(56, &1u32.to_be_bytes());
    put(CLUSTER, &at(2).to_be_bytes());
    (0..6).for_each(|n| put(2 * CLUSTER + 2 * n, &1u16.to_be_bytes()));
    put(3 * CLUSTER, &(at(4) | is_only_use).to_be_bytes());
    put(4 * CLUSTER, &(at(5) | is_only_use).to_be_bytes());
    put(5 * CLUSTER, first_sector);
    (image, 5 * CLUSTER)
}
