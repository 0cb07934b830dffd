//! One VM of this host with its process, monitor and memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use rackferry_agent_core::Facts;
use rackferry_agent_core::adopt::{Guest, Migration, Seen, classify};
use rackferry_migrator::memory::GuestMemory;
use rackferry_migrator::qmp::{Event, MigrationStatus, Qmp, RunState};
use rackferry_migrator::socket::StreamSocket;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::{QemuProcess, Standing, Status, VmDir, VmError, VmSpec, VmState, Writing};

/// How long a QEMU may take to tell its state before the last known one is told.
const OBSERVE_LIMIT: Duration = Duration::from_millis(300);
/// One attempt to get a lost monitor back.
const RECONNECT_LIMIT: Duration = Duration::from_secs(10);
/// A monitor whose QEMU has ended closes within this.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Pause between attempts.
const RECONNECT_PAUSE: Duration = Duration::from_millis(200);

/// What a host tells about a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmSummary {
    /// Its name.
    pub name: String,
    /// Bytes of guest memory.
    pub memory_bytes: u64,
    /// What it does.
    pub run_state: VmState,
    /// Whether it belongs here, and the migration it takes part in.
    pub standing: Standing,
    /// Its guest may have run on this host.
    pub may_have_run: bool,
    /// It is dead because its guest powered itself off. Not known to an agent that was not there.
    pub powered_off: bool,
    /// Version of its QEMU.
    pub qemu_version: String,
    /// Machine type with version.
    pub machine: String,
    /// How to start it elsewhere.
    pub spec_toml: String,
}

/// A VM. Its QEMU lives on when this is dropped.
#[derive(Debug)]
pub struct Vm {
    spec: VmSpec,
    dir: VmDir,
    machine: String,
    process: Option<Arc<QemuProcess>>,
    /// Held for a clone only. Replaced when a lost monitor comes back.
    qmp: Mutex<Qmp>,
    memory: Mutex<Option<Arc<GuestMemory>>>,
    /// What `status.json` says. Held for a copy only.
    status: Mutex<Status>,
    /// Held while `status.json` is replaced, by threads that may block.
    status_writer: Mutex<()>,
    /// Last state told by QEMU. Held for a copy only.
    last_state: Mutex<VmState>,
    /// This agent has let it run, or an earlier one may have.
    let_run: Arc<AtomicBool>,
    /// The guest has powered itself off; QEMU ends.
    powered_off: AtomicBool,
    dead: watch::Sender<bool>,
    changes: watch::Sender<u64>,
    watcher: OnceLock<AbortOnDropHandle<()>>,
}

/// What a [`Vm`] is made of.
pub(super) struct Parts {
    pub(super) spec: VmSpec,
    pub(super) dir: VmDir,
    pub(super) machine: String,
    pub(super) process: Option<QemuProcess>,
    pub(super) qmp: Qmp,
    pub(super) memory: Option<Arc<GuestMemory>>,
    pub(super) status: Status,
    /// What its QEMU was last seen to do: told as long as it does not answer.
    pub(super) state: VmState,
    /// It may have been let run already.
    pub(super) let_run: bool,
    /// Raised with every change worth a report.
    pub(super) changes: watch::Sender<u64>,
}

impl Vm {
    pub(super) fn new(parts: Parts) -> Arc<Self> {
        let vm = Arc::new(Self {
            spec: parts.spec,
            dir: parts.dir,
            machine: parts.machine,
            process: parts.process.map(Arc::new),
            qmp: Mutex::new(parts.qmp),
            memory: Mutex::new(parts.memory),
            status: Mutex::new(parts.status),
            status_writer: Mutex::new(()),
            last_state: Mutex::new(parts.state),
            let_run: Arc::new(AtomicBool::new(parts.let_run)),
            powered_off: AtomicBool::new(false),
            dead: watch::Sender::new(false),
            changes: parts.changes,
            watcher: OnceLock::new(),
        });
        let watcher = tokio::spawn(watch_vm(Arc::downgrade(&vm), vm.process.clone(), vm.qmp()));
        let _ = vm.watcher.set(AbortOnDropHandle::new(watcher));
        vm
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.spec.name()
    }

    /// Its spec, with the machine type QEMU really made.
    #[must_use]
    pub fn spec(&self) -> &VmSpec {
        &self.spec
    }

    /// The VM's QEMU; `None` if it was started outside of Rackferry and cannot be told from its socket.
    #[must_use]
    pub fn process(&self) -> Option<&QemuProcess> {
        self.process.as_deref()
    }

    /// Its monitor. Not to be kept for long: a lost connection is replaced by a new one here.
    #[must_use]
    pub fn qmp(&self) -> Qmp {
        locked(&self.qmp).clone()
    }

    /// Its memory, if the agent owns it and QEMU lives.
    #[must_use]
    pub fn memory(&self) -> Option<Arc<GuestMemory>> {
        locked(&self.memory).clone()
    }

    /// Socket of its migration stream when it leaves: the session listens there.
    #[must_use]
    pub fn departure_socket(&self) -> StreamSocket {
        self.dir.departure_socket(self.status().uid)
    }

    /// Socket of its migration stream when it arrives: QEMU listens there.
    #[must_use]
    pub fn arrival_socket(&self) -> StreamSocket {
        self.dir.arrival_socket(self.status().uid)
    }

    /// Its folder in the state directory.
    #[must_use]
    pub fn dir(&self) -> &VmDir {
        &self.dir
    }

    /// What is written down about it.
    #[must_use]
    pub fn status(&self) -> Status {
        locked(&self.status).clone()
    }

    /// True once its QEMU is known to be gone.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        *self.dead.borrow()
    }

    /// To be set before QEMU is told to let the guest run.
    #[must_use]
    pub fn let_run(&self) -> Arc<AtomicBool> {
        self.let_run.clone()
    }

    /// Its guest may have run on this host.
    pub(super) fn may_have_run(&self) -> bool {
        self.status().standing.may_have_run(self.let_run.load(Ordering::SeqCst))
    }

    /// True if its guest powered itself off: known as soon as it is known to be dead.
    #[must_use]
    pub fn powered_off(&self) -> bool {
        self.powered_off.load(Ordering::SeqCst)
    }

    fn heard(&self, event: &Event) {
        if *event == (Event::Shutdown { by_guest: true }) {
            info!(vm = self.name(), "its guest powers itself off");
            self.powered_off.store(true, Ordering::SeqCst);
        }
    }

    /// Waits until its QEMU is gone. Cancel safe.
    pub async fn died(&self) {
        // The sender lives in self.
        let _ = self.dead.subscribe().wait_for(|dead| *dead).await;
    }

    /// Changes what is written down about it. Durable when this returns.
    ///
    /// Cancel safe: once polled it is carried out.
    ///
    /// # Errors
    /// The state directory cannot be written; what is a fact holds all the same, as long as this agent lives.
    pub async fn write(self: &Arc<Self>, writing: Writing) -> Result<(), VmError> {
        let vm = Arc::clone(self);
        let update = move || {
            let _writer = locked(&vm.status_writer);
            let mut status = vm.status();
            writing.apply(&mut status.standing);
            let written = vm.dir.write_status(&status);
            if writing.is_fact() || written.is_ok() {
                *locked(&vm.status) = status;
                vm.changed();
            }
            written
        };
        spawn_blocking(update).await.unwrap_or(Err(VmError::Ending))
    }

    /// What is written down, and what it does now. Cancel safe.
    pub async fn facts(&self) -> Facts {
        self.run_state().await;
        self.last_facts()
    }

    /// What is written down, and what it was last seen to do.
    #[must_use]
    pub fn last_facts(&self) -> Facts {
        let state = if self.is_dead() { VmState::Dead } else { *locked(&self.last_state) };
        Facts { name: self.name().to_owned(), standing: self.status().standing, state }
    }

    /// What it does now; the last known state if QEMU does not answer within 300 ms. Cancel safe.
    pub async fn run_state(&self) -> VmState {
        if self.is_dead() {
            return VmState::Dead;
        }
        let qmp = self.qmp().within(OBSERVE_LIMIT);
        let told = tokio::try_join!(qmp.run_state(), qmp.migration_status());
        if self.is_dead() {
            return VmState::Dead;
        }
        let mut last = locked(&self.last_state);
        if let Ok((state, migration)) = told {
            *last = classify(self.status().standing.role, seen(&state, &migration.status()));
        }
        *last
    }

    /// Everything about it. Cancel safe.
    pub async fn summary(&self) -> VmSummary {
        let run_state = self.run_state().await;
        VmSummary {
            name: self.name().to_owned(),
            memory_bytes: self.spec.memory_bytes(),
            run_state,
            standing: self.status().standing,
            may_have_run: self.may_have_run(),
            powered_off: run_state == VmState::Dead && self.powered_off(),
            qemu_version: self.qmp().version().to_string(),
            machine: self.machine.clone(),
            spec_toml: self.spec.text().to_owned(),
        }
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn mark_dead(&self) {
        info!(vm = self.name(), log = self.dir.log_tail(), "QEMU ended");
        locked(&self.memory).take();
        self.dead.send_replace(true);
        self.changed();
    }
}

/// Nothing that runs under these locks panics.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What QEMU says, as far as the rules distinguish it.
pub(super) fn seen(state: &RunState, migration: &MigrationStatus) -> Seen {
    let guest = match state {
        RunState::Running => Guest::Running,
        RunState::Suspended => Guest::Suspended,
        RunState::FinishMigrate => Guest::FinishMigrate,
        RunState::PostMigrate => Guest::PostMigrate,
        RunState::InMigrate => Guest::InMigrate,
        RunState::Prelaunch => Guest::Prelaunch,
        _ => Guest::Stopped,
    };
    let migration = match migration {
        MigrationStatus::Completed => Migration::Completed,
        status if status.is_final() => Migration::None,
        _ => Migration::Active,
    };
    Seen { guest, migration }
}

/// One task per VM, ended with it: tells of its death, of changes, and gets a lost monitor back.
async fn watch_vm(vm: Weak<Vm>, process: Option<Arc<QemuProcess>>, mut qmp: Qmp) {
    let mut events = qmp.events();
    loop {
        tokio::select! {
            gone = gone(process.as_deref()) => {
                let Some(vm) = vm.upgrade() else { return };
                // What it said before it ended may not have been read yet.
                let _ = timeout(LAST_WORDS, qmp.closed()).await;
                while let Ok(event) = events.try_recv() {
                    vm.heard(&event.event);
                }
                match gone {
                    Ok(()) => vm.mark_dead(),
                    Err(error) => warn!(vm = vm.name(), %error, "cannot watch QEMU"),
                }
                return;
            }
            event = events.recv() => {
                let Some(vm) = vm.upgrade() else { return };
                if let Ok(event) = &event {
                    vm.heard(&event.event);
                }
                vm.changed();
                if !matches!(event, Err(tokio::sync::broadcast::error::RecvError::Closed)) {
                    continue;
                }
            }
        }
        // The monitor is lost; a QEMU that ends closes it a little before its process is gone.
        tokio::select! {
            () = reconnect(&mut qmp) => {
                let Some(vm) = vm.upgrade() else { return };
                warn!(vm = vm.name(), "lost monitor is back");
                events = qmp.events();
                *locked(&vm.qmp) = qmp.clone();
                vm.changed();
            }
            _ = gone(process.as_deref()) => {}
        }
    }
}

async fn reconnect(qmp: &mut Qmp) {
    let path = qmp.path().to_owned();
    loop {
        sleep(RECONNECT_PAUSE).await;
        if let Ok(again) = Qmp::connect_within(&path, RECONNECT_LIMIT).await {
            *qmp = again;
            return;
        }
    }
}

async fn gone(process: Option<&QemuProcess>) -> Result<(), VmError> {
    match process {
        Some(process) => process.gone().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::Role;

    #[test]
    fn states_are_told_by_role() {
        use {MigrationStatus as M, Role::*, RunState as S, VmState as V};
        let cases = [
            (Run, S::Running, M::Active, V::Running),
            (Run, S::FinishMigrate, M::Device, V::Running),
            (Run, S::FinishMigrate, M::Completed, V::MovedOut),
            (Run, S::Suspended, M::None, V::Running),
            (Run, S::PostMigrate, M::Completed, V::MovedOut),
            (Run, S::Paused, M::None, V::Paused),
            (Run, S::Paused, M::Completed, V::Paused),
            (Run, S::Prelaunch, M::None, V::Paused),
            (Run, S::Other("colo".into()), M::None, V::Paused),
            (Incoming, S::InMigrate, M::None, V::Incoming),
            (Incoming, S::InMigrate, M::Completed, V::Incoming),
            (Incoming, S::Paused, M::Active, V::Incoming),
            (Incoming, S::Paused, M::Completed, V::Loaded),
            (Incoming, S::Suspended, M::Completed, V::Loaded),
            (Incoming, S::Running, M::Completed, V::Running),
        ];
        for (role, state, migration, expected) in cases {
            assert_eq!(classify(role, seen(&state, &migration)), expected, "{role:?} {state}");
        }
    }
}
