//! Fills the memory of a VM from outside.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use anyhow::{Context, Result};

const PIECE: u64 = 1 << 20;
/// Around these offsets lies what the firmware works with: at both ends of memory, and where q35 splits it.
const SPLIT: u64 = 2 << 30;
const SPARED: u64 = 16 << 20;

/// Fills the memory file of `bytes` that process `pid` has open with content that is nowhere else, but for what its
/// firmware works with.
pub fn fill(pid: u32, bytes: u64) -> Result<()> {
    let file = memory_file(pid, bytes)?;
    let mut state = u64::from(pid) << 32;
    let mut piece = vec![0u8; PIECE as usize];
    for offset in (SPARED..bytes - SPARED).step_by(PIECE as usize) {
        if offset.abs_diff(SPLIT) < SPARED {
            continue;
        }
        for word in piece.as_chunks_mut().0 {
            *word = random(&mut state).to_le_bytes();
        }
        file.write_all_at(&piece, offset)?;
    }
    Ok(())
}

fn memory_file(pid: u32, bytes: u64) -> Result<File> {
    let folder = PathBuf::from(format!("/proc/{pid}/fd"));
    for path in fs::read_dir(&folder)?.flatten().map(|entry| entry.path()) {
        let is_memfd =
            fs::read_link(&path).is_ok_and(|to| to.to_string_lossy().starts_with("/memfd:"));
        if is_memfd && fs::metadata(&path).is_ok_and(|meta| meta.len() == bytes) {
            return File::options().write(true).open(&path).context("cannot open guest memory");
        }
    }
    anyhow::bail!("process {pid} has no memory file of {bytes} bytes")
}

/// Splitmix64.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
