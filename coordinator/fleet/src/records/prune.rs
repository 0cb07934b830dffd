//! Forgets what has ended, beyond the history that is kept.

use crate::{Fleet, Key, MigrationId};

impl Fleet {
    /// Forgets the oldest of what has ended, beyond the history that is kept. What ends in this turn waits for a later
    /// one: its end comes on record first.
    pub(crate) fn prune(&mut self) {
        let history = self.limits.history;
        let written = |fleet: &Self, ids: &[MigrationId]| {
            ids.iter().all(|&id| fleet.store.is_written(&Key::Migration(id)))
        };
        for id in self.store.index().stale_evacuations(history) {
            let vms = self.store.evacuations().get(&id).map(|record| record.vms.clone());
            let migrations: Vec<_> = vms.unwrap_or_default().into_values().flatten().collect();
            if self.store.is_written(&Key::Evacuation(id)) && written(self, &migrations) {
                migrations.into_iter().for_each(|migration| self.store.remove_migration(migration));
                self.store.remove_evacuation(id);
            }
        }
        for id in self.store.index().stale_singles(history) {
            if written(self, &[id]) {
                self.store.remove_migration(id);
            }
        }
    }
}
