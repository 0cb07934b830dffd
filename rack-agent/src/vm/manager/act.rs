//! How something is done to a VM: it is found, taken, looked at, and then the rules say what.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rackferry_agent_core::{Act, Step};
use tracing::warn;

use super::{Inner, Taken};
use crate::vm::error::Named;
use crate::vm::{Vm, VmError};

impl Inner {
    pub(super) fn concerned(&self, act: &Act) -> Option<String> {
        let table = self.table();
        let concerned = |(name, entry): (&String, &super::Entry)| {
            let standing = match (&entry.vm, &entry.left) {
                (Some(vm), _) => vm.status().standing,
                (None, Some(left)) => left.standing,
                (None, None) => return None,
            };
            act.concerns(name, &standing).then(|| name.clone())
        };
        table.iter().find_map(concerned)
    }

    pub(super) async fn act(&self, act: &Act) -> Result<bool, VmError> {
        let Some(name) = self.concerned(act) else { return Ok(false) };
        let Some((_busy, taken)) = self.take(&name).await? else { return Ok(false) };
        let facts = match &taken {
            Taken::Vm(vm) if act.looks() => vm.facts().await,
            Taken::Vm(vm) => vm.last_facts(),
            Taken::Dead(left) => super::left::facts(left),
        };
        let steps = act.verdict(&facts).map_err(VmError::Refused)?;
        for step in steps {
            match &taken {
                Taken::Vm(vm) => self.step(vm, step).await?,
                Taken::Dead(_) => self.step_of_dead(&name, step).await?,
            }
        }
        Ok(true)
    }

    async fn step(&self, vm: &Arc<Vm>, step: Step) -> Result<(), VmError> {
        match step {
            Step::Cont => {
                vm.let_run().store(true, Ordering::SeqCst);
                vm.qmp().cont().await.of_vm(vm.name())?;
            }
            Step::Announce => drop(vm.qmp().announce_self().await),
            Step::Quit => self.end(vm, true).await?,
            Step::Kill => self.end(vm, false).await?,
            Step::Write(writing) => match vm.write(writing).await {
                Err(error) if writing.is_fact() => {
                    warn!(vm = vm.name(), %error, "it is so, but could not be written down");
                }
                written => written?,
            },
        }
        Ok(())
    }
}
