//! A policy's word on a spec. Pure: where paths lead is given.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::options::{given, is_never};
use super::values::{Argument, split};
use super::{Breach, Policy, paths};
use crate::vm::{Claims, Qemu, VmSpec};

/// Where distributions have firmware.
const FIRMWARE: &str = "/usr/share";
/// Keys whose values QEMU runs as programs.
const PROGRAMS: [&str; 3] = ["script", "downscript", "helper"];

/// A policy, and the way to learn where paths lead.
pub struct Judge<'a> {
    pub policy: &'a Policy,
    /// As [`paths::real`].
    pub real: &'a dyn Fn(&Path) -> Option<PathBuf>,
}

/// Every path that a judge asks for, whatever it is told of the others.
pub fn paths(policy: &Policy, spec: &VmSpec, own: &Qemu) -> BTreeSet<PathBuf> {
    let asked = RefCell::new(BTreeSet::new());
    // A path that lies where its name says is no breach: the judge goes on.
    let real = |path: &Path| {
        asked.borrow_mut().insert(path.to_owned());
        Some(path.to_owned())
    };
    Judge { policy, real: &real }.breaches(spec, own);
    asked.into_inner()
}

impl Judge<'_> {
    fn inside(&self, folders: &[PathBuf], path: &Path) -> bool {
        paths::inside(folders, path, self.real)
    }

    /// Everything of a spec that the policy does not let it have; `own` is the agent's QEMU.
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
        let allowed = self.policy.binaries.iter().chain([&own.binary]).any(|one| one == binary);
        (!allowed).then(|| Breach::Binary { binary: binary.to_owned() })
    }

    fn firmware(&self, folder: &Path, own: &Qemu) -> Option<Breach> {
        let distribution = [PathBuf::from(FIRMWARE)];
        let allowed = own.firmware.iter().any(|one| one == folder)
            || self.inside(&distribution, folder)
            || self.inside(&self.policy.paths, folder);
        (!allowed).then(|| Breach::path("qemu.firmware", folder))
    }

    fn file(&self, what: &'static str, path: &Path) -> Option<Breach> {
        // QEMU takes several initrds, with commas between them.
        let several = what == "boot.initrd" && path.as_os_str().as_encoded_bytes().contains(&b',');
        (several || !self.inside(&self.policy.paths, path)).then(|| Breach::path(what, path))
    }

    /// A relative path lies in the VM's own folder.
    fn serial(&self, claims: &Claims<'_>) -> Option<Breach> {
        let path = claims.serial?;
        let own = path.is_relative() && paths::is_straight(path);
        (!own && !self.inside(&self.policy.paths, path)).then(|| Breach::path("serial", path))
    }

    pub fn option(&self, name: &str, value: Option<&str>) -> Option<Breach> {
        if is_never(name) {
            return Some(Breach::Never { option: name.to_owned() });
        }
        let Some(text) = value else {
            let allowed = self.policy.extra_args.iter().any(|kind| kind.allows(name, None));
            return (!allowed).then(|| Breach::kind(name, None));
        };
        let Some(argument) = Argument::parse(name, text) else {
            return Some(Breach::Unread { option: name.to_owned() });
        };
        let kinds = argument.kinds.as_slice();
        if !self.policy.extra_args.iter().any(|kind| kind.allows(name, Some(kinds))) {
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

    /// A value may be the name of a file. QEMU runs in a folder of the VM's, where relative names lead.
    fn value(&self, field: &'static str, value: &str) -> Option<Breach> {
        let path = Path::new(value);
        let allowed = if path.is_absolute() {
            self.inside(&self.policy.paths, path)
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
