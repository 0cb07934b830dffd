//! Forgets what has ended, beyond the history that is kept.

use crate::{End, Fleet, Key, MigrationId, MigrationRecord, Stage, VmName};

impl Fleet {
    /// Forgets the oldest of what has ended, beyond the history that is kept. What ends in this turn waits for a later
    /// one: its end comes on record first. A move that lost its VM stays as long as the VM does.
    pub(crate) fn prune(&mut self) {
        let history = self.limits.history;
        let over = |fleet: &Self, ids: &[MigrationId]| {
            ids.iter().all(|&id| fleet.store.is_written(&Key::Migration(id)) && !fleet.is_loss(id))
        };
        for id in self.store.index().stale_evacuations(history) {
            let vms = self.store.evacuations().get(&id).map(|record| record.vms.clone());
            let migrations: Vec<_> = vms.unwrap_or_default().into_values().flatten().collect();
            if self.store.is_written(&Key::Evacuation(id)) && over(self, &migrations) {
                migrations.into_iter().for_each(|migration| self.store.remove_migration(migration));
                self.store.remove_evacuation(id);
            }
        }
        for id in self.store.index().stale_singles(history) {
            if over(self, &[id]) {
                self.store.remove_migration(id);
            }
        }
    }

    /// A move that lost its VM, which is still as that move left it: started again, it needs no trace of the move.
    fn is_loss(&self, id: MigrationId) -> bool {
        let Some(migration) = self.store.migrations().get(&id) else { return false };
        let lost = matches!(migration.stage, Stage::Ended { end: End::Lost, .. });
        let vm = self.store.vms().get(&migration.vm).filter(|_| lost);
        vm.is_some_and(|vm| vm.generation <= migration.generation && !self.runs_at_owner(&vm.name))
    }

    /// The move that lost a VM: what is left of it is on that move's hosts.
    pub(crate) fn loss_of(&self, vm: &VmName) -> Option<&MigrationRecord> {
        let lost = self.store.index().attempts_of_vm(vm).rev().find(|&id| self.is_loss(id))?;
        self.store.migrations().get(&lost)
    }
}
