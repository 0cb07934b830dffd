//! The logs of VMs: what guests write to their serial ports, and what QEMU itself says. QEMU appends to plain files, so it
//! neither waits for an agent nor loses a word when there is none; the agent keeps the files small. A file that has grown
//! past its limit is copied to `NAME.1`, in place of the one before, and cut to nothing: what a dying guest said last is on
//! the disk. What is written in the moment between copy and cut is lost.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::time::Duration;

use rustix::fs::OFlags;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::warn;

use super::manager::Inner;

/// A log that is longer is cut; with its predecessor a log takes twice that.
pub const LOG_BYTES_MAX: u64 = 8 << 20;
/// Time between two looks at all logs: a serial port brings less than the limit meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Keeps the logs of a host's VMs small until their manager is gone. One task.
pub(super) async fn keep_small(inner: Weak<Inner>) {
    loop {
        sleep(LOOK_EVERY).await;
        let Some(logs) = inner.upgrade().map(|inner| inner.logs()) else { return };
        // One after the other: nothing waits for them.
        let kept = spawn_blocking(move || logs.iter().for_each(|log| keep_one(log)));
        let _ = kept.await;
    }
}

fn keep_one(log: &Path) {
    match cut(log, LOG_BYTES_MAX) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            warn!(log = %log.display(), %error, "a log cannot be kept small");
        }
        _ => {}
    }
}

/// Cuts a log that is longer than this; true if it was.
///
/// # Errors
/// It is no plain file of its own name alone (QEMU's user may write to the folder, and the agent is root), or the disk
/// refuses: then the log stays as it is.
fn cut(log: &Path, limit: u64) -> io::Result<bool> {
    // A pipe in its place must not hang, nor a link lead elsewhere.
    let careful = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let mut file = OpenOptions::new().read(true).write(true).custom_flags(careful).open(log)?;
    let about = file.metadata()?;
    if !about.is_file() || about.nlink() != 1 {
        return Err(io::Error::other("it is no plain file, or has a second name"));
    }
    if about.len() <= limit {
        return Ok(false);
    }
    let (new, old) = (named(log, ".1.new"), named(log, ".1"));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut copy = File::create_new(&new)?;
    copy.set_permissions(about.permissions())?;
    io::copy(&mut file, &mut copy)?;
    fs::rename(&new, &old)?;
    // QEMU appends: its next word stands at the beginning.
    file.set_len(0)?;
    Ok(true)
}

fn named(log: &Path, more: &str) -> PathBuf {
    let mut name = OsString::from(log);
    name.push(more);
    name.into()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_log_that_grows_is_cut_and_its_last_words_stay() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("serial.log");
        let mut qemu = File::options().create(true).append(true).open(&log).unwrap();
        let old = || fs::read_to_string(folder.path().join("serial.log.1")).unwrap();
        for (words, is_cut) in
            [("short", false), ("er than that", true), ("another long one", true)]
        {
            qemu.write_all(words.as_bytes()).unwrap();
            assert_eq!(cut(&log, 10).unwrap(), is_cut, "{words}");
        }
        assert_eq!(old(), "another long one");
        qemu.write_all(b"panic").unwrap();
        assert!(!cut(&log, 10).unwrap());
        assert_eq!(
            (old(), fs::read_to_string(&log).unwrap()),
            ("another long one".into(), "panic".into())
        );
    }

    #[test]
    fn what_is_no_log_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (secret, link) = (folder.path().join("shadow"), folder.path().join("serial.log"));
        fs::write(&secret, "root has no password").unwrap();
        std::os::unix::fs::symlink(&secret, &link).unwrap();
        cut(&link, 1).unwrap_err();
        fs::remove_file(&link).unwrap();
        fs::hard_link(&secret, &link).unwrap();
        cut(&link, 1).unwrap_err();
        fs::remove_file(&link).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &link, rustix::fs::Mode::RWXU).unwrap();
        cut(&link, 1).unwrap_err();
        assert_eq!(fs::read_to_string(&secret).unwrap(), "root has no password");
        assert!(!folder.path().join("serial.log.1").exists());
    }
}
