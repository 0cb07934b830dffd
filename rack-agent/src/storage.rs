//! Storage that other hosts share, as far as the agent touches it. A call into storage that does not answer (NFS without its
//! server) cannot be ended, so each is made by a thread of its own: never by the runtime, which would take every session with
//! it, nor by the runtime's own threads, whose end it waits for. There are few such threads; those that hang are counted.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::policy;
use crate::vm;

/// Storage answers within this, or counts as hung. Less than a preflight check may take.
pub const STORAGE_LIMIT: Duration = Duration::from_secs(2);
/// Calls into storage at a time, hung ones among them.
pub const STORAGE_THREADS: usize = 16;

/// Why something in storage is not known.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The call has not come back.
    #[error("its storage does not answer")]
    Hangs,
    /// There is no thread left for the call.
    #[error(
        "not looked at: {STORAGE_THREADS} other files are being looked at, on storage that does not answer"
    )]
    Full,
    /// The kernel refuses.
    #[error(transparent)]
    Failed(#[from] io::Error),
}

/// A file as it is: another one of its name, or other content, has another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    device: u64,
    inode: u64,
    bytes: u64,
    /// Nanoseconds since 1970.
    modified: i128,
}

impl FileId {
    fn of(about: &Metadata) -> Self {
        let modified = i128::from(about.mtime()) * 1_000_000_000 + i128::from(about.mtime_nsec());
        Self { device: about.dev(), inode: about.ino(), bytes: about.len(), modified }
    }
}

/// The way to shared storage. Bounded by its threads; clones share them.
#[derive(Clone, Debug)]
pub struct Storage {
    limit: Duration,
    threads: usize,
    free: Arc<Semaphore>,
    hung: Arc<Hung>,
}

/// Paths of calls that have not come back in time, one entry a call. Held for look-ups only.
#[derive(Debug, Default)]
struct Hung(Mutex<Vec<PathBuf>>);

impl Hung {
    fn paths(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        // Nothing panics under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self::new(STORAGE_LIMIT, STORAGE_THREADS)
    }
}

impl Storage {
    pub(crate) fn new(limit: Duration, threads: usize) -> Self {
        Self { limit, threads, free: Arc::new(Semaphore::new(threads)), hung: Arc::default() }
    }

    /// Opens a file and closes it again. Takes no longer than [`STORAGE_LIMIT`]. Cancel safe.
    ///
    /// # Errors
    /// As the kernel says, or [`StorageError::Hangs`], [`StorageError::Full`].
    pub async fn open(&self, path: &Path, writable: bool) -> Result<(), StorageError> {
        let open = move |path: &Path| OpenOptions::new().read(true).write(writable).open(path);
        self.ask(path, open).await.map(|_: File| ())
    }

    /// What tells a file from the one that replaces it. As [`Storage::open`].
    ///
    /// # Errors
    /// As [`Storage::open`].
    pub async fn identity(&self, path: &Path) -> Result<FileId, StorageError> {
        self.ask(path, |path| fs::metadata(path).map(|about| FileId::of(&about))).await
    }

    /// Where a path leads, as a policy asks. As [`Storage::open`].
    ///
    /// # Errors
    /// As [`Storage::open`].
    pub async fn real(&self, path: &Path) -> Result<Option<PathBuf>, StorageError> {
        self.ask(path, |path| Ok(policy::real(path))).await
    }

    /// What keeps a user without rights of its own from a program or a folder. As [`Storage::open`].
    ///
    /// # Errors
    /// As [`Storage::open`].
    pub async fn barred(&self, path: &Path) -> Result<Option<String>, StorageError> {
        self.ask(path, |path| Ok(vm::barred(path))).await
    }

    async fn ask<T: Send + 'static>(
        &self,
        path: &Path,
        call: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StorageError> {
        self.ask_within(self.limit, path, call).await
    }

    /// Makes a call into storage. Cancel safe: what it gives is then dropped by its own thread.
    ///
    /// # Errors
    /// As [`Storage::open`].
    pub(crate) async fn ask_within<T: Send + 'static>(
        &self,
        limit: Duration,
        path: &Path,
        call: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StorageError> {
        let deadline = Instant::now() + limit;
        {
            let hung = self.hung.paths();
            // A second call would only hang a second thread.
            if hung.iter().any(|known| known == path) {
                return Err(StorageError::Hangs);
            }
            if hung.len() >= self.threads {
                return Err(StorageError::Full);
            }
        }
        let permit = timeout_at(deadline, self.free.clone().acquire_owned()).await;
        let Ok(Ok(permit)) = permit else { return Err(StorageError::Full) };
        let (answer, mut answered) = oneshot::channel();
        let (own, hung) = (path.to_owned(), self.hung.clone());
        let work = move || {
            let found = call(&own);
            // In this order under the lock: a caller that gives up sees the answer, or is seen to have given up.
            let mut hung = hung.paths();
            let _ = answer.send(found);
            if let Some(at) = hung.iter().position(|known| *known == own) {
                hung.swap_remove(at);
            }
            drop((hung, permit));
        };
        thread::Builder::new().name("storage".to_owned()).spawn(work)?;
        match timeout_at(deadline, &mut answered).await {
            Ok(found) => Ok(found.unwrap_or_else(|_| Err(io::Error::other("its thread ended")))?),
            Err(_) => {
                let mut hung = self.hung.paths();
                match answered.try_recv() {
                    Ok(found) => Ok(found?),
                    Err(_) => {
                        hung.push(path.to_owned());
                        Err(StorageError::Hangs)
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    /// Long enough for a good file on a machine that has much else to do.
    const LIMIT: Duration = Duration::from_secs(2);

    /// A file whose open hangs until it is opened for writing.
    fn fifo(folder: &Path, name: &str) -> PathBuf {
        let path = folder.join(name);
        mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        path
    }

    fn answer(fifo: &Path) {
        drop(OpenOptions::new().write(true).open(fifo).unwrap());
    }

    #[tokio::test]
    async fn what_hangs_is_told_and_hangs_only_itself() {
        let folder = tempfile::tempdir().unwrap();
        let (hangs, good) = (fifo(folder.path(), "hangs"), folder.path().join("good"));
        fs::write(&good, "").unwrap();
        let storage = Storage::new(LIMIT, 2);
        let (hung, (), opened) = tokio::join!(
            storage.open(&hangs, false),
            tokio::time::sleep(LIMIT / 2),
            storage.open(&good, true),
        );
        assert!(matches!(hung, Err(StorageError::Hangs)), "{hung:?}");
        opened.unwrap();
        // Again: no second thread hangs.
        assert!(matches!(storage.open(&hangs, false).await, Err(StorageError::Hangs)));
        assert_eq!(storage.hung.paths().len(), 1);
        storage.identity(&good).await.unwrap();
        let absent = storage.open(&folder.path().join("absent"), false).await;
        assert!(
            matches!(absent, Err(StorageError::Failed(e)) if e.kind() == io::ErrorKind::NotFound)
        );
        answer(&hangs);
        let _all = storage.free.acquire_many(2).await.unwrap();
        assert!(storage.hung.paths().is_empty());
    }

    #[tokio::test]
    async fn the_threads_that_hang_are_bounded_and_the_next_is_answered_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::new(LIMIT, 3);
        let fifos: Vec<_> = (0..5).map(|n| fifo(folder.path(), &n.to_string())).collect();
        let all =
            futures::future::join_all(fifos.iter().map(|path| storage.open(path, false))).await;
        let hung = all.iter().filter(|one| matches!(one, Err(StorageError::Hangs))).count();
        assert_eq!((hung, storage.hung.paths().len()), (3, 3), "{all:?}");
        let refused = storage.open(folder.path(), false).now_or_never();
        assert!(matches!(refused, Some(Err(StorageError::Full))), "{refused:?}");
        fifos[..3].iter().for_each(|path| answer(path));
        let _all = storage.free.acquire_many(3).await.unwrap();
        assert!(storage.hung.paths().is_empty());
    }
}
