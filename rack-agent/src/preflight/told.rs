//! What QEMUs of this host say of themselves. Each is asked once, until its file changes.

use std::collections::HashMap;
use std::hash::Hash;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::timeout;

use crate::storage::{FileId, Storage};

/// A check waits this long for a QEMU's answer. Two of them and the storage's limit twice are less than a coordinator waits.
const PATIENCE: Duration = Duration::from_secs(10);
/// A QEMU is killed that says nothing for so long. A cold host takes seconds to load one.
const ANSWER: Duration = Duration::from_secs(60);
/// Answers of one kind that are remembered; a host has a few.
const ANSWERS: usize = 256;

/// A program that has not answered yet. It is asked on, so that a later check has the answer.
#[derive(Debug, thiserror::Error)]
#[error(
    "{program} has not answered within {waited:?}: this host is slow, or loads it for the first time"
)]
pub struct Late {
    program: String,
    waited: Duration,
}

/// Answers, and the file of the program that gave them as it was then.
type Known<K, V> = HashMap<K, (FileId, Arc<V>)>;

/// Answers by question.
#[derive(Debug)]
pub struct Told<K, V> {
    known: Arc<Mutex<Known<K, V>>>,
    /// Held while a QEMU is asked: a task that waits wants the same answer.
    asking: Arc<tokio::sync::Mutex<()>>,
    patience: Duration,
}

impl<K, V> Default for Told<K, V> {
    fn default() -> Self {
        Self { known: Arc::default(), asking: Arc::default(), patience: PATIENCE }
    }
}

impl<K, V> Told<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// What a program says to a question; `ask` asks it. Cancel safe: the program is asked on, and the answer kept.
    ///
    /// # Errors
    /// It is not there, it is [`Late`], or what `ask` fails with.
    pub async fn get(
        &self,
        storage: &Storage,
        binary: &Path,
        question: &K,
        ask: impl Future<Output = Result<V>> + Send + 'static,
    ) -> Result<Arc<V>> {
        let name = binary.display();
        let file = storage.identity(binary).await;
        let file = file.with_context(|| format!("cannot read {name}"))?;
        let answer = async {
            let asking = self.asking.clone().lock_owned().await;
            let same = known(&self.known).get(question).filter(|(then, _)| *then == file).cloned();
            if let Some((_, answer)) = same {
                return Ok(answer);
            }
            let silent = format!("{name} says nothing for {} s", ANSWER.as_secs());
            let (all, question) = (self.known.clone(), question.clone());
            let asked = tokio::spawn(async move {
                let _asking = asking;
                let answer = Arc::new(timeout(ANSWER, ask).await.context(silent)??);
                let mut all = known(&all);
                if all.len() >= ANSWERS {
                    all.clear();
                }
                all.insert(question, (file, answer.clone()));
                Ok(answer)
            });
            asked.await.context("the question was given up")?
        };
        let late = || Late { program: name.to_string(), waited: self.patience };
        timeout(self.patience, answer).await.unwrap_or_else(|_| Err(late().into()))
    }

    /// The last answer; none if there was none yet.
    pub fn last(&self, question: &K) -> Option<Arc<V>> {
        known(&self.known).get(question).map(|(_, answer)| answer.clone())
    }
}

fn known<K, V>(all: &Mutex<Known<K, V>>) -> MutexGuard<'_, Known<K, V>> {
    // Nothing panics under this lock.
    all.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use tokio::sync::oneshot;

    use super::*;

    struct Asked {
        told: Told<&'static str, u32>,
        storage: Storage,
        file: tempfile::NamedTempFile,
    }

    impl Asked {
        fn new() -> Self {
            let file = tempfile::NamedTempFile::new().unwrap();
            Self { told: Told::default(), storage: Storage::default(), file }
        }

        async fn get(
            &self,
            answer: impl Future<Output = Result<u32>> + Send + 'static,
        ) -> Result<u32> {
            let got = self.told.get(&self.storage, self.file.path(), &"version", answer).await;
            got.map(|answer| *answer)
        }
    }

    #[tokio::test]
    async fn a_program_is_asked_again_when_its_file_changes() {
        let asked = Asked::new();
        let written = |second| SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        asked.file.as_file().set_modified(written(1)).unwrap();
        assert_eq!(asked.get(async { Ok(7) }).await.unwrap(), 7);
        assert_eq!(asked.get(async { Ok(10) }).await.unwrap(), 7, "its file is the same");
        asked.file.as_file().set_modified(written(2)).unwrap();
        assert_eq!(asked.get(async { Ok(10) }).await.unwrap(), 10);
        assert_eq!(asked.told.last(&"version").as_deref(), Some(&10));
    }

    #[tokio::test]
    async fn what_is_not_there_says_so() {
        let (told, storage) = (Told::<(), ()>::default(), Storage::default());
        let asked = told.get(&storage, Path::new("/nowhere/qemu"), &(), async { Ok(()) });
        let error = asked.await.unwrap_err();
        assert!(error.to_string().contains("/nowhere/qemu"), "{error}");
    }

    /// A cold host: its QEMU takes longer to load than a check waits.
    #[tokio::test]
    async fn a_slow_program_is_asked_on_and_its_answer_is_there_for_the_next_check() {
        let mut asked = Asked::new();
        asked.told.patience = Duration::from_millis(20);
        let (say, said) = oneshot::channel();
        let error = asked.get(async { Ok(said.await?) }).await.unwrap_err();
        assert!(error.is::<Late>(), "{error}");
        say.send(7).unwrap();
        asked.told.patience = PATIENCE;
        let again = asked.get(async { anyhow::bail!("asked twice") }).await;
        assert_eq!(again.unwrap(), 7);
    }
}
