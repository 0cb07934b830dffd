//! What an earlier agent left and this one does not manage: a QEMU that does not answer, or the folder of a VM that is dead.

use rackferry_agent_core::{Facts, Step, Writing};

use super::{Inner, VmState, VmSummary, blocking};
use crate::vm::VmError;

/// What is known of it.
pub(super) fn facts(left: &VmSummary) -> Facts {
    Facts { name: left.name.clone(), standing: left.standing, state: left.run_state }
}

impl Inner {
    pub(super) fn left(&self, name: &str) -> Option<VmSummary> {
        self.table().get(name)?.left.clone()
    }

    /// Keeps the name of a VM that an earlier agent left, and the memory of one whose QEMU may run.
    pub(in crate::vm) fn insert_left(&self, left: VmSummary) {
        let mut table = self.table();
        let entry = table.entry(left.name.clone()).or_default();
        entry.reserved = match left.run_state {
            VmState::Dead => 0,
            // One byte keeps the name when the size is not known.
            _ => left.memory_bytes.max(1),
        };
        entry.left = Some(left);
        drop(table);
        self.changed();
    }

    /// Removes the folder of a dead VM, and its name. Called with the name taken.
    pub(super) async fn forget(&self, name: &str) -> Result<(), VmError> {
        self.remove_dir(name).await?;
        self.table().remove(name);
        self.changed();
        Ok(())
    }

    /// Does to a dead VM what can be done to it. Called with the name taken.
    pub(super) async fn step_of_dead(&self, name: &str, step: Step) -> Result<(), VmError> {
        match step {
            Step::Quit | Step::Kill => self.forget(name).await,
            Step::Write(writing) => self.write_left(name, writing).await,
            Step::Announce => Ok(()),
            Step::Cont => Err(VmError::Unknown { name: name.to_owned() }),
        }
    }

    async fn write_left(&self, name: &str, writing: Writing) -> Result<(), VmError> {
        let dir = self.state.vm(name);
        let write = move || {
            let mut status = dir.read_status()?;
            writing.apply(&mut status.standing);
            dir.write_status(&status)?;
            Ok(status.standing)
        };
        let standing = blocking(write).await?;
        if let Some(left) = self.table().get_mut(name).and_then(|entry| entry.left.as_mut()) {
            left.standing = standing;
        }
        self.changed();
        Ok(())
    }
}
