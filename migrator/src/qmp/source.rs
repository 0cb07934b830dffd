//! What both sides share, and the verbs of the side a VM leaves.

use std::path::Path;
use std::time::Duration;

use super::command::{
    Capabilities, Capability, QomGet, QueryCapabilities, QueryMemorySize, QueryMigrate,
    QueryParameters, QueryStatus, SetCapabilities, SetParameters,
};
use super::{
    Accelerator, MigrationInfo, MigrationStatus, QemuVersion, Qmp, QmpError, Rest, RunState,
    SavedParameters, Valve,
};

/// Capabilities that change the stream in ways we cannot carry, or are not ours to use: always off.
const ALWAYS_OFF: [&str; 15] = [
    "xbzrle",
    "compress",
    "postcopy-ram",
    "postcopy-preempt",
    "x-ignore-shared",
    "background-snapshot",
    "x-colo",
    "mapped-ram",
    "block",
    "zero-blocks",
    "rdma-pin-all",
    "zero-copy-send",
    "release-ram",
    "pause-before-switchover",
    "dirty-limit",
];

/// Holds a QEMU without switchover-ack. Not 0: measured on 7.2 and 10.0, a QEMU with limit 0 stops the VM after the first
/// pass without looking for dirty pages again, and sends all of them while it is stopped.
const HOLDING_LIMIT_MS: u64 = 1;

/// Holds a QEMU that counts bytes, under KVM: devices with data of their own (VFIO) seldom have nothing at all to send,
/// and passes over less than this are not worth telling apart.
const HOLDING_BYTES: u64 = 64 << 10;

/// A guest is slowed down only if it writes as much as is sent, percent: with less its passes get shorter by themselves.
const THROTTLE_FROM: u8 = 100;

/// What QEMU takes of a guest's time before it may slow it down: nothing is not allowed.
const THROTTLE_OFF: u8 = 1;

/// The most of its time that is taken from a guest, percent, and the steps that it is taken in: three lead to it.
const THROTTLE_MAX: u8 = 50;
/// See [`THROTTLE_MAX`].
const THROTTLE_STEP: u8 = 20;

/// Longest path a unix socket can have.
const SOCKET_PATH_MAX: usize = 107;

/// How an outgoing migration is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceCaps {
    /// What holds the switchover; [`SourceFacts::valve`] says which one this QEMU has.
    pub valve: Valve,
    /// What may be left to send at the stop, until [`Qmp::allow_rest`]; [`SourceFacts::holding`] is a good beginning.
    pub rest: Rest,
    /// Extra connections for pages; `None`: all in the main stream.
    pub multifd_channels: Option<u8>,
    /// QEMU may come to slow down a guest that dirties faster than the link, see [`Qmp::slow_guest_down`].
    pub auto_converge: bool,
}

/// What was found out about a VM that can migrate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFacts {
    /// QEMU's version.
    pub version: QemuVersion,
    /// Machine type with version, e.g. `pc-q35-7.2`; what the target must be started with.
    pub machine: String,
    /// Guest memory in bytes, plugged DIMMs included.
    pub memory_bytes: u64,
    /// The better valve this QEMU offers.
    pub valve: Valve,
    /// What runs its CPUs.
    pub accelerator: Accelerator,
    /// What [`Qmp::restore`] takes after a move that was undone.
    pub saved: SavedParameters,
    /// Run state at the time of the check.
    pub run_state: RunState,
}

impl SourceFacts {
    /// Whether this QEMU takes [`Rest::Bytes`].
    pub fn counts_bytes(&self) -> bool {
        self.version.at_least(8, 2)
    }

    /// What holds this QEMU until its VM may stop. `limit_ms` is what the VM may be stopped.
    pub fn holding(&self, limit_ms: u64) -> Rest {
        match (self.counts_bytes(), self.accelerator, self.valve) {
            (true, Accelerator::Emulation, _) => Rest::LESS_THAN_A_PAGE,
            (true, Accelerator::Kvm, _) => Rest::Bytes(HOLDING_BYTES),
            (false, _, Valve::SwitchoverAck) => Rest::Millis(limit_ms),
            (false, _, Valve::DowntimeLimit) => Rest::Millis(HOLDING_LIMIT_MS),
        }
    }
}

impl Qmp {
    /// Asks everything that could forbid a migration. Changes nothing. Cancel safe.
    ///
    /// # Errors
    /// [`QmpError::Blocked`] with all reasons, or trouble with QMP.
    pub async fn check_can_migrate(&self) -> Result<SourceFacts, QmpError> {
        let caps = self.capabilities().await?;
        let parameters = self.execute(QueryParameters {}).await?;
        let migration = self.migration_status().await?;
        let run_state = self.run_state().await?;
        let mut reasons = migration.blocked_reasons.clone();
        if !caps.contains_key("return-path") {
            reasons.push("this QEMU has no return path".to_owned());
        }
        if !migration.status().is_final() {
            reasons.push(format!("a migration is already {}", migration.status()));
        }
        match parameters.mode.as_deref() {
            None | Some("normal") => {}
            Some(mode) => reasons.push(format!("migration mode is {mode}, set it to normal")),
        }
        if parameters.tls_creds.as_ref().is_some_and(|creds| !creds.is_empty()) {
            reasons.push("migration parameter tls-creds is set, unset it".to_owned());
        }
        if matches!(run_state, RunState::InMigrate | RunState::PostMigrate) {
            reasons.push(format!("the VM is in state {run_state}"));
        }
        if !reasons.is_empty() {
            return Err(QmpError::Blocked { reasons });
        }
        Ok(SourceFacts {
            version: self.version(),
            machine: self.machine_type().await?,
            memory_bytes: self.memory_bytes().await?,
            valve: valve_of(self.version(), &caps),
            accelerator: self.accelerator().await?,
            saved: SavedParameters::from(&parameters),
            run_state,
        })
    }

    /// Sets capabilities and parameters for an outgoing migration. Cancel safe: may be repeated.
    ///
    /// # Errors
    /// QEMU refuses a capability.
    pub async fn prepare_source(&self, wanted: SourceCaps) -> Result<(), QmpError> {
        let known = self.capabilities().await?;
        let mut states: Vec<(&str, bool)> = ALWAYS_OFF.iter().map(|name| (*name, false)).collect();
        states.extend([
            ("events", true),
            ("return-path", true),
            ("multifd", wanted.multifd_channels.is_some()),
            ("auto-converge", wanted.auto_converge),
            ("switchover-ack", wanted.valve == Valve::SwitchoverAck),
        ]);
        self.set_capabilities(&known, &states).await?;
        let (downtime_limit, avail_switchover_bandwidth) = wanted.rest.parameters();
        // The capability cannot be set later, so what it does is held down until it is wanted.
        let throttle = |percent: u8| wanted.auto_converge.then_some(percent);
        self.execute(SetParameters {
            max_bandwidth: Some(0),
            downtime_limit: Some(downtime_limit),
            avail_switchover_bandwidth,
            multifd_channels: wanted.multifd_channels,
            multifd_compression: wanted.multifd_channels.map(|_| "none"),
            throttle_trigger_threshold: throttle(THROTTLE_FROM),
            cpu_throttle_initial: throttle(THROTTLE_OFF),
            cpu_throttle_increment: throttle(THROTTLE_STEP),
            max_cpu_throttle: throttle(THROTTLE_OFF),
        })
        .await
        .map(drop)
    }

    /// Starts the migration into a unix socket that is already listened on.
    ///
    /// # Errors
    /// QEMU cannot connect or refuses.
    pub async fn migrate(&self, socket: &Path) -> Result<(), QmpError> {
        let uri = Some(unix_uri(socket)?);
        let command = qapi::qmp::migrate { channels: None, detach: None, resume: None, uri };
        self.execute(command).await.map(drop)
    }

    /// Lets QEMU take up to half of a guest's time, in steps, as long as it writes faster than is sent. Does nothing without
    /// [`SourceCaps::auto_converge`].
    ///
    /// # Errors
    /// Trouble with QMP.
    pub async fn slow_guest_down(&self) -> Result<(), QmpError> {
        let max_cpu_throttle = Some(THROTTLE_MAX);
        self.execute(SetParameters { max_cpu_throttle, ..Default::default() }).await.map(drop)
    }

    /// State and counters of the migration. Cancel safe.
    ///
    /// # Errors
    /// Trouble with QMP.
    pub async fn migration_status(&self) -> Result<MigrationInfo, QmpError> {
        self.execute(QueryMigrate {}).await
    }

    /// Asks QEMU to cancel; the end shows as a state. No error if nothing is under way.
    ///
    /// In the completion phase QEMU may hang until its socket is read or closed.
    ///
    /// # Errors
    /// Trouble with QMP.
    pub async fn cancel(&self) -> Result<(), QmpError> {
        self.execute(qapi::qmp::migrate_cancel {}).await.map(drop)
    }

    /// Run state of the VM. Cancel safe.
    ///
    /// # Errors
    /// Trouble with QMP.
    pub async fn run_state(&self) -> Result<RunState, QmpError> {
        Ok(self.execute(QueryStatus {}).await?.status)
    }

    /// Waits until the migration's state fulfils `wanted`. Cancel safe.
    ///
    /// # Errors
    /// [`QmpError::Ended`] when it failed or was cancelled and that was not wanted;
    /// [`QmpError::Timeout`]; a lost connection.
    pub async fn wait_migration(
        &self,
        limit: Duration,
        wanted: impl Fn(&MigrationStatus) -> bool + Sync,
    ) -> Result<MigrationStatus, QmpError> {
        let wanted = &wanted;
        self.wait_until("wanted migration state", limit, |qmp| async move {
            let info = qmp.migration_status().await?;
            let status = info.status();
            if wanted(&status) {
                return Ok(Some(status));
            }
            if status.is_failure() {
                return Err(QmpError::Ended { status, desc: info.error_desc });
            }
            Ok(None)
        })
        .await
    }

    /// Waits until the VM's run state fulfils `wanted`. Cancel safe.
    ///
    /// # Errors
    /// [`QmpError::Timeout`]; a lost connection.
    pub async fn wait_run_state(
        &self,
        limit: Duration,
        wanted: impl Fn(&RunState) -> bool + Sync,
    ) -> Result<RunState, QmpError> {
        let wanted = &wanted;
        self.wait_until("wanted run state", limit, |qmp| async move {
            let state = qmp.run_state().await?;
            Ok(wanted(&state).then_some(state))
        })
        .await
    }

    /// Waits until the source cannot run by itself any more: migration completed and `postmigrate`, also
    /// for a VM that was paused before. Cancel safe.
    ///
    /// # Errors
    /// [`QmpError::Ended`] when it failed: the VM runs here; [`QmpError::Timeout`]; a lost connection.
    pub async fn wait_moved_out(&self, limit: Duration) -> Result<(), QmpError> {
        let started = tokio::time::Instant::now();
        self.wait_migration(limit, |status| *status == MigrationStatus::Completed).await?;
        let rest = limit.saturating_sub(started.elapsed());
        self.wait_run_state(rest, |state| *state == RunState::PostMigrate).await.map(drop)
    }

    /// Lets the VM run.
    ///
    /// # Errors
    /// QEMU refuses, e.g. before an incoming migration is loaded.
    pub async fn cont(&self) -> Result<(), QmpError> {
        self.execute(qapi::qmp::cont {}).await.map(drop)
    }

    /// Stops the VM.
    ///
    /// # Errors
    /// Trouble with QMP.
    pub async fn stop(&self) -> Result<(), QmpError> {
        self.execute(qapi::qmp::stop {}).await.map(drop)
    }

    /// Asks QEMU to end. A connection that closes instead of an answer counts as done.
    ///
    /// # Errors
    /// Trouble with QMP.
    pub async fn quit(&self) -> Result<(), QmpError> {
        match self.execute(qapi::qmp::quit {}).await {
            Ok(_) | Err(QmpError::Closed { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Machine type with its version, e.g. `pc-q35-7.2`. Cancel safe.
    ///
    /// # Errors
    /// Trouble with QMP.
    pub async fn machine_type(&self) -> Result<String, QmpError> {
        let value = self.execute(QomGet { path: "/machine", property: "type" }).await?;
        let name = value.as_str().unwrap_or_default();
        Ok(name.strip_suffix("-machine").unwrap_or(name).to_owned())
    }

    /// Guest memory in bytes. Cancel safe.
    ///
    /// # Errors
    /// Trouble with QMP.
    pub async fn memory_bytes(&self) -> Result<u64, QmpError> {
        let size = self.execute(QueryMemorySize {}).await?;
        Ok(size.base_memory.saturating_add(size.plugged_memory))
    }

    pub(super) async fn capabilities(&self) -> Result<Capabilities, QmpError> {
        let list = self.execute(QueryCapabilities {}).await?;
        Ok(list.into_iter().map(|cap| (cap.capability, cap.state)).collect())
    }

    /// Sets those of `states` that this QEMU knows; unknown ones can only be meant to be off.
    pub(super) async fn set_capabilities(
        &self,
        known: &Capabilities,
        states: &[(&str, bool)],
    ) -> Result<(), QmpError> {
        let capabilities = states
            .iter()
            .filter(|(name, state)| *state || known.contains_key(*name))
            .map(|(name, state)| Capability { capability: (*name).to_owned(), state: *state })
            .collect();
        self.execute(SetCapabilities { capabilities }).await.map(drop)
    }
}

/// From 11.1 on an acknowledgement that QEMU did not ask for is an error with the newest machine types.
fn valve_of(version: QemuVersion, caps: &Capabilities) -> Valve {
    if caps.contains_key("switchover-ack") && !version.at_least(11, 1) {
        Valve::SwitchoverAck
    } else {
        Valve::DowntimeLimit
    }
}

pub(super) fn unix_uri(socket: &Path) -> Result<String, QmpError> {
    match socket.to_str() {
        Some(path) if path.len() <= SOCKET_PATH_MAX => Ok(format!("unix:{path}")),
        _ => Err(QmpError::Path { path: socket.to_owned() }),
    }
}
