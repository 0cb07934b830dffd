//! Driver for QEMU's machine protocol (QMP), from QEMU 7.2 on.
//!
//! One task owns the socket, [`Qmp`] is a handle to it that may be cloned and given up at any time: a
//! caller that stops waiting (a QEMU in its completion phase holds its big lock and answers no command)
//! leaves the connection intact, its late answer is dropped.
//!
//! Commands are those of the `qapi` crate or small types of our own implementing its `Command` trait,
//! where QEMU versions differ from its schema. Its connection is not used: it closes on an unknown
//! event or enum value, and a command that is given up breaks it.

mod command;
mod connection;
mod error;
mod event;
mod hold;
mod source;
mod target;
mod types;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use qapi::Execute;
use tokio::net::UnixStream;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

pub use error::QmpError;
pub use event::{Event, TimedEvent};
pub use hold::{Accelerator, Rest, SavedParameters};
pub use source::{SourceCaps, SourceFacts};
pub use types::{MigrationInfo, MigrationStatus, QemuVersion, RamInfo, RunState, Valve};

use connection::{Connection, Request};

/// How long a command may take unless [`Qmp::within`] says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause between two looks when events do not tell.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Longest wait for one answer while polling, so that one hung query does not eat the whole deadline.
const POLL_TIMEOUT: Duration = Duration::from_millis(500);

/// Handle to one QEMU's monitor. Clones share the connection, which closes with the last of them.
#[derive(Clone, Debug)]
pub struct Qmp {
    shared: Arc<Shared>,
    timeout: Duration,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    version: QemuVersion,
    peer_pid: Option<u32>,
    next_id: AtomicU64,
    requests: mpsc::Sender<Request>,
    /// Never read; kept to be cloned from, so that receivers see the end of the channel.
    events: broadcast::Receiver<TimedEvent>,
    passes: watch::Receiver<u64>,
    closed: watch::Receiver<Option<Arc<str>>>,
}

impl Qmp {
    /// Connects to the QMP unix socket and negotiates, within [`DEFAULT_TIMEOUT`].
    ///
    /// Cancel safe: nothing is left behind.
    ///
    /// # Errors
    /// The socket is not there, another client holds the monitor, or it does not speak QMP.
    pub async fn connect(path: impl AsRef<Path>) -> Result<Self, QmpError> {
        let path = path.as_ref();
        let deadline = Instant::now() + DEFAULT_TIMEOUT;
        let failed = |source| QmpError::Connect { path: path.to_owned(), source };
        let stream = UnixStream::connect(path).await.map_err(failed)?;
        let peer_pid =
            stream.peer_cred().ok().and_then(|peer| peer.pid()).and_then(|pid| pid.try_into().ok());
        let greeted = timeout_at(deadline, Connection::greet(stream)).await;
        let (connection, version) = greeted.map_err(|_| QmpError::NoGreeting {
            path: path.to_owned(),
            waited: DEFAULT_TIMEOUT,
        })??;
        let ends = connection.spawn();
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            version,
            peer_pid,
            next_id: AtomicU64::new(0),
            requests: ends.requests,
            events: ends.events,
            passes: ends.passes,
            closed: ends.closed,
        });
        let qmp = Self { shared, timeout: DEFAULT_TIMEOUT };
        qmp.execute(qapi::qmp::qmp_capabilities { enable: None }).await?;
        Ok(qmp)
    }

    /// Like [`Qmp::connect`], trying again until `timeout` is over: for a QEMU that is starting.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// The last attempt's error.
    pub async fn connect_within(
        path: impl AsRef<Path>,
        timeout: Duration,
    ) -> Result<Self, QmpError> {
        let deadline = Instant::now() + timeout;
        let path = path.as_ref();
        loop {
            let attempt = timeout_at(deadline, Self::connect(path)).await.unwrap_or_else(|_| {
                Err(QmpError::NoGreeting { path: path.to_owned(), waited: timeout })
            });
            match attempt {
                Ok(qmp) => return Ok(qmp),
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        }
    }

    /// The same connection with another time limit for each command.
    #[must_use]
    pub fn within(&self, timeout: Duration) -> Self {
        Self { shared: Arc::clone(&self.shared), timeout }
    }

    /// Version from the greeting.
    #[must_use]
    pub fn version(&self) -> QemuVersion {
        self.shared.version
    }

    /// Path this handle was connected to.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Process that listens at the socket, from the kernel: QEMU itself, or the process that gave it the socket.
    #[must_use]
    pub fn peer_pid(&self) -> Option<u32> {
        self.shared.peer_pid
    }

    /// Events from now on, closed with the connection. A receiver that falls behind by more than 256 is told so and must query.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<TimedEvent> {
        self.shared.events.resubscribe()
    }

    /// Last MIGRATION_PASS seen. Kept out of [`Qmp::events`]: a held QEMU makes thousands a second.
    #[must_use]
    pub fn passes(&self) -> watch::Receiver<u64> {
        self.shared.passes.clone()
    }

    /// True once the connection is lost; every command fails from then on.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.closed.borrow().is_some()
    }

    /// Waits until the connection is lost and says why. Cancel safe.
    pub async fn closed(&self) -> Arc<str> {
        let mut closed = self.shared.closed.clone();
        let reason = closed.wait_for(Option::is_some).await;
        reason.ok().and_then(|reason| reason.clone()).unwrap_or_else(|| "task ended".into())
    }

    /// Runs one command.
    ///
    /// Cancel safe for the connection; QEMU may still carry the command out.
    ///
    /// # Errors
    /// Lost connection, time limit, refusal by QEMU, an answer of unexpected shape.
    pub async fn execute<C: qapi::Command>(&self, command: C) -> Result<C::Ok, QmpError> {
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let mut line = serde_json::to_vec(&Execute::with_id(command, id))
            .map_err(|source| QmpError::Encode { command: C::NAME, source })?;
        line.push(b'\n');
        let (reply, answer) = oneshot::channel();
        let request = Request { id, line, reply };
        self.shared.requests.try_send(request).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => QmpError::Busy { command: C::NAME },
            mpsc::error::TrySendError::Closed(_) => self.lost(),
        })?;
        let answer = timeout(self.timeout, answer)
            .await
            .map_err(|_| QmpError::Timeout { what: C::NAME, waited: self.timeout })?;
        let value = answer.map_err(|_| self.lost())?.map_err(|refusal| QmpError::Refused {
            command: C::NAME,
            class: refusal.class,
            desc: refusal.desc,
        })?;
        serde_json::from_value(value)
            .map_err(|source| QmpError::Answer { command: C::NAME, source })
    }

    fn lost(&self) -> QmpError {
        let reason = self.shared.closed.borrow().clone();
        QmpError::Closed { reason: reason.unwrap_or_else(|| "connection task ended".into()) }
    }

    /// Calls `look` on every event and every 50 ms until it gives a value. Queries that time out are
    /// repeated, so a QEMU that hangs for a while is waited for.
    async fn wait_until<T, F>(
        &self,
        what: &'static str,
        limit: Duration,
        look: impl Fn(Qmp) -> F,
    ) -> Result<T, QmpError>
    where
        F: Future<Output = Result<Option<T>, QmpError>>,
    {
        let deadline = Instant::now() + limit;
        let mut events = self.events();
        let short = self.within(POLL_TIMEOUT.min(limit));
        let waited = async {
            loop {
                match look(short.clone()).await {
                    Ok(Some(found)) => return Ok(found),
                    Ok(None) | Err(QmpError::Timeout { .. } | QmpError::Busy { .. }) => {}
                    Err(error) => return Err(error),
                }
                let event = timeout(POLL_INTERVAL, events.recv()).await;
                if let Ok(Err(broadcast::error::RecvError::Closed)) = event {
                    return Err(self.lost());
                }
            }
        };
        let result = timeout_at(deadline, waited).await;
        result.unwrap_or(Err(QmpError::Timeout { what, waited: limit }))
    }
}

#[cfg(test)]
mod tests;
