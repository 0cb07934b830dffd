//! How a VM leaves this host for good.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tracing::info;

use super::Inner;
use crate::vm::{Vm, VmError};

/// A QEMU that was asked to quit ends within this, or is killed.
const QUIT_LIMIT: Duration = Duration::from_secs(3);

impl Inner {
    /// Ends QEMU and removes every trace. Called with the name taken.
    pub(super) async fn end(&self, vm: &Arc<Vm>, gently: bool) -> Result<(), VmError> {
        if gently && !vm.is_dead() {
            self.quit(vm).await?;
        }
        if let Some(process) = vm.process().filter(|_| !vm.status().attached) {
            process.kill().await?;
        }
        self.remove_dir(vm.name()).await?;
        self.table().remove(vm.name());
        self.changed();
        info!(vm = vm.name(), "VM removed");
        Ok(())
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
