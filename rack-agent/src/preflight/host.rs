//! What this host has.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use super::told::Told;
use crate::storage::Storage;
use crate::vm::{QemuUids, User};

/// What a QEMU program says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// As in `7.2.22`.
    pub version: String,
    /// Machine types, aliases among them.
    pub machines: BTreeSet<String>,
}

/// What programs have said: a QEMU takes a tenth of a second of CPU to say it.
#[derive(Debug)]
pub struct Programs {
    /// What they run as when they are asked.
    user: Option<User>,
    told: Told<PathBuf, Program>,
}

impl Programs {
    /// None are known yet.
    pub fn new(uids: QemuUids) -> Self {
        let user = uids.in_force().map(|range| range.of_questions(false));
        Self { user, told: Told::default() }
    }

    /// What a program says of itself. Cancel safe.
    ///
    /// # Errors
    /// It does not start, does not answer, or says something else.
    pub async fn get(&self, storage: &Storage, binary: &Path) -> Result<Arc<Program>> {
        let question = binary.to_owned();
        let ask = Program::ask(question.clone(), self.user);
        self.told.get(storage, binary, &question, ask).await
    }
}

impl Program {
    async fn ask(binary: PathBuf, user: Option<User>) -> Result<Self> {
        let version = version(&run(&binary, &["--version"], user).await?)
            .with_context(|| format!("{} does not say its version", binary.display()))?;
        let machines = machines(&run(&binary, &["-machine", "help"], user).await?);
        Ok(Self { version, machines })
    }
}

async fn run(binary: &Path, arguments: &[&str], user: Option<User>) -> Result<String> {
    let name = || format!("{} {}", binary.display(), arguments.join(" "));
    let mut command = Command::new(binary);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    if let Some(User { uid, gid }) = user {
        command.uid(uid).gid(gid);
    }
    let output =
        command.output().await.with_context(|| format!("cannot start {}", binary.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}: {}", name(), output.status, said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn version(said: &str) -> Option<String> {
    let (_, rest) = said.split_once("version ")?;
    Some(rest.split_whitespace().next()?.to_owned())
}

fn machines(said: &str) -> BTreeSet<String> {
    // The first line is a title.
    said.lines().skip(1).filter_map(|line| line.split_whitespace().next()).map(Into::into).collect()
}

/// Names of the CPU's features, as the kernel has them.
pub fn cpu_features() -> Vec<String> {
    features(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
}

fn features(cpuinfo: &str) -> Vec<String> {
    let line = cpuinfo.lines().find_map(|line| line.strip_prefix("flags")?.split_once(':'));
    let mut all: Vec<String> =
        line.map_or("", |(_, flags)| flags).split_whitespace().map(Into::into).collect();
    all.sort_unstable();
    all
}

/// Free huge pages of a size, by NUMA node.
pub fn free_huge_pages(page_bytes: u64) -> Vec<(String, u64)> {
    free_huge_pages_in(Path::new("/sys/devices/system/node"), page_bytes)
}

fn free_huge_pages_in(nodes: &Path, page_bytes: u64) -> Vec<(String, u64)> {
    let Ok(entries) = fs::read_dir(nodes) else { return Vec::new() };
    let file = format!("hugepages/hugepages-{}kB/free_hugepages", page_bytes >> 10);
    let free = |node: PathBuf| {
        let name = node.file_name()?.to_str()?.strip_prefix("node")?.to_owned();
        Some((name, fs::read_to_string(node.join(&file)).ok()?.trim().parse().ok()?))
    };
    let mut all: Vec<(String, u64)> =
        entries.flatten().filter_map(|entry| free(entry.path())).collect();
    all.sort();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qemu_says_what_it_is() {
        let said = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright (c) ...";
        assert_eq!(version(said).as_deref(), Some("7.2.22"));
        assert_eq!(version("no such thing"), None);
        let said = "Supported machines are:\nmicrovm    microvm (i386)\npc    Standard PC (alias of \
                    pc-i440fx-7.2)\npc-q35-7.2   Standard PC (Q35 + ICH9, 2009)\n";
        let names: Vec<String> = machines(said).into_iter().collect();
        assert_eq!(names, ["microvm", "pc", "pc-q35-7.2"]);
    }

    #[test]
    fn features_are_those_of_the_first_cpu() {
        let text =
            "processor\t: 0\nflags\t\t: sse2 aes avx\nbugs\t: none\nprocessor\t: 1\nflags\t: x\n";
        assert_eq!(features(text), ["aes", "avx", "sse2"]);
        assert!(features("").is_empty());
    }

    #[test]
    fn huge_pages_are_counted_by_node() {
        let folder = tempfile::tempdir().unwrap();
        for (node, free) in [("node0", "3\n"), ("node1", "0\n")] {
            let pages = folder.path().join(node).join("hugepages/hugepages-2048kB");
            fs::create_dir_all(&pages).unwrap();
            fs::write(pages.join("free_hugepages"), free).unwrap();
        }
        fs::create_dir(folder.path().join("power")).unwrap();
        let found = free_huge_pages_in(folder.path(), 2 << 20);
        assert_eq!(found, [("0".to_owned(), 3), ("1".to_owned(), 0)]);
        assert!(free_huge_pages_in(folder.path(), 1 << 30).is_empty());
    }

    #[tokio::test]
    async fn a_program_is_asked_as_a_user_without_rights() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let binary = folder.path().join("qemu");
        fs::write(&binary, "#!/bin/sh\necho version $(id -u)/$(id -G)\n").unwrap();
        for path in [folder.path(), &binary] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let programs = Programs::new(QemuUids::default());
        let program = programs.get(&Storage::default(), &binary).await.unwrap();
        let user = match QemuUids::default().in_force() {
            Some(_) => "1900065535/1900065535".to_owned(),
            None => run(&binary, &[], None).await.unwrap()["version ".len()..].trim().to_owned(),
        };
        assert_eq!(program.version, user.split(' ').next().unwrap());
    }
}
