//! How a VM comes to this host: its QEMU is started, or found running.

use std::collections::HashSet;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use rackferry_agent_core::{Preparation, preparation, start};
use rackferry_migrator::memory::GuestMemory;
use rackferry_migrator::qmp::Qmp;
use tracing::{info, warn};

use super::{Inner, blocking, process_behind};
use crate::vm::descriptors::Opened;
use crate::vm::error::Named;
use crate::vm::machine::Parts;
use crate::vm::state_dir::at;
use crate::vm::{
    Launch, QemuProcess, Role, Start, Status, User, Vm, VmDir, VmError, VmSpec, VmState,
};

/// A QEMU that was started answers within this.
const START_LIMIT: Duration = Duration::from_secs(30);

impl Inner {
    /// Takes a name and memory for a VM.
    pub(super) fn reserve(&self, spec: &VmSpec) -> Result<(), VmError> {
        // Under one lock: two VMs that come together must not both take what is free for one.
        let mut table = self.table();
        let free = self.free_bytes(&table);
        let entry = table.entry(spec.name().to_owned()).or_default();
        if entry.vm.is_some() || entry.left.is_some() || entry.reserved > 0 {
            return Err(VmError::Exists { name: spec.name().to_owned() });
        }
        let needed = spec.memory_bytes();
        if needed > free {
            return Err(VmError::NoMemory { name: spec.name().to_owned(), needed, free });
        }
        entry.reserved = needed;
        Ok(())
    }

    /// A VM comes to this host, in place of what is left of one of its name that may be replaced.
    pub(super) async fn add(&self, spec: VmSpec, mut status: Status) -> Result<Arc<Vm>, VmError> {
        let name = spec.name().to_owned();
        let bytes = spec.memory_bytes();
        // Of a QEMU that runs already nothing can be refused any more.
        if !status.attached {
            match self.breaches(&spec).await {
                Ok(breaches) => {
                    if let Some(breach) = breaches.into_iter().next() {
                        return Err(VmError::Policy { name, breach });
                    }
                }
                Err(unseen) => return Err(VmError::Unseen { name, unseen }),
            }
        }
        let mut busy = self.busy(&name).await;
        let found = self.get(&name);
        let facts = match &found {
            Some(vm) => Some(vm.facts().await),
            None => self.left(&name).as_ref().map(super::left::facts),
        };
        // It is its owner's still: what another host has of it stays older.
        if let (Some(facts), None) = (&facts, status.standing.mark) {
            let owned = &mut status.standing.generation;
            *owned = facts.standing.generation.max(*owned);
        }
        let preparation = match status.standing.mark {
            Some(mark) => preparation(facts.as_ref(), mark.migration),
            None => start(facts.as_ref()),
        };
        match (preparation, found) {
            (Preparation::Ready, Some(vm)) => return Ok(vm),
            (Preparation::Replace, found) => {
                match found {
                    Some(vm) => self.end(&vm, true).await?,
                    None => self.forget(&name).await?,
                }
                drop(busy);
                busy = self.busy(&name).await;
            }
            _ => {}
        }
        if let Err(error) = self.reserve(&spec) {
            self.forget_unused(&name, busy);
            return Err(error);
        }
        let added = match status.attached {
            true => self.attach(spec, status).await,
            false => self.boot(spec, status).await,
        };
        match added {
            Ok(vm) => {
                self.insert(&name, bytes, Some(Arc::clone(&vm)));
                info!(vm = name, "VM added");
                Ok(vm)
            }
            Err(error) => {
                self.insert(&name, 0, None);
                self.forget_unused(&name, busy);
                Err(error)
            }
        }
    }

    /// Makes the folder and starts QEMU in it; both are gone again if anything fails.
    async fn boot(&self, spec: VmSpec, mut status: Status) -> Result<Arc<Vm>, VmError> {
        let memfd = format!("rackferry-{}", spec.name());
        status.memfd = Some(memfd.clone());
        let user = self.user_for(&spec).await?;
        status.uid = user.map(|user| user.uid);
        let dir = self.create_dir(&spec, &status).await?;
        let mut started = None;
        let booted = self.boot_in(&dir, spec.clone(), (status, user), &memfd, &mut started).await;
        if booted.is_err() {
            if let Some(process) = started {
                process.kill().await?;
            }
            self.remove_dir(spec.name()).await?;
        }
        booted
    }

    async fn boot_in(
        &self,
        dir: &VmDir,
        spec: VmSpec,
        (mut status, user): (Status, Option<User>),
        memfd: &str,
        started: &mut Option<QemuProcess>,
    ) -> Result<Arc<Vm>, VmError> {
        let name = spec.name().to_owned();
        let incoming = status.standing.role == Role::Incoming;
        let memory = GuestMemory::create(memfd, spec.memory_bytes(), spec.huge_pages());
        let memory = Arc::new(memory.of_vm(&name)?);
        let process = started.insert(self.spawn(dir, &spec, &memory, incoming, user).await?);
        status.process = Some(process.id().clone());
        let (dir_, status_) = (dir.clone(), status.clone());
        blocking(move || dir_.write_status(&status_)).await?;
        let qmp = tokio::select! {
            connected = Qmp::connect_within(dir.qmp_socket(), START_LIMIT) => {
                connected.of_vm(&name)?
            }
            gone = process.gone() => {
                gone?;
                let log = dir.log_tail();
                return Err(VmError::EndedAtOnce { hint: hint(&log, user), name, log });
            }
        };
        let machine = qmp.machine_type().await.of_vm(&name)?;
        let spec = pinned(spec, &machine, incoming);
        let (dir_, text) = (dir.clone(), spec.text().to_owned());
        blocking(move || dir_.write_spec(&text)).await?;
        if incoming {
            if let Some(how) = self.config.preallocate {
                // Its failure shows again when a page is placed.
                drop(memory.preallocate_in_background(how));
            }
            qmp.prepare_target().await.of_vm(&name)?;
            qmp.incoming(&dir.arrival_socket(status.uid).qemu_path).await.of_vm(&name)?;
        } else {
            qmp.cont().await.of_vm(&name)?;
        }
        let dir = dir.clone();
        let (process, memory) = (started.take(), Some(memory));
        let changes = self.changes.clone();
        let state = if incoming { VmState::Incoming } else { VmState::Running };
        let let_run = !incoming;
        let parts =
            Parts { spec, dir, machine, process, qmp, memory, status, state, let_run, changes };
        Ok(Vm::new(parts))
    }

    /// Opens what QEMU needs, and starts it.
    async fn spawn(
        &self,
        dir: &VmDir,
        spec: &VmSpec,
        memory: &GuestMemory,
        incoming: bool,
        user: Option<User>,
    ) -> Result<QemuProcess, VmError> {
        let log = dir.open_log()?;
        let opened = Opened::of(spec, dir, memory, &log, &self.storage).await?;
        let argv = spec.to_command(&Launch {
            qemu: &self.config.qemu,
            descriptors: &opened.numbers,
            log: &dir.log(),
            incoming,
            sandbox: self.config.policy.sandbox,
        });
        let folder = dir.working_folder(user.map(|user| user.uid));
        let folder = File::open(&folder).map_err(at(&folder))?;
        QemuProcess::spawn(Start { argv, log, folder, descriptors: opened.all, user })
    }

    /// A user that no other QEMU of this host runs as; none if QEMUs run as the agent does.
    async fn user_for(&self, spec: &VmSpec) -> Result<Option<User>, VmError> {
        let Some(range) = self.config.qemu_uids.in_force() else { return Ok(None) };
        // Those of other agents, too, and of QEMUs whose folder is lost.
        let living = blocking(move || Ok(range.living())).await?;
        let name = spec.name();
        let mut table = self.table();
        let taken: HashSet<u32> = table.values().filter_map(|entry| entry.uid).collect();
        let taken = |uid| living.contains(&uid) || taken.contains(&uid);
        let uid = range.pick(&(self.state.installation(), name), taken);
        let uid = uid.ok_or_else(|| VmError::NoUid { name: name.to_owned() })?;
        table.entry(name.to_owned()).or_default().uid = Some(uid);
        Ok(Some(User::of(uid, spec.needs().kvm)))
    }

    /// Takes over a VM that was started outside of Rackferry.
    async fn attach(&self, spec: VmSpec, mut status: Status) -> Result<Arc<Vm>, VmError> {
        let name = spec.name().to_owned();
        let Some(attach) = spec.attach() else { return Err(VmError::NoAttach { name }) };
        let qmp = Qmp::connect(&attach.qmp).await.of_vm(&name)?;
        let actual = qmp.memory_bytes().await.of_vm(&name)?;
        if actual != spec.memory_bytes() {
            return Err(VmError::MemoryDiffers { name, actual, spec: spec.memory_bytes() });
        }
        let machine = qmp.machine_type().await.of_vm(&name)?;
        let process = process_behind(&qmp)?;
        status.process = process.as_ref().map(|process| process.id().clone());
        let spec = pinned(spec, &machine, false);
        let dir = self.create_dir(&spec, &status).await?;
        let changes = self.changes.clone();
        let (memory, state, let_run) = (None, VmState::Running, true);
        let parts =
            Parts { spec, dir, machine, process, qmp, memory, status, state, let_run, changes };
        Ok(Vm::new(parts))
    }

    async fn create_dir(&self, spec: &VmSpec, status: &Status) -> Result<VmDir, VmError> {
        let (state, status) = (Arc::clone(&self.state), status.clone());
        let (name, text) = (spec.name().to_owned(), spec.text().to_owned());
        blocking(move || state.create(&name, &text, &status)).await
    }
}

/// What an operator can do if QEMU's user may be why it ended.
fn hint(log: &str, user: Option<User>) -> String {
    let refused = ["denied", "not permitted"].iter().any(|words| log.contains(words));
    match user.filter(|_| refused) {
        None => String::new(),
        Some(User { uid, .. }) => format!(
            " (QEMU runs as uid {uid}, which has no rights of its own: let others read what the spec names beside disks, \
             kernel, initrd and taps; or set qemu_uids = \"root\" in the settings of this host's agent)"
        ),
    }
}

/// The spec with the machine type QEMU really made; as it was if that cannot be written. One that has come with a move and
/// names that type already stays to the byte, whichever version wrote it: the coordinator compares it with the registered one.
fn pinned(spec: VmSpec, machine: &str, arrives: bool) -> VmSpec {
    if arrives && spec.needs().machine == machine {
        return spec;
    }
    spec.with_machine(machine).unwrap_or_else(|error| {
        warn!(vm = spec.name(), %error, "machine type not written down");
        spec
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_by_the_kernel_is_explained_where_qemu_has_a_user() {
        let user = Some(User { uid: 1_900_000_001, gid: 1 });
        let log = "qemu: could not load PC BIOS: Permission denied";
        let told = hint(log, user);
        assert!(told.contains("uid 1900000001") && told.contains("qemu_uids = \"root\""), "{told}");
        assert_eq!((hint(log, None), hint("no such device", user)), (String::new(), String::new()));
    }

    #[test]
    fn a_spec_that_arrives_pinned_is_kept_to_the_byte() {
        let text = |machine| {
            format!(
                "# as another version wrote it\nname = 'a'\nmemory = '64MiB'\nmachine = '{machine}'\n"
            )
        };
        let spec = |machine| VmSpec::parse(&text(machine)).unwrap();
        let machine = "pc-q35-10.0,hpet=off";
        assert_eq!(pinned(spec(machine), "pc-q35-10.0", true).text(), text(machine));
        let started = pinned(spec(machine), "pc-q35-10.0", false);
        assert_eq!(pinned(started.clone(), "pc-q35-10.0", false).text(), started.text());
        assert_eq!(pinned(spec("q35"), "pc-q35-10.0", true).machine(), "pc-q35-10.0");
    }
}
