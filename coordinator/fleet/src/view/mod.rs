//! What clients see. Nothing here changes what is decided.

mod advice;
pub(crate) mod figures;
pub(crate) mod problems;
pub(crate) mod published;
mod rows;
pub(crate) mod shown;
pub(crate) mod vm;

use std::{collections::BTreeMap, sync::Arc};

use crate::{End, HostName, MigrationId, VmName};
use published::{Published, Unpublished};

/// What readers see.
#[derive(Debug, Default)]
pub(crate) struct View {
    published: Arc<Published>,
    /// What of it is older than this turn.
    unpublished: Unpublished,
    /// Migrations that have ended and were not counted yet.
    ended: BTreeMap<End, u64>,
}

impl View {
    /// What is shown of a host may have changed.
    pub(crate) fn touch_host(&mut self, host: &HostName) {
        self.unpublished.host(host);
    }

    /// What is shown of a VM may have changed.
    pub(crate) fn touch_vm(&mut self, vm: &VmName) {
        self.unpublished.vm(vm);
    }

    /// What is shown of a migration may have changed.
    pub(crate) fn touch_migration(&mut self, id: MigrationId) {
        self.unpublished.migration(id);
    }
}
