//! Those who are expelled from the site, as the coordinator said last: kept in the state directory, so that an agent that
//! starts without reaching a coordinator denies them, too.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use rackferry_proto::v1;
use rackferry_tls::{Expelled, Tls, trust};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::vm::write_durably;

const FILE: &str = "expelled.json";

/// One line of the file.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    serial: Option<String>,
}

/// The list, and where it is kept.
#[derive(Debug)]
pub struct ExpelledList {
    tls: Tls,
    state_dir: PathBuf,
    /// Held while the file is written, by one writer at a time: never by a task of the runtime.
    file: Mutex<()>,
}

impl ExpelledList {
    /// Takes the kept list up.
    ///
    /// # Errors
    /// If it cannot be read: the agent must not start as if no certificate were expelled.
    pub fn open(tls: Tls, state_dir: &Path) -> anyhow::Result<Arc<Self>> {
        let path = state_dir.join(FILE);
        let advice = || {
            format!(
                "reading {}: it says who is expelled; if it is damaged, remove it while a coordinator can be reached",
                path.display()
            )
        };
        let lines: Vec<Line> = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).with_context(advice)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error).with_context(advice),
        };
        tls.expel(lines.into_iter().map(|Line { name, serial }| Expelled { name, serial }));
        let (state_dir, file) = (state_dir.to_owned(), Mutex::default());
        Ok(Arc::new(Self { tls, state_dir, file }))
    }

    /// Takes the list of the coordinator: it holds at once, and is kept soon after.
    pub fn take(self: &Arc<Self>, list: v1::Expelled) {
        let all = list.certificates.into_iter().filter_map(|one| {
            let v1::ExpelledCertificate { name, serial, .. } = one;
            match serial.as_str() {
                "" => Some(Expelled { name, serial: None }),
                // A serial number that is none names no certificate.
                text => trust::serial(text).map(|serial| Expelled { name, serial: Some(serial) }),
            }
        });
        let before = self.tls.expelled();
        let ended = self.tls.expel(all);
        let now = self.tls.expelled();
        if before == now {
            return;
        }
        info!(expelled = now.len(), ended, "the list of expelled certificates is in use");
        let list = self.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = list.keep() {
                warn!(
                    error = format!("{error:#}"),
                    "who is expelled is known until the agent ends"
                );
            }
        });
    }

    /// Writes the list as it is by now down.
    fn keep(&self) -> anyhow::Result<()> {
        let _alone = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let line = |one: &Expelled| Line { name: one.name.clone(), serial: one.serial.clone() };
        let lines: Vec<Line> = self.tls.expelled().iter().map(line).collect();
        Ok(write_durably(&self.state_dir, FILE, &serde_json::to_vec_pretty(&lines)?)?)
    }
}
