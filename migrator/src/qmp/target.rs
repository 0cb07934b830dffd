//! The verbs of the side a VM arrives at.

use std::path::Path;
use std::time::Duration;

use super::command::MigrateIncoming;
use super::source::unix_uri;
use super::{MigrationStatus, Qmp, QmpError, RunState};

impl Qmp {
    /// Sets capabilities for an incoming migration. Cancel safe: may be repeated.
    ///
    /// # Errors
    /// QEMU refuses a capability.
    pub async fn prepare_target(&self) -> Result<(), QmpError> {
        let known = self.capabilities().await?;
        let mut states = vec![("events", true), ("postcopy-ram", false), ("multifd", false)];
        if !self.version().at_least(10, 0) {
            // From 10.0 on this is how it always works.
            states.push(("late-block-activate", true));
        }
        self.set_capabilities(&known, &states).await
    }

    /// Lets QEMU listen for the stream; it listens when this returns. From 9.1 on a failed load leaves
    /// QEMU alive to be asked why, before that it exits.
    ///
    /// # Errors
    /// QEMU was not started with `-incoming defer`, or cannot listen there.
    pub async fn incoming(&self, socket: &Path) -> Result<(), QmpError> {
        let exit_on_error = self.version().at_least(9, 1).then_some(false);
        self.execute(MigrateIncoming { uri: unix_uri(socket)?, exit_on_error }).await.map(drop)
    }

    /// Waits until everything is loaded and the VM is stopped, ready for [`Qmp::cont`]. Gives the run
    /// state: `paused` if the source was running. Cancel safe.
    ///
    /// # Errors
    /// [`QmpError::Ended`] when loading failed; [`QmpError::Closed`] when QEMU exited because of it;
    /// [`QmpError::Timeout`].
    pub async fn wait_loaded(&self, limit: Duration) -> Result<RunState, QmpError> {
        let started = tokio::time::Instant::now();
        self.wait_migration(limit, |status| *status == MigrationStatus::Completed).await?;
        let rest = limit.saturating_sub(started.elapsed());
        self.wait_run_state(rest, |state| *state != RunState::InMigrate).await
    }

    /// Tells the network where the VM now is; to be called after [`Qmp::cont`], since what QEMU sends
    /// by itself goes out before the VM runs.
    ///
    /// # Errors
    /// Trouble with QMP.
    pub async fn announce_self(&self) -> Result<(), QmpError> {
        let parameters = qapi::qmp::AnnounceParameters {
            initial: 50,
            max: 550,
            rounds: 5,
            step: 100,
            id: None,
            interfaces: None,
        };
        self.execute(qapi::qmp::announce_self(parameters)).await.map(drop)
    }
}
