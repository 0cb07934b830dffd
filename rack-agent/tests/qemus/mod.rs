//! The QEMUs that tests of the agent run.

use std::path::PathBuf;

use rackferry_agent::vm::Qemu;

/// QEMU 7.2 and 10.0, as far as they are installed.
pub fn qemus() -> Vec<(&'static str, Qemu)> {
    let cache = std::env::var("RACKFERRY_CACHE").unwrap_or("/var/cache/rackferry".to_owned());
    let unpacked = PathBuf::from(cache).join("qemu-10.0/usr");
    let new = Qemu {
        binary: unpacked.join("bin/qemu-system-x86_64"),
        firmware: vec![
            unpacked.join("share/qemu"),
            "/usr/share/seabios".into(),
            "/usr/lib/ipxe/qemu".into(),
            "/usr/share/qemu".into(),
        ],
    };
    let all = [("7.2", Qemu::default()), ("10.0", new)];
    all.into_iter()
        .filter(|(version, qemu)| {
            let there = qemu.binary.exists();
            if !there {
                println!("skipped: no QEMU {version} at {}", qemu.binary.display());
            }
            there
        })
        .collect()
}
