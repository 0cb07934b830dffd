//! The users that QEMUs run as: each QEMU of a host has a uid of its own, with no rights beside its own files, so that one in
//! foreign hands reaches neither the host nor its neighbours. Which uids are in use is what the running processes say.

use std::collections::HashSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::Deserialize;

/// Between the uids of containers (systemd: up to 1879048191) and those of foreign images (from 2147352576).
const FIRST: u32 = 1_900_000_000;
/// More than a host has VMs, so that a uid is seldom given twice.
const COUNT: u32 = 65_536;
/// Below are users of the host: its own, `nobody`, and the number that is none in 16 bits.
const LEAST: u32 = 65_536;
/// One for VMs, and one for the QEMUs that only answer questions.
const COUNT_MIN: u32 = 2;
/// Under which a QEMU gets the host's virtualisation.
const KVM: &str = "/dev/kvm";

/// Setting `qemu_uids`: the users that QEMUs run as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub enum QemuUids {
    /// Each QEMU as another one of these.
    Range(UidRange),
    /// All as root, as an operator wishes by name.
    Root,
}

/// Uids that no other user of the host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UidRange {
    first: u32,
    count: u32,
}

/// The user and the group of one QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// Its uid.
    pub uid: u32,
    /// Its gid: that of `/dev/kvm` where it needs that, else the uid.
    pub gid: u32,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "\"root\", or { first = UID, count = NUMBER }")]
enum Written {
    Name(String),
    Range(WrittenRange),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRange {
    first: u32,
    count: u32,
}

impl TryFrom<Written> for QemuUids {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let WrittenRange { first, count } = match written {
            Written::Name(name) if name == "root" => return Ok(Self::Root),
            Written::Name(name) => {
                return Err(format!(
                    "{name:?} is not \"root\" or {{ first = UID, count = NUMBER }}"
                ));
            }
            Written::Range(range) => range,
        };
        // The last number of all is no uid.
        let fits = first.checked_add(count).is_some();
        if first < LEAST || count < COUNT_MIN || !fits {
            return Err(format!(
                "take at least {COUNT_MIN} uids from {LEAST} on that no user of the host has"
            ));
        }
        Ok(Self::Range(UidRange { first, count }))
    }
}

impl Default for QemuUids {
    fn default() -> Self {
        Self::Range(UidRange { first: FIRST, count: COUNT })
    }
}

impl QemuUids {
    /// The uids that QEMUs get; none if they run as the agent itself: it is not root, or its operator wants it so.
    #[must_use]
    pub fn in_force(self) -> Option<UidRange> {
        match self {
            Self::Range(range) if rustix::process::geteuid().is_root() => Some(range),
            _ => None,
        }
    }

    /// What an operator should know about it when the agent starts.
    #[must_use]
    pub fn warning(self) -> Option<&'static str> {
        match (self, self.in_force()) {
            (_, Some(_)) => None,
            (Self::Root, _) => {
                Some("qemu_uids = \"root\": a QEMU in foreign hands has this host and all its VMs")
            }
            (Self::Range(_), None) => {
                Some("the agent is not root: QEMUs run as its own user, and reach each other")
            }
        }
    }
}

impl UidRange {
    /// A uid that is not taken, for a VM. Where the search begins depends on `seed`, so that a uid is seldom given to another VM.
    #[must_use]
    pub fn pick(self, seed: &impl Hash, taken: impl Fn(u32) -> bool) -> Option<u32> {
        let mut hasher = DefaultHasher::new();
        seed.hash(&mut hasher);
        let for_vms = self.count - 1;
        let begin = (hasher.finish() % u64::from(for_vms)) as u32;
        let nth = |n| self.first + (begin + n) % for_vms;
        (0..for_vms).map(nth).find(|uid| !taken(*uid))
    }

    /// The user of QEMUs that run no guest and only answer questions.
    #[must_use]
    pub fn of_questions(self, kvm: bool) -> User {
        User::of(self.first + (self.count - 1), kvm)
    }

    fn has(self, uid: u32) -> bool {
        uid.checked_sub(self.first).is_some_and(|nth| nth < self.count)
    }

    /// Those of the range that a process of this host has now.
    #[must_use]
    pub fn living(self) -> HashSet<u32> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.flat_map(uids_of).filter(|uid| self.has(*uid)).collect()
    }
}

impl User {
    /// The user with this uid; `kvm` if it needs the host's virtualisation.
    #[must_use]
    pub fn of(uid: u32, kvm: bool) -> Self {
        let group =
            fs::metadata(KVM).ok().filter(|_| kvm).and_then(|kvm| group_of(&Mode::of(&kvm)));
        Self { uid, gid: group.unwrap_or(uid) }
    }
}

/// The uid that a process runs as.
#[must_use]
pub fn uid_of(pid: u32) -> Option<u32> {
    uids_of(pid).get(1).copied()
}

/// Real, effective, saved and file system uid. Not from the owner of its folder: a process can hide that.
fn uids_of(pid: u32) -> Vec<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    line.unwrap_or_default().split_whitespace().filter_map(|uid| uid.parse().ok()).collect()
}

struct Mode {
    bits: u32,
    gid: u32,
}

impl Mode {
    fn of(about: &fs::Metadata) -> Self {
        Self { bits: about.mode(), gid: about.gid() }
    }
}

/// The group by which a device is reached that others may not use. Not root's: it owns too much else.
fn group_of(device: &Mode) -> Option<u32> {
    let others_may = device.bits & 0o006 == 0o006;
    let group_may = device.bits & 0o060 == 0o060 && device.gid != 0;
    (group_may && !others_may).then_some(device.gid)
}

/// Why a QEMU with a uid of its own cannot use the host's virtualisation.
#[must_use]
pub fn kvm_barrier() -> Option<String> {
    let mode = Mode::of(&fs::metadata(KVM).ok()?);
    let open = mode.bits & 0o006 == 0o006 || group_of(&mode).is_some();
    let bits = mode.bits & 0o777;
    (!open)
        .then(|| format!("{KVM} has mode {bits:04o} and group {}: root alone may use it", mode.gid))
}

/// The first part of a path that a user without rights of its own cannot pass, read or, if it is a program, execute. None also
/// if the path is not there.
#[must_use]
pub fn barred(path: &Path) -> Option<String> {
    let real = path.canonicalize().ok()?;
    let blocks = |part: &Path| {
        let about = fs::metadata(part).ok()?;
        let (what, wanted) = match (about.is_dir(), part == real) {
            (true, true) => ("read", 0o005),
            (true, false) => ("pass", 0o001),
            (false, _) => ("execute", 0o001),
        };
        let bits = about.mode() & 0o777;
        (bits & wanted != wanted)
            .then(|| format!("cannot {what} {} (mode {bits:04o})", part.display()))
    };
    let mut parts: Vec<&Path> = real.ancestors().collect();
    parts.reverse();
    parts.into_iter().find_map(blocks)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn setting(text: &str) -> Result<QemuUids, String> {
        #[derive(Deserialize)]
        struct Settings {
            qemu_uids: QemuUids,
        }
        let settings: Result<Settings, _> = toml::from_str(&format!("qemu_uids = {text}"));
        settings.map(|settings| settings.qemu_uids).map_err(|error| error.to_string())
    }

    #[test]
    fn a_range_is_taken_only_where_users_of_the_host_are_not() {
        let range = UidRange { first: 100_000, count: 2 };
        assert_eq!(setting("{ first = 100000, count = 2 }"), Ok(QemuUids::Range(range)));
        assert_eq!(setting("'root'"), Ok(QemuUids::Root));
        for wrong in [
            "{ first = 65535, count = 9 }",
            "{ first = 100000, count = 1 }",
            "{ first = 4294967000, count = 296 }",
        ] {
            assert!(setting(wrong).unwrap_err().contains("from 65536 on"), "{wrong}");
        }
        for wrong in ["'Root'", "7", "{ first = 100000 }", "{ first = 100000, count = 2, x = 1 }"] {
            assert!(setting(wrong).unwrap_err().contains("root"), "{wrong}");
        }
        assert!(QemuUids::Root.in_force().is_none() && QemuUids::Root.warning().is_some());
    }

    #[test]
    fn each_vm_has_another_uid_until_there_is_none_left() {
        let range = UidRange { first: 100_000, count: 5 };
        let mut taken = HashSet::new();
        for n in 0..4 {
            let uid = range.pick(&("installation", "web"), |uid| taken.contains(&uid)).unwrap();
            assert!(
                range.has(uid) && uid != range.of_questions(false).uid && taken.insert(uid),
                "{n}"
            );
        }
        assert_eq!(range.pick(&"web", |uid| taken.contains(&uid)), None);
        assert!(!range.has(99_999) && !range.has(100_005));
        let whole = UidRange { first: FIRST, count: COUNT };
        let begins: HashSet<_> = (0..8).map(|vm| whole.pick(&vm, |_| false)).collect();
        assert!(begins.len() > 1, "VMs begin at different places");
    }

    #[test]
    fn a_process_says_what_it_runs_as() {
        let own = rustix::process::geteuid().as_raw();
        assert_eq!(uid_of(std::process::id()), Some(own));
        let range = UidRange { first: own, count: 1 };
        assert_eq!(range.living(), HashSet::from([own]));
        assert_eq!(uid_of(u32::MAX), None);
    }

    #[test]
    fn the_group_of_a_device_is_taken_where_it_gives_what_others_lack() {
        let group = |bits, gid| group_of(&Mode { bits, gid });
        assert_eq!(group(0o660, 104), Some(104));
        assert_eq!(group(0o666, 104), None);
        assert_eq!(group(0o600, 104), None);
        assert_eq!(group(0o660, 0), None);
    }

    #[test]
    fn what_bars_a_user_from_a_program_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("qemu");
        fs::write(&program, "").unwrap();
        let allow = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        allow(folder.path(), 0o700);
        assert!(barred(&program).unwrap().contains("cannot pass"));
        assert!(barred(folder.path()).unwrap().contains("cannot read"));
        allow(folder.path(), 0o711);
        allow(&program, 0o750);
        assert!(barred(&program).unwrap().contains("cannot execute"));
        assert!(barred(folder.path()).unwrap().contains("cannot read"));
        allow(&program, 0o755);
        assert_eq!(barred(&program), None);
        assert_eq!(barred(Path::new("/no/qemu")), None);
    }
}
