//! What a host lets VM specs have: `policy.toml`, beside the agent's settings.
//!
//! A spec comes with its VM from another host, and QEMU does what it says. The policy is this host's own word on it: which
//! programs run, which folders are reached, and which kinds of further arguments are taken. It is asked for every VM that
//! would start here, whoever sent the spec.

mod breach;
mod kind;
mod options;
mod paths;
mod values;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Deserialize;

pub use breach::Breach;
pub use kind::Kind;
pub(crate) use options::name as option_name;

use crate::vm::{Claims, Qemu, VmSpec};
use options::{given, is_never};
use values::{Argument, split};

/// Name of the file, in the folder of the agent's settings.
pub const FILE: &str = "policy.toml";
/// Most bytes of the file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Where distributions have firmware.
const FIRMWARE: &str = "/usr/share";
/// Keys whose values QEMU runs as programs.
const PROGRAMS: [&str; 3] = ["script", "downscript", "helper"];

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

    /// Everything of a spec that this host does not let it have; `own` is the agent's QEMU. Looks where paths lead, so it
    /// blocks as long as their storage does.
    pub fn breaches(&self, spec: &VmSpec, own: &Qemu) -> Vec<Breach> {
        let claims = spec.claims();
        let mut breaches = Vec::new();
        if let Some(qemu) = claims.qemu {
            breaches.extend(self.binary(&qemu.binary, own));
            breaches.extend(qemu.firmware.iter().filter_map(|folder| self.firmware(folder, own)));
        }
        breaches.extend(claims.files.iter().filter_map(|(what, path)| self.file(what, path)));
        breaches.extend(self.serial(&claims));
        for (field, text) in claims.arguments {
            breaches
                .extend(split("", text).iter().filter_map(|(_, value)| self.value(field, value)));
        }
        match given(claims.extra_args) {
            Ok(options) => {
                breaches.extend(options.iter().filter_map(|one| self.option(one.name, one.value)));
            }
            Err(breach) => breaches.push(breach),
        }
        breaches
    }

    fn binary(&self, binary: &Path, own: &Qemu) -> Option<Breach> {
        let allowed = self.binaries.iter().chain([&own.binary]).any(|one| one == binary);
        (!allowed).then(|| Breach::Binary { binary: binary.to_owned() })
    }

    fn firmware(&self, folder: &Path, own: &Qemu) -> Option<Breach> {
        let distribution = [PathBuf::from(FIRMWARE)];
        let allowed = own.firmware.iter().any(|one| one == folder)
            || paths::inside(&distribution, folder)
            || paths::inside(&self.paths, folder);
        (!allowed).then(|| Breach::path("qemu.firmware", folder))
    }

    fn file(&self, what: &'static str, path: &Path) -> Option<Breach> {
        // QEMU takes several initrds, with commas between them.
        let several = what == "boot.initrd" && path.as_os_str().as_encoded_bytes().contains(&b',');
        (several || !paths::inside(&self.paths, path)).then(|| Breach::path(what, path))
    }

    /// A relative path lies in the VM's own folder.
    fn serial(&self, claims: &Claims<'_>) -> Option<Breach> {
        let path = claims.serial?;
        let own = path.is_relative() && paths::is_straight(path);
        (!own && !paths::inside(&self.paths, path)).then(|| Breach::path("serial", path))
    }

    fn option(&self, name: &str, value: Option<&str>) -> Option<Breach> {
        if is_never(name) {
            return Some(Breach::Never { option: name.to_owned() });
        }
        let Some(text) = value else {
            let allowed = self.extra_args.iter().any(|kind| kind.allows(name, None));
            return (!allowed).then(|| Breach::kind(name, None));
        };
        let Some(argument) = Argument::parse(name, text) else {
            return Some(Breach::Unread { option: name.to_owned() });
        };
        let kinds = argument.kinds.as_slice();
        if !self.extra_args.iter().any(|kind| kind.allows(name, Some(kinds))) {
            return Some(Breach::kind(name, Some(kinds.first().map_or("KIND", String::as_str))));
        }
        let program = |(key, value): &&(String, String)| {
            PROGRAMS.contains(&key.as_str()) && !matches!(value.as_str(), "no" | "")
        };
        if let Some((key, _)) = argument.pairs.iter().find(program) {
            return Some(Breach::Program { option: name.to_owned(), key: key.clone() });
        }
        // Of options that are one word its commas are not taken apart.
        let whole = text.starts_with('/').then_some(text);
        let values = argument.pairs.iter().flat_map(|(key, value)| [key.as_str(), value.as_str()]);
        values.chain(whole).find_map(|value| self.value("extra_args", value))
    }

    /// A value may be the name of a file. QEMU runs in the VM's folder, where relative names lead.
    fn value(&self, field: &'static str, value: &str) -> Option<Breach> {
        let path = Path::new(value);
        let allowed = if path.is_absolute() {
            paths::inside(&self.paths, path)
        } else if value.starts_with("json:") {
            false
        } else {
            // `fat:rw:/etc`, `file:/etc/shadow`
            let protocol = value.find(':').zip(value.rfind('/')).is_some();
            !protocol && paths::is_straight(path)
        };
        (!allowed).then(|| Breach::path(field, path))
    }
}

#[cfg(test)]
mod tests;
