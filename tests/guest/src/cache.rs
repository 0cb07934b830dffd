//! Real files of the shared disk, kept in the page cache.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::content::PAGE_BYTES;

/// Bytes read and summed at a time.
const PIECE_BYTES: usize = 128 * 1024;

/// Files read into the page cache, and what they were found to contain.
#[derive(Default)]
pub struct Cache {
    pieces: Vec<Piece>,
    files: Vec<PathBuf>,
    pages: usize,
}

struct Piece {
    file: usize,
    offset: u64,
    sum: u64,
}

impl Cache {
    /// Reads files under `root`, in the order of their names, until `mib` MiB of page cache are full or
    /// the files are at an end.
    pub fn fill(root: &Path, mib: usize) -> io::Result<Self> {
        let mut cache = Self::default();
        let mut buffer = vec![0; PIECE_BYTES];
        let mut names = Vec::new();
        list(root, &mut names)?;
        for name in names {
            if cache.pages * PAGE_BYTES >= mib << 20 {
                break;
            }
            cache.read_file(name, mib << 20, &mut buffer)?;
        }
        Ok(cache)
    }

    fn read_file(&mut self, name: PathBuf, limit: usize, buffer: &mut [u8]) -> io::Result<()> {
        let mut file = File::open(&name)?;
        let mut offset = 0;
        while self.pages * PAGE_BYTES < limit {
            let length = read_full(&mut file, buffer)?;
            if length == 0 {
                break;
            }
            self.pieces.push(Piece { file: self.files.len(), offset, sum: sum(&buffer[..length]) });
            self.pages += length.div_ceil(PAGE_BYTES);
            offset += length as u64;
        }
        self.files.push(name);
        Ok(())
    }

    /// MiB of page cache it filled.
    pub fn mib(&self) -> usize {
        (self.pages * PAGE_BYTES) >> 20
    }

    /// How many pieces can be checked.
    pub fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// Reads a piece again, from the page cache if it is still there.
    pub fn check(&self, piece: usize, buffer: &mut Vec<u8>) -> Result<(), String> {
        let Piece { file, offset, sum: want } = self.pieces[piece];
        let name = self.files[file].display();
        buffer.resize(PIECE_BYTES, 0);
        let length = File::open(&self.files[file])
            .and_then(|mut file| {
                file.seek(SeekFrom::Start(offset))?;
                read_full(&mut file, buffer)
            })
            .map_err(|error| format!("{name} at {offset}: {error}"))?;
        let got = sum(&buffer[..length]);
        if got == want {
            Ok(())
        } else {
            Err(format!("{name} at {offset}: sum {got:x}, not {want:x}"))
        }
    }
}

/// Bytes that one piece stands for in a rate.
pub const fn piece_bytes() -> usize {
    PIECE_BYTES
}

fn list(folder: &Path, names: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let kind = entry.file_type()?;
        if kind.is_dir() {
            list(&entry.path(), names)?;
        } else if kind.is_file() {
            names.push(entry.path());
        }
    }
    Ok(())
}

fn read_full(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..])? {
            0 => break,
            count => length += count,
        }
    }
    Ok(length)
}

/// A quick sum that notices a changed, a moved and a missing word.
fn sum(bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(8);
    let mix =
        |sum: u64, word: u64| (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    let sum = (&mut words).fold(bytes.len() as u64, |sum, word| {
        mix(sum, u64::from_le_bytes(word.try_into().expect("chunks of eight")))
    });
    words.remainder().iter().fold(sum, |sum, &byte| mix(sum, u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_notices_small_changes() {
        let bytes: Vec<u8> = (0..=250).collect();
        let mut flipped = bytes.clone();
        flipped[249] ^= 4;
        let mut swapped = bytes.clone();
        swapped.rotate_left(8);
        assert_eq!(sum(&bytes), sum(&bytes.clone()));
        assert_ne!(sum(&bytes), sum(&flipped));
        assert_ne!(sum(&bytes), sum(&swapped));
        assert_ne!(sum(&[0; 8]), sum(&[0; 16]));
    }
}
