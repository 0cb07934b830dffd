//! How QEMU is started for the outer machine.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Result, ensure};

use super::Options;
use crate::image::{self, Qemu, text};

/// The port that the job's output comes by; `machine.sh` looks for it.
const OUTPUT: &str = "output";

/// QEMU's arguments. Its standard output is the job's, its console goes to `console`.
pub(super) fn arguments(options: &Options, console: &Path) -> Result<Vec<OsString>> {
    let results = text(&options.results);
    ensure!(
        !results.contains(|c: char| c == ',' || c.is_whitespace()),
        "{results}: the path of the results folder goes to a kernel, without blanks and commas"
    );
    let firmware = Qemu::V10_0.firmware();
    let mut arguments: Vec<OsString> =
        firmware.iter().flat_map(|folder| ["-L".into(), folder.into()]).collect();
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(OsString::from));
    add(&["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    add(&["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max"]);
    add(&["-smp", &options.cpus.to_string(), "-m", &options.memory_mib.to_string()]);
    add(&["-kernel", &text(&image::lab_b_kernel()), "-initrd", &text(&image::lab_b_initrd())]);
    add(&["-append", &kernel_arguments(&results)]);
    add(&["-serial", &format!("file:{}", text(console))]);
    add(&["-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap"]);
    add(&["-device", "virtio-9p-pci,fsdev=host,mount_tag=host"]);
    let folder = format!("local,id=results,path={results},security_model=none,multidevs=remap");
    add(&["-fsdev", &folder, "-device", "virtio-9p-pci,fsdev=results,mount_tag=results"]);
    add(&["-chardev", "stdio,id=output,signal=off", "-device", "virtio-serial-pci"]);
    add(&["-device", &format!("virtserialport,chardev=output,name={OUTPUT}")]);
    Ok(arguments)
}

/// `no_timer_check`: on a busy machine the kernel's check of its timer panics. `tsc=reliable`: reading any other clock
/// is a device access, which stops the other virtual CPU. A panic ends QEMU, which does not reboot.
fn kernel_arguments(results: &str) -> String {
    format!(
        "console=ttyS0 quiet mitigations=off no_timer_check tsc=reliable panic=-1 lab_b.results={results}"
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_folder_that_a_kernel_cannot_be_told_is_refused() {
        let mut options = Options::of("/tmp/results".into(), Duration::from_secs(1));
        assert!(arguments(&options, Path::new("/tmp/console")).is_ok());
        for path in ["/tmp/two words", "/tmp/a,b"] {
            options.results = path.into();
            assert!(arguments(&options, Path::new("/tmp/console")).is_err(), "{path}");
        }
    }

    #[test]
    fn the_machine_looks_for_the_port_that_qemu_has() {
        assert!(super::super::MACHINE.contains(&format!("= {OUTPUT} ]")));
        assert!(super::super::INITRD.contains("lab_b.results="));
    }
}
