//! What is left over when it should not be.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use anyhow::{Result, ensure};

use crate::{lab::netns, procs};

/// Everything of a lab that exists at one moment.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Network namespaces.
    pub namespaces: Vec<String>,
    /// Processes: number and name.
    pub processes: Vec<(i32, String)>,
    /// Sockets in the lab's folder.
    pub sockets: Vec<String>,
    /// Guest memory: process, name and the bytes it may take.
    pub memfds: Vec<(i32, String, u64)>,
}

impl Census {
    /// Counts what a lab named `prefix`, with files in `folder`, has now.
    pub fn take(prefix: &str, folder: &Path) -> Result<Self> {
        let processes: Vec<_> = procs::marked(prefix)?
            .into_iter()
            .map(|(pid, name)| (pid.as_raw_nonzero().get(), name))
            .collect();
        let memfds = processes.iter().flat_map(|(pid, _)| memfds_of(*pid)).collect();
        let mut sockets = Vec::new();
        collect_sockets(folder, &mut sockets);
        Ok(Self { namespaces: netns::list(prefix)?, processes, sockets, memfds })
    }
}

/// Fails unless nothing of the lab named `prefix` is left.
pub fn assert_nothing_left(prefix: &str, folder: &Path) -> Result<()> {
    let left = Census::take(prefix, folder)?;
    ensure!(left == Census::default(), "the lab left something behind: {left:#?}");
    Ok(())
}

/// The memory files a process has open: (process, name, length in bytes).
pub fn memfds_of(pid: i32) -> Vec<(i32, String, u64)> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            let name = target.to_str()?.strip_prefix("/memfd:")?.trim_end_matches(" (deleted)");
            Some((pid, name.to_string(), entry.path().metadata().ok()?.len()))
        })
        .collect()
}

fn collect_sockets(folder: &Path, found: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            collect_sockets(&entry.path(), found);
        } else if kind.is_socket() {
            found.push(entry.path().display().to_string());
        }
    }
}
