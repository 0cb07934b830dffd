//! Hears of a device's removal.
//!
//! The kernel removes the device's node at once, and the device itself only when every program has closed it: some
//! drivers tell programs nothing else.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

use crate::watched::readable;

/// Bytes of events that are read at a time; one with a name takes at most 272.
const EVENTS: usize = 1024;

/// A node that is watched.
#[derive(Debug)]
pub(crate) struct Removal {
    events: AsyncFd<OwnedFd>,
    name: String,
    is_there: bool,
}

impl Removal {
    /// Watches a node of a folder. Must be called within a runtime of tokio.
    pub(crate) fn of(folder: &Path, name: &str) -> io::Result<Self> {
        let events = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        add_watch(&events, folder, WatchFlags::DELETE | WatchFlags::MOVED_FROM)?;
        // Only now: what is removed from here on is heard of.
        let is_there = folder.join(name).exists();
        Ok(Self { events: readable(events)?, name: name.to_owned(), is_there })
    }

    /// Waits for the removal. Cancel safe: no, an event may be lost.
    pub(crate) async fn wait(&self) -> io::Result<()> {
        if !self.is_there {
            return Ok(());
        }
        loop {
            let mut ready = self.events.readable().await?;
            let mut buffer = [MaybeUninit::uninit(); EVENTS];
            let mut reader = Reader::new(self.events.get_ref(), &mut buffer);
            loop {
                match reader.next() {
                    Ok(event) => {
                        let name = event.file_name().map(|name| name.to_bytes());
                        if name == Some(self.name.as_bytes()) {
                            return Ok(());
                        }
                    }
                    Err(Errno::WOULDBLOCK) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            ready.clear_ready();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_node_is_waited_for_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let node = |name: &str| folder.path().join(name);
        for name in ["uverbs0", "uverbs1"] {
            fs::write(node(name), "").unwrap();
        }
        let removal = Removal::of(folder.path(), "uverbs0").unwrap();
        fs::remove_file(node("uverbs1")).unwrap();
        fs::write(node("uverbs1"), "").unwrap();
        let early = tokio::time::timeout(Duration::from_millis(20), removal.wait()).await;
        assert!(early.is_err(), "another node was taken for it");
        fs::remove_file(node("uverbs0")).unwrap();
        // Another device may have the name by the time that we look.
        fs::write(node("uverbs0"), "").unwrap();
        removal.wait().await.unwrap();
        Removal::of(folder.path(), "uverbs2").unwrap().wait().await.unwrap();
        assert!(Removal::of(&folder.path().join("none"), "uverbs0").is_err());
    }
}
