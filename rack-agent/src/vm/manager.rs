//! All VMs of this host.

mod act;
mod begin;
mod end;
mod left;
mod resume;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::join_all;
use rackferry_agent_core::{Preparation, start};
use rackferry_migrator::memory::Preallocate;
use rackferry_migrator::qmp::Qmp;
use tokio::sync::{OwnedMutexGuard, watch};
use tokio::task::spawn_blocking;

use crate::policy::{Breach, Policy, Unseen};
use crate::storage::Storage;

use super::{
    Act, Adoption, Mark, MigrationId, Qemu, QemuProcess, QemuUids, Side, Standing, StateDir,
    Status, Vm, VmError, VmSpec, VmState, VmSummary,
};

/// What the VMs of a host need to know about it.
#[derive(Clone, Debug)]
pub struct ManagerConfig {
    /// Folder of everything that outlives the agent.
    pub state_dir: PathBuf,
    /// Bytes of memory all guests together may have.
    pub memory_ceiling_bytes: u64,
    /// QEMU for specs that name none.
    pub qemu: Qemu,
    /// What is done ahead with the memory of arriving VMs; `None`: nothing.
    pub preallocate: Option<Preallocate>,
    /// What specs may have on this host.
    pub policy: Policy,
    /// The users that QEMUs run as.
    pub qemu_uids: QemuUids,
}

/// The VMs of this host. Clones share them.
#[derive(Clone, Debug)]
pub struct VmManager {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) config: ManagerConfig,
    pub(super) state: Arc<StateDir>,
    storage: Storage,
    /// Held for look-ups only, never while waiting.
    table: Mutex<HashMap<String, Entry>>,
    pub(super) changes: watch::Sender<u64>,
}

/// A name in use.
#[derive(Debug, Default)]
struct Entry {
    /// Held by the task that starts or ends a VM of this name.
    busy: Arc<tokio::sync::Mutex<()>>,
    vm: Option<Arc<Vm>>,
    /// Left by an earlier agent. Its QEMU does not answer: it may run, so it must not be taken for gone. Or it is dead,
    /// and only its folder is there.
    left: Option<VmSummary>,
    /// Bytes promised to the VM, from before it is started.
    reserved: u64,
    /// The uid of its QEMU, from before it is started.
    uid: Option<u32>,
}

/// A name that was taken, so that no other task does anything to its VM.
#[derive(Debug)]
enum Taken {
    Vm(Arc<Vm>),
    /// What an earlier agent left, and is dead.
    Dead(Box<VmSummary>),
}

impl Entry {
    fn counted_bytes(&self) -> u64 {
        if self.vm.as_ref().is_some_and(|vm| vm.is_dead()) { 0 } else { self.reserved }
    }
}

impl VmManager {
    /// Takes the state directory and adopts the VMs that run since an earlier agent.
    ///
    /// # Errors
    /// Another agent uses the state directory, or it cannot be used.
    pub async fn open(config: ManagerConfig) -> Result<(Self, Adoption), VmError> {
        let path = config.state_dir.clone();
        let state = blocking(move || StateDir::open(&path)).await?;
        let inner = Arc::new(Inner {
            config,
            state: Arc::new(state),
            storage: Storage::default(),
            table: Mutex::default(),
            changes: watch::Sender::new(0),
        });
        let adoption = super::adopt::adopt_all(&inner).await?;
        tokio::spawn(super::logs::keep_small(Arc::downgrade(&inner)));
        Ok((Self { inner }, adoption))
    }

    /// Starts a VM and lets it run; one with an `[attach]` section is attached to instead.
    ///
    /// Cancel safe: once polled it is carried out.
    ///
    /// # Errors
    /// The name is taken, it does not fit, QEMU does not take it. Nothing is left behind.
    pub async fn start(&self, spec: VmSpec, generation: u64) -> Result<Arc<Vm>, VmError> {
        let status = Status {
            standing: Standing::owned(generation),
            process: None,
            memfd: None,
            attached: spec.attach().is_some(),
            uid: None,
        };
        self.detached(async move |inner| inner.add(spec, status).await).await
    }

    /// Makes everything ready for a VM to arrive: memory, and a QEMU that listens at
    /// [`Vm::arrival_socket`]. If this migration's VM is there already, that is it.
    ///
    /// Cancel safe: once polled it is carried out.
    ///
    /// # Errors
    /// As [`VmManager::start`].
    pub async fn prepare_incoming(
        &self,
        spec: VmSpec,
        migration: MigrationId,
        generation: u64,
    ) -> Result<Arc<Vm>, VmError> {
        let mark = Mark { migration, generation, side: Side::Target };
        let status = Status {
            standing: Standing::incoming(mark),
            process: None,
            memfd: None,
            attached: false,
            uid: None,
        };
        self.detached(async move |inner| inner.add(spec, status).await).await
    }

    /// The VM of this name.
    ///
    /// # Errors
    /// [`VmError::Unknown`].
    pub fn get(&self, name: &str) -> Result<Arc<Vm>, VmError> {
        self.inner.get(name).ok_or_else(|| VmError::Unknown { name: name.to_owned() })
    }

    /// All VMs, by name, each with its state. Takes at most about 300 ms. Cancel safe.
    pub async fn list(&self) -> Vec<VmSummary> {
        let vms: Vec<_> = self.inner.table().values().filter_map(|e| e.vm.clone()).collect();
        let left: Vec<_> = self.inner.table().values().filter_map(|e| e.left.clone()).collect();
        let mut list = join_all(vms.into_iter().map(async |vm| vm.summary().await)).await;
        list.extend(left);
        list.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        list
    }

    /// Everything of a spec that the host's policy does not let it have. Cancel safe.
    ///
    /// # Errors
    /// Storage does not answer.
    pub async fn breaches(&self, spec: &VmSpec) -> Result<Vec<Breach>, Unseen> {
        self.inner.breaches(spec).await
    }

    /// The way to files that other hosts share.
    #[must_use]
    pub fn storage(&self) -> &Storage {
        &self.inner.storage
    }

    /// Bytes still free for guests.
    #[must_use]
    pub fn memory_free_bytes(&self) -> u64 {
        self.inner.memory_free_bytes()
    }

    /// Rises whenever [`VmManager::list`] may have changed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// Does something to the VM of a migration, if the rules allow it as the VM is now. Gives false if there is none, so
    /// may be repeated.
    ///
    /// Cancel safe: once polled it is carried out.
    ///
    /// # Errors
    /// [`VmError::Refused`]; [`VmError::Unreachable`]; or a step fails.
    pub async fn act(&self, act: &Act) -> Result<bool, VmError> {
        let act = act.clone();
        self.detached(async move |inner| inner.act(&act).await).await
    }

    /// Name of the VM that something is to be done to.
    #[must_use]
    pub fn concerned(&self, act: &Act) -> Option<String> {
        self.inner.concerned(act)
    }

    /// Ends a VM: the wish of its operator, never part of a migration. No error if there is none. `force` ends it even if
    /// it takes part in a migration.
    ///
    /// Cancel safe: once polled it is carried out.
    ///
    /// # Errors
    /// [`VmError::InMigration`], or it does not end.
    pub async fn destroy(&self, name: &str, force: bool) -> Result<(), VmError> {
        let name = name.to_owned();
        self.detached(async move |inner| {
            // With the name taken: a migration cannot begin meanwhile.
            match inner.take(&name).await? {
                None => Ok(()),
                Some((_busy, taken)) => inner.destroy(&taken, force).await,
            }
        })
        .await
    }

    /// Lets a VM run on that is paused: the wish of its operator, never part of a migration. One that runs is left so.
    ///
    /// Cancel safe: once polled it is carried out.
    ///
    /// # Errors
    /// [`VmError::InMigration`], [`VmError::NotPaused`], [`VmError::Unknown`], or QEMU refuses.
    pub async fn resume(&self, name: &str) -> Result<(), VmError> {
        let name = name.to_owned();
        self.detached(async move |inner| {
            let taken = inner.take(&name).await?;
            let Some((_busy, Taken::Vm(vm))) = &taken else {
                return Err(VmError::Unknown { name });
            };
            resume::resume(vm).await
        })
        .await
    }

    /// Removes what is left of a VM that is dead and takes part in no migration. No error if there is none.
    ///
    /// Cancel safe: once polled it is carried out.
    ///
    /// # Errors
    /// It is not dead, or takes part in a migration.
    pub async fn forget(&self, name: &str) -> Result<(), VmError> {
        let name = name.to_owned();
        self.detached(async move |inner| {
            let Some((_busy, taken)) = inner.take(&name).await? else { return Ok(()) };
            let facts = match &taken {
                Taken::Vm(vm) => vm.facts().await,
                Taken::Dead(left) => left::facts(left),
            };
            if start(Some(&facts)) != Preparation::Replace {
                return Err(VmError::NotDead { name });
            }
            match taken {
                Taken::Vm(vm) => inner.end(&vm, false).await,
                Taken::Dead(_) => inner.forget(&name).await,
            }
        })
        .await
    }

    /// The installation of this agent.
    #[must_use]
    pub fn installation(&self) -> &str {
        self.inner.state.installation()
    }

    /// Runs `work` in a task, so that a caller that goes away does not leave it half done.
    async fn detached<T: Send + 'static, F>(
        &self,
        work: impl FnOnce(Arc<Inner>) -> F,
    ) -> Result<T, VmError>
    where
        F: Future<Output = Result<T, VmError>> + Send + 'static,
    {
        tokio::spawn(work(Arc::clone(&self.inner))).await.unwrap_or(Err(VmError::Ending))
    }
}

impl Inner {
    fn table(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        // Nothing panics under this lock.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn breaches(&self, spec: &VmSpec) -> Result<Vec<Breach>, Unseen> {
        self.config.policy.breaches(spec, &self.config.qemu, &self.storage).await
    }

    /// Logs that grow with what QEMUs write.
    pub(super) fn logs(&self) -> Vec<PathBuf> {
        let table = self.table();
        let vms = table.values().filter_map(|entry| entry.vm.as_ref());
        vms.flat_map(|vm| [Some(vm.dir().log()), vm.spec().serial_log(vm.dir().path())])
            .flatten()
            .collect()
    }

    fn get(&self, name: &str) -> Option<Arc<Vm>> {
        self.table().get(name)?.vm.clone()
    }

    fn memory_free_bytes(&self) -> u64 {
        self.free_bytes(&self.table())
    }

    fn free_bytes(&self, table: &HashMap<String, Entry>) -> u64 {
        let used = table.values().map(Entry::counted_bytes).sum();
        self.config.memory_ceiling_bytes.saturating_sub(used)
    }

    pub(super) fn insert(&self, name: &str, bytes: u64, vm: Option<Arc<Vm>>) {
        let mut table = self.table();
        let entry = table.entry(name.to_owned()).or_default();
        entry.reserved = bytes;
        entry.uid = vm.as_ref().and_then(|vm| vm.status().uid);
        entry.vm = vm;
        entry.left = None;
        drop(table);
        self.changed();
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    async fn busy(&self, name: &str) -> OwnedMutexGuard<()> {
        let busy = Arc::clone(&self.table().entry(name.to_owned()).or_default().busy);
        busy.lock_owned().await
    }

    /// The VM, once no other task starts or ends it.
    async fn take(&self, name: &str) -> Result<Option<(OwnedMutexGuard<()>, Taken)>, VmError> {
        if !self.table().contains_key(name) {
            return Ok(None);
        }
        let busy = self.busy(name).await;
        if let Some(left) = self.left(name) {
            return match left.run_state {
                VmState::Dead => Ok(Some((busy, Taken::Dead(Box::new(left))))),
                _ => Err(VmError::Unreachable { name: name.to_owned() }),
            };
        }
        match self.get(name) {
            Some(vm) => Ok(Some((busy, Taken::Vm(vm)))),
            None => {
                self.forget_unused(name, busy);
                Ok(None)
            }
        }
    }

    /// Drops a name that no VM and no task uses.
    fn forget_unused(&self, name: &str, busy: OwnedMutexGuard<()>) {
        let mut table = self.table();
        drop(busy);
        let unused = |entry: &Entry| {
            let empty = entry.vm.is_none() && entry.left.is_none() && entry.reserved == 0;
            empty && Arc::strong_count(&entry.busy) == 1
        };
        if table.get(name).is_some_and(unused) {
            table.remove(name);
        }
    }

    pub(super) async fn remove_dir(&self, name: &str) -> Result<(), VmError> {
        let (state, name) = (Arc::clone(&self.state), name.to_owned());
        blocking(move || state.remove(&name)).await
    }
}

/// The QEMU that listens at the monitor, if it is one.
pub(super) fn process_behind(qmp: &Qmp) -> Result<Option<QemuProcess>, VmError> {
    let Some(pid) = qmp.peer_pid() else { return Ok(None) };
    Ok(QemuProcess::of_pid(pid)?.filter(QemuProcess::is_qemu))
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VmError> + Send + 'static,
) -> Result<T, VmError> {
    spawn_blocking(work).await.unwrap_or(Err(VmError::Ending))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::{What, Writing};

    fn sendable<T: Send>(_: T) {}

    #[test]
    fn two_vms_do_not_both_get_the_room_for_one() {
        const ROOM: u64 = 64 << 20;
        let folder = tempfile::tempdir().unwrap();
        let state = Arc::new(StateDir::open(folder.path()).unwrap());
        let config = ManagerConfig {
            state_dir: folder.path().to_owned(),
            memory_ceiling_bytes: ROOM,
            qemu: Qemu::default(),
            policy: Policy::default(),
            preallocate: None,
            qemu_uids: QemuUids::default(),
        };
        let spec = |name| VmSpec::parse(&format!("name = 'vm{name}'\nmemory = '64MiB'")).unwrap();
        let specs: Vec<_> = (0..4).map(spec).collect();
        for _ in 0..500 {
            let (table, changes) = (Mutex::default(), watch::Sender::new(0));
            let (config, state, storage) = (config.clone(), state.clone(), Storage::default());
            let inner = Inner { config, state, storage, table, changes };
            let start = std::sync::Barrier::new(specs.len());
            let reserve = |spec| {
                start.wait();
                inner.reserve(spec).is_ok()
            };
            let got = std::thread::scope(|scope| {
                let all: Vec<_> = specs.iter().map(|spec| scope.spawn(|| reserve(spec))).collect();
                all.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>()
            });
            assert_eq!(got.iter().filter(|got| **got).count(), 1);
        }
    }

    /// Sessions run in tasks; an async fn stops being `Send` without a word.
    #[test]
    fn futures_can_be_spawned() {
        fn check(vms: &VmManager, vm: &Arc<Vm>, spec: VmSpec, config: ManagerConfig) {
            sendable(VmManager::open(config));
            sendable(vms.start(spec.clone(), 1));
            let act = Act { migration: MigrationId(1), what: What::Discard };
            sendable(vms.prepare_incoming(spec, MigrationId(1), 1));
            sendable(vms.list());
            sendable(vms.act(&act));
            sendable(vms.destroy("", false));
            sendable(vm.write(Writing::Unmarked));
            sendable(vm.summary());
            sendable(vm.died());
        }
        let _ = check;
    }
}
