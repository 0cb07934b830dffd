//! QEMU's command line, taken apart as QEMU takes it apart (`lookup_opt` in its `system/vl.c`).

use super::Breach;

/// Options without an argument, of QEMU 7.2 to 10.0.
const FLAGS: &[&str] = &[
    "S",
    "alt-grab",
    "async-teardown",
    "ctrl-grab",
    "daemonize",
    "enable-kvm",
    "enable-sync-profile",
    "full-screen",
    "h",
    "help",
    "mem-prealloc",
    "no-acpi",
    "no-fd-bootchk",
    "no-hpet",
    "no-quit",
    "no-reboot",
    "no-shutdown",
    "no-user-config",
    "nodefaults",
    "nographic",
    "old-param",
    "one-insn-per-tb",
    "only-migratable",
    "portrait",
    "preconfig",
    "sdl",
    "semihosting",
    "singlestep",
    "snapshot",
    "usb",
    "version",
    "win2k-hack",
    "xen-attach",
    "xen-domid-restrict",
];

/// Options that the agent sets, that read further options from elsewhere, or that run programs: no policy allows them.
const NEVER: &[&str] = &[
    "D",
    "L",
    "M",
    "S",
    "accel",
    "add-fd",
    "append",
    "chroot",
    "d",
    "daemonize",
    "enable-kvm",
    "h",
    "help",
    "incoming",
    "initrd",
    "kernel",
    "loadvm",
    "m",
    "machine",
    "mem-path",
    "mem-prealloc",
    "name",
    "no-user-config",
    "nodefaults",
    "pidfile",
    "plugin",
    "preconfig",
    "readconfig",
    "run-with",
    "runas",
    "sandbox",
    "set",
    "smp",
    "trace",
    "user",
    "version",
    "writeconfig",
];

/// One option of a command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given<'a> {
    /// Its name, without dashes.
    pub name: &'a str,
    /// Its argument.
    pub value: Option<&'a str>,
}

/// Whether QEMU takes no argument behind this option.
pub fn is_flag(name: &str) -> bool {
    FLAGS.contains(&name)
}

/// Whether no policy can allow this option.
pub fn is_never(name: &str) -> bool {
    NEVER.contains(&name)
}

/// Name of an option as QEMU looks it up: behind one dash or two. `None`: QEMU takes the word for a disk.
pub fn name(word: &str) -> Option<&str> {
    let rest = word.strip_prefix('-')?;
    Some(rest.strip_prefix('-').unwrap_or(rest))
}

/// The options of a command line.
///
/// # Errors
/// A word that is no option, or an option without its argument.
pub fn given(words: &[String]) -> Result<Vec<Given<'_>>, Breach> {
    let mut found = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let Some(name) = name(word) else { return Err(Breach::Word { word: word.clone() }) };
        let value = match is_flag(name) {
            true => None,
            false => match words.next() {
                Some(value) => Some(value.as_str()),
                None => return Err(Breach::NoArgument { option: word.clone() }),
            },
        };
        found.push(Given { name, value });
    }
    Ok(found)
}
