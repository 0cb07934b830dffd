//! How a VM leaves this host for good.

use std::sync::Arc;
use std::time::Duration;

use rackferry_agent_core::{Remains, Step, remains};
use tokio::time::timeout;
use tracing::info;

use super::{Inner, Taken};
use crate::vm::{Standing, Vm, VmError, Writing};

/// A QEMU that was asked to quit ends within this, or is killed.
const QUIT_LIMIT: Duration = Duration::from_secs(3);

/// Whether an operator may end a VM: one that takes part in a migration only by force, for the copy may be the one that the
/// other host counts on.
///
/// # Errors
/// [`VmError::InMigration`].
pub(super) fn may_destroy(name: &str, standing: &Standing, force: bool) -> Result<(), VmError> {
    match standing.mark {
        Some(mark) if !force => {
            Err(VmError::InMigration { name: name.to_owned(), migration: mark.migration })
        }
        _ => Ok(()),
    }
}

impl Inner {
    /// Ends a VM at its operator's wish. If the coordinator must hear that it was here, that is written down, and the VM is
    /// dead until the coordinator has it forgotten. Called with the name taken.
    pub(super) async fn destroy(&self, taken: &Taken, force: bool) -> Result<(), VmError> {
        let (facts, may_have_run) = match taken {
            Taken::Vm(vm) => (vm.facts().await, vm.may_have_run()),
            Taken::Dead(left) => (super::left::facts(left), left.may_have_run),
        };
        may_destroy(&facts.name, &facts.standing, force)?;
        match (taken, remains(&facts, may_have_run, force)) {
            (Taken::Vm(vm), Remains::Nothing) => self.end(vm, vm.status().attached).await,
            (Taken::Vm(vm), Remains::Word) => {
                self.end_process(vm, vm.status().attached).await?;
                // Its watcher sees that a little later.
                let _ = timeout(QUIT_LIMIT, vm.died()).await;
                vm.write(Writing::Destroyed).await
            }
            (Taken::Dead(_), Remains::Nothing) => self.forget(&facts.name).await,
            (Taken::Dead(_), Remains::Word) => {
                self.step_of_dead(&facts.name, Step::Write(Writing::Destroyed)).await
            }
        }
    }

    /// Ends QEMU and removes every trace. Called with the name taken.
    pub(super) async fn end(&self, vm: &Arc<Vm>, gently: bool) -> Result<(), VmError> {
        self.end_process(vm, gently).await?;
        self.remove_dir(vm.name()).await?;
        self.table().remove(vm.name());
        self.changed();
        info!(vm = vm.name(), "VM removed");
        Ok(())
    }

    async fn end_process(&self, vm: &Arc<Vm>, gently: bool) -> Result<(), VmError> {
        if gently && !vm.is_dead() {
            self.quit(vm).await?;
        }
        match vm.process().filter(|_| !vm.status().attached) {
            Some(process) => process.kill().await,
            None => Ok(()),
        }
    }

    async fn quit(&self, vm: &Arc<Vm>) -> Result<(), VmError> {
        let attached = vm.status().attached;
        let qmp = vm.qmp();
        let quitting = async {
            if qmp.within(QUIT_LIMIT).quit().await.is_err() {
                return false;
            }
            match vm.process() {
                Some(process) => process.gone().await.is_ok(),
                None => !qmp.closed().await.is_empty(),
            }
        };
        let quit = timeout(QUIT_LIMIT, quitting).await.unwrap_or(false);
        if attached && !quit {
            return Err(VmError::NotOurs { name: vm.name().to_owned() });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::{Mark, MigrationId, Role, Side};

    #[test]
    fn a_vm_in_a_migration_ends_only_by_force() {
        let mark = |side| Some(Mark { migration: MigrationId(7), generation: 2, side });
        for (role, mark) in [(Role::Run, mark(Side::Source)), (Role::Incoming, mark(Side::Target))]
        {
            let standing = Standing { role, mark, ..Standing::owned(1) };
            let refused = may_destroy("web", &standing, false).unwrap_err().to_string();
            assert!(refused.contains("mig-7") && refused.contains("--force"), "{refused}");
            assert!(may_destroy("web", &standing, true).is_ok());
        }
        let settled = Standing::owned(1);
        assert!(may_destroy("web", &settled, false).is_ok());
    }
}
