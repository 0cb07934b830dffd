//! Remembers what a step was done for.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use rackferry_tests::image;

/// A file that says for which input a step was done last.
pub struct Stamp {
    name: &'static str,
    path: PathBuf,
}

impl Stamp {
    /// The stamp of a step.
    pub fn new(name: &'static str) -> Self {
        Self { name, path: image::cache().join(format!("{name}.stamp")) }
    }

    /// Does the step unless it was done for the same input and left what it should leave.
    pub fn step(
        &self,
        input: &str,
        leaves: &[PathBuf],
        step: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let done = fs::read_to_string(&self.path).is_ok_and(|last| last == input);
        if done && leaves.iter().all(|path| path.exists()) {
            return Ok(());
        }
        step().with_context(|| format!("set-up step {}", self.name))?;
        fs::write(&self.path, input)
            .with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// A short name of some bytes, the same on every machine and in every release of Rust (FNV-1a).
pub fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
