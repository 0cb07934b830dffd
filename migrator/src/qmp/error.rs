use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::MigrationStatus;

/// What can go wrong between us and one QEMU.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The socket cannot be reached.
    #[error("cannot connect to the QMP socket {}", path.display())]
    Connect {
        /// Path of the socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Connected, but QEMU said nothing: it is busy, or its only monitor is held by another client.
    #[error(
        "no QMP greeting from {} within {waited:?}; does another client hold this monitor?",
        path.display()
    )]
    NoGreeting {
        /// Path of the socket.
        path: PathBuf,
        /// Time waited.
        waited: Duration,
    },
    /// The other end does not speak QMP.
    #[error("not a QMP monitor: {reason}")]
    NotQmp {
        /// What was seen.
        reason: String,
    },
    /// The connection is gone.
    #[error("QMP connection lost: {reason}")]
    Closed {
        /// Why, as far as known.
        reason: Arc<str>,
    },
    /// No answer in time. The connection stays usable.
    #[error("{what}: not within {waited:?}")]
    Timeout {
        /// Command or condition waited for.
        what: &'static str,
        /// Time waited.
        waited: Duration,
    },
    /// Too many commands are already waiting for this QEMU.
    #[error("{command}: QEMU is not taking commands")]
    Busy {
        /// Command not sent.
        command: &'static str,
    },
    /// QEMU answered with an error.
    #[error("QEMU refused {command}: {desc}")]
    Refused {
        /// Command refused.
        command: &'static str,
        /// QEMU's error class, e.g. `CommandNotFound`.
        class: String,
        /// QEMU's words.
        desc: String,
    },
    /// The command cannot be written as JSON.
    #[error("cannot encode {command}")]
    Encode {
        /// Command not sent.
        command: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// The answer has another shape than expected.
    #[error("answer to {command} not understood")]
    Answer {
        /// Command asked.
        command: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// This VM cannot be migrated; every known reason.
    #[error("this VM cannot migrate: {}", reasons.join("; "))]
    Blocked {
        /// Reasons, for people.
        reasons: Vec<String>,
    },
    /// The migration ended in a state that cannot become the one waited for.
    #[error("migration {status}: {}", desc.as_deref().unwrap_or("QEMU gives no reason"))]
    Ended {
        /// The state.
        status: MigrationStatus,
        /// QEMU's words, often absent in 7.2.
        desc: Option<String>,
    },
    /// A path QEMU cannot take.
    #[error("socket path {path:?} is not valid UTF-8 or longer than 107 bytes")]
    Path {
        /// The path.
        path: PathBuf,
    },
}
