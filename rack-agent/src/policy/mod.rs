//! What a host lets VM specs have: `policy.toml`, beside the agent's settings.
//!
//! A spec comes with its VM from another host, and QEMU does what it says. The policy is this host's own word on it: which
//! programs run, which folders are reached, and which kinds of further arguments are taken. It is asked for every VM that
//! would start here, whoever sent the spec.

mod breach;
mod judge;
mod kind;
mod options;
mod paths;
mod values;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use futures::future::join_all;
use serde::Deserialize;

pub use breach::Breach;
pub use kind::Kind;
pub(crate) use options::name as option_name;
pub(crate) use paths::real;

use crate::storage::{Storage, StorageError};
use crate::vm::{Qemu, VmSpec};
use judge::Judge;

/// Name of the file, in the folder of the agent's settings.
pub const FILE: &str = "policy.toml";
/// Most bytes of the file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What specs may have on this host.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// QEMUs that specs may name, beside the agent's own (`qemu.binary`).
    pub binaries: Vec<PathBuf>,
    /// Folders, files and devices that specs may name.
    pub paths: Vec<PathBuf>,
    /// Kinds of further arguments (`extra_args`).
    pub extra_args: Vec<Kind>,
    /// QEMU runs under its seccomp sandbox: it starts no programs and changes no privileges.
    pub sandbox: bool,
}

impl Default for Policy {
    /// Programs of the distribution, folders in which VMs usually lie and nothing of the host does, no further arguments.
    fn default() -> Self {
        Self {
            binaries: vec!["/usr/bin/qemu-system-x86_64".into()],
            paths: ["/srv", "/mnt", "/var/lib/libvirt/images"].map(PathBuf::from).to_vec(),
            extra_args: Vec::new(),
            sandbox: true,
        }
    }
}

impl Policy {
    /// Reads the file beside the agent's settings; the defaults if there is none.
    ///
    /// # Errors
    /// It cannot be read, or a value cannot be.
    pub fn beside(settings: &Path) -> anyhow::Result<Self> {
        let path = settings.with_file_name(FILE);
        let policy = || format!("policy in {}", path.display());
        match fs::metadata(&path) {
            Ok(file) if file.len() > FILE_BYTES_MAX => {
                return Err(anyhow::anyhow!("longer than {FILE_BYTES_MAX} bytes"))
                    .with_context(policy);
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error).with_context(policy),
        }
        Self::parse(&fs::read_to_string(&path).with_context(policy)?).with_context(policy)
    }

    /// Reads the text of a policy file.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let policy: Self = toml::from_str(text)?;
        for path in policy.paths.iter().chain(&policy.binaries) {
            anyhow::ensure!(
                path.is_absolute() && paths::is_straight(path),
                "{} is not an absolute path without \"..\"",
                path.display()
            );
        }
        Ok(policy)
    }

    /// Everything of a spec that this host does not let it have; `own` is the agent's QEMU. Where its paths lead is looked
    /// up first, in storage that may not answer. Cancel safe.
    ///
    /// # Errors
    /// A path cannot be looked at.
    pub async fn breaches(
        &self,
        spec: &VmSpec,
        own: &Qemu,
        storage: &Storage,
    ) -> Result<Vec<Breach>, Unseen> {
        let looks = judge::paths(self, spec, own).into_iter().map(async |path| {
            match storage.real(&path).await {
                Ok(real) => Ok((path, real)),
                Err(error) => Err(Unseen { path, error }),
            }
        });
        // All of them: what is not waited for is not known to hang.
        let real: HashMap<_, _> = join_all(looks).await.into_iter().collect::<Result<_, _>>()?;
        let look = |path: &Path| real.get(path).cloned().flatten();
        Ok(Judge { policy: self, real: &look }.breaches(spec, own))
    }
}

/// A path of a spec that cannot be looked at.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", path.display())]
pub struct Unseen {
    /// The path.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub error: StorageError,
}

#[cfg(test)]
mod tests;
