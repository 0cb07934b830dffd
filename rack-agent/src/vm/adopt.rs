//! Finding the VMs again that an earlier agent has left.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::join_all;
use rackferry_agent_core::adopt::{Adoption as Next, Seen, adoption};
use rackferry_migrator::memory::GuestMemory;
use rackferry_migrator::qmp::{MigrationStatus, Qmp, QmpError, RunState};
use tokio::time::sleep;
use tracing::{info, warn};

use super::error::Named;
use super::machine::{Parts, seen};
use super::manager::{Inner, blocking, process_behind};
use super::spec::is_of;
use super::{
    QemuProcess, SpecError, Standing, Status, Vm, VmDir, VmError, VmSpec, VmState, VmSummary,
};

/// How long a QEMU may take to answer: the one left in the completion of a migration is busy until it
/// notices that its stream is closed. After that it is listed as unknown, and asked again.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Pause before a VM that could not be looked at is looked at again.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a migration whose session died with the agent may take to come to an end.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);

/// What an agent found at its start.
#[derive(Debug, Default)]
pub struct Adoption {
    /// VMs that are managed again, by name.
    pub adopted: Vec<String>,
    /// VMs whose QEMU is gone. They are listed as dead until their operator starts or removes them, or the coordinator
    /// says that they belong elsewhere.
    pub dead: Vec<DeadVm>,
    /// VMs that could not be looked at yet. Each is listed as unknown and looked at again until it answers
    /// or is gone: as long as its QEMU may run, it must not be taken for gone.
    pub unreachable: Vec<(String, VmError)>,
}

/// A VM that died while no agent watched.
#[derive(Debug)]
pub struct DeadVm {
    /// Its name.
    pub name: String,
    /// What was written down about it.
    pub status: Status,
}

enum Found {
    Alive(Arc<Vm>),
    Dead(Status),
}

pub(super) async fn adopt_all(inner: &Arc<Inner>) -> Result<Adoption, VmError> {
    let state = Arc::clone(&inner.state);
    let dirs = blocking(move || state.all()).await?;
    let found = join_all(dirs.into_iter().map(|(name, dir)| {
        let inner = Arc::clone(inner);
        async move {
            let found = adopt(&inner, &name, &dir).await;
            (name, dir, found)
        }
    }))
    .await;
    let mut adoption = Adoption::default();
    for (name, dir, found) in found {
        match found {
            Ok(Found::Alive(vm)) => {
                info!(vm = name, "VM adopted");
                inner.insert(&name, vm.spec().memory_bytes(), Some(vm));
                adoption.adopted.push(name);
            }
            Ok(Found::Dead(status)) => {
                warn!(vm = name, log = dir.log_tail(), "QEMU died while no agent watched");
                inner.insert_left(left(&name, &dir, VmState::Dead));
                adoption.dead.push(DeadVm { name, status });
            }
            Err(error) => {
                warn!(vm = name, %error, "VM cannot be adopted");
                inner.insert_left(left(&name, &dir, VmState::Unknown));
                tokio::spawn(look_again(Arc::downgrade(inner), name.clone(), dir));
                adoption.unreachable.push((name, error));
            }
        }
    }
    Ok(adoption)
}

/// Of a VM whose status cannot be read.
const UNREADABLE: Standing = Standing::owned(0);

/// All that can be said of a VM whose QEMU does not answer, or is gone.
fn left(name: &str, dir: &VmDir, run_state: VmState) -> VmSummary {
    let spec = dir.read_spec().ok().and_then(|text| VmSpec::parse(&text).ok());
    let standing = dir.read_status().map_or(UNREADABLE, |status| status.standing);
    VmSummary {
        name: name.to_owned(),
        memory_bytes: spec.as_ref().map_or(0, VmSpec::memory_bytes),
        run_state,
        standing,
        may_have_run: standing.may_have_run(true),
        powered_off: false,
        qemu_version: String::new(),
        machine: spec.as_ref().map_or_else(String::new, |spec| spec.machine().to_owned()),
        spec_toml: spec.map_or_else(String::new, |spec| spec.text().to_owned()),
    }
}

/// Tries to adopt a VM until it is known whether it lives. Ends with the manager.
async fn look_again(inner: Weak<Inner>, name: String, dir: VmDir) {
    loop {
        sleep(AGAIN).await;
        let Some(inner) = inner.upgrade() else { return };
        match adopt(&inner, &name, &dir).await {
            Ok(Found::Alive(vm)) => {
                info!(vm = name, "VM adopted at last");
                return inner.insert(&name, vm.spec().memory_bytes(), Some(vm));
            }
            Ok(Found::Dead(_)) => {
                warn!(vm = name, log = dir.log_tail(), "QEMU died before it could be adopted");
                return inner.insert_left(left(&name, &dir, VmState::Dead));
            }
            Err(_) => {}
        }
    }
}

async fn adopt(inner: &Arc<Inner>, name: &str, dir: &VmDir) -> Result<Found, VmError> {
    let mut status = dir.read_status()?;
    let spec = parse(dir)?;
    let socket = match spec.attach().filter(|_| status.attached) {
        Some(attach) => attach.qmp.clone(),
        None => dir.qmp_socket(),
    };
    let mut process = find_process(dir, &status)?;
    if process.is_none() && !(status.attached && status.process.is_none()) {
        return Ok(Found::Dead(status));
    }
    let qmp = tokio::select! {
        qmp = Qmp::connect_within(&socket, ANSWER_LIMIT) => qmp.of_vm(name)?,
        () = gone(process.as_ref()) => return Ok(Found::Dead(status)),
    };
    if process.is_none() {
        process = process_behind(&qmp)?;
    }
    let id = process.as_ref().map(|process| process.id().clone());
    // Its own word: an agent of an earlier version has not written it down. Of a VM of others nothing follows from it.
    let uid = process.as_ref().filter(|_| !status.attached).and_then(QemuProcess::other_uid);
    if (&id, uid) != (&status.process, status.uid) {
        status.process = id;
        status.uid = uid;
        let (dir, status) = (dir.clone(), status.clone());
        blocking(move || dir.write_status(&status)).await?;
    }
    let state = settle(&qmp, name, dir, &mut status).await?;
    let memory = match (&status.memfd, &process) {
        (Some(memfd), Some(process)) => {
            Some(GuestMemory::open_of_process(process.id().pid, memfd).of_vm(name)?)
        }
        _ => None,
    };
    let machine = qmp.machine_type().await.of_vm(name)?;
    let (dir, memory, changes) = (dir.clone(), memory.map(Arc::new), inner.changes.clone());
    let let_run = true;
    let parts = Parts { spec, dir, machine, process, qmp, memory, status, state, let_run, changes };
    Ok(Found::Alive(Vm::new(parts)))
}

fn parse(dir: &VmDir) -> Result<VmSpec, VmError> {
    VmSpec::parse(&dir.read_spec()?).map_err(|error: SpecError| VmError::State {
        path: dir.path().join("spec.toml"),
        source: std::io::Error::other(error),
    })
}

/// The QEMU that was written down, or the one that was started just before the agent was killed.
fn find_process(dir: &VmDir, status: &Status) -> Result<Option<QemuProcess>, VmError> {
    match &status.process {
        Some(id) => QemuProcess::find(id),
        None if status.attached => Ok(None),
        None => {
            let (log, monitor) = (dir.log(), dir.qmp_socket());
            QemuProcess::with_argument(|argument| is_of(argument, &log, &monitor))
        }
    }
}

/// Brings it to a state that lasts, step by step; the rules say which.
async fn settle(
    qmp: &Qmp,
    name: &str,
    dir: &VmDir,
    status: &mut Status,
) -> Result<VmState, VmError> {
    loop {
        let seen = look(qmp).await.of_vm(name)?;
        match adoption(&status.standing, status.attached, seen) {
            Next::Cancel => cancel(qmp).await.of_vm(name)?,
            Next::LetRun => qmp.cont().await.of_vm(name)?,
            Next::Write(writing) => {
                writing.apply(&mut status.standing);
                let (dir, status) = (dir.clone(), status.clone());
                blocking(move || dir.write_status(&status)).await?;
            }
            Next::Adopt(state) => return Ok(state),
        }
    }
}

/// What it does now. A guess would not do: the coordinator decides by an agent's first list.
async fn look(qmp: &Qmp) -> Result<Seen, QmpError> {
    let qmp = qmp.within(ANSWER_LIMIT);
    let (state, migration) = tokio::try_join!(qmp.run_state(), qmp.migration_status())?;
    Ok(seen(&state, &migration.status()))
}

/// If SHUT had been forwarded the migration ends in `postmigrate`, else the VM runs on.
async fn cancel(qmp: &Qmp) -> Result<(), QmpError> {
    qmp.within(SETTLE_LIMIT).cancel().await?;
    qmp.wait_migration(SETTLE_LIMIT, MigrationStatus::is_final).await?;
    qmp.wait_run_state(SETTLE_LIMIT, |state| *state != RunState::FinishMigrate).await?;
    Ok(())
}

async fn gone(process: Option<&QemuProcess>) {
    match process {
        Some(process) => drop(process.gone().await),
        None => std::future::pending().await,
    }
}
