//! How a VM that is paused runs on, at its operator's wish.

use std::sync::Arc;

use rackferry_agent_core::{Facts, Role};
use tracing::info;

use crate::vm::error::Named;
use crate::vm::{Vm, VmError, VmState};

/// Lets a paused VM run. Called with the name taken.
pub(super) async fn resume(vm: &Arc<Vm>) -> Result<(), VmError> {
    if !wants_cont(&vm.facts().await)? {
        return Ok(());
    }
    vm.qmp().cont().await.of_vm(vm.name())?;
    info!(vm = vm.name(), "resumed by its operator");
    Ok(())
}

/// Whether QEMU is to be told to let the guest run; not if it runs. In a migration the log alone says whether a copy may
/// run.
fn wants_cont(vm: &Facts) -> Result<bool, VmError> {
    let name = vm.name.clone();
    match (vm.standing.mark, vm.standing.role, vm.state) {
        (Some(mark), _, _) => Err(VmError::InMigration { name, migration: mark.migration }),
        (None, Role::Run, VmState::Running) => Ok(false),
        (None, Role::Run, VmState::Paused) => Ok(true),
        (None, _, state) => Err(VmError::NotPaused { name, state }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::{Mark, MigrationId, Side, Standing};

    fn wants(standing: Standing, state: VmState) -> Result<bool, VmError> {
        wants_cont(&Facts { name: "web".to_owned(), standing, state })
    }

    #[test]
    fn only_a_paused_vm_outside_of_migrations_is_let_run() {
        assert!(wants(Standing::owned(1), VmState::Paused).unwrap());
        assert!(!wants(Standing::owned(1), VmState::Running).unwrap());
        for state in [VmState::Dead, VmState::MovedOut, VmState::Unknown, VmState::Loaded] {
            let refused = wants(Standing::owned(1), state);
            assert!(matches!(refused, Err(VmError::NotPaused { .. })), "{refused:?}");
        }
        for side in [Side::Source, Side::Target] {
            let mark = Mark { migration: MigrationId(7), generation: 2, side };
            let moving = Standing { mark: Some(mark), ..Standing::owned(1) };
            let refused = wants(moving, VmState::Paused);
            assert!(matches!(refused, Err(VmError::InMigration { .. })), "{refused:?}");
        }
    }
}
