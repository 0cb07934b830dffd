//! Switchover slots: how many VMs may be paused at once, by host and in all.

use crate::{
    Fleet, HostName, Limits, MigrationId, Order, Wait, WaitCode,
    slots::{Full, Usage},
};

impl Fleet {
    /// Gives free slots to moves that wait, first come first served, if something has changed.
    pub(crate) fn grant_slots_if_due(&mut self) {
        if !std::mem::take(&mut self.scheduling.slots_due) {
            return;
        }
        let waiting: Vec<MigrationId> = self.scheduling.slots.waiting().collect();
        if waiting.is_empty() {
            return;
        }
        let mut usage = self.slot_usage();
        for id in waiting {
            let Some((migration, _)) = self.active(id) else { continue };
            // It would not hear of it, and when it is back its slot may be another's.
            if !self.ownership.agents().contains_key(&migration.source) {
                continue;
            }
            let room = usage.room(&migration.source, &migration.target);
            match room.or_else(|full| if planted!(self, SlotsForAll) { Ok(()) } else { Err(full) })
            {
                Ok(()) => {
                    self.scheduling.slots.seize(id);
                    usage.count(&migration.source, &migration.target);
                    self.show_wait(id, None);
                    self.tell(&migration.source, Order::SwitchoverGrant(id));
                    self.outbox.publish = true;
                }
                Err((Full { limit, used }, host)) => {
                    let detail = host.map_or_else(|| "all hosts".to_owned(), |h| h.to_string());
                    let code = WaitCode::SwitchoverSlot;
                    self.show_wait(id, Some(Wait { code, detail, limit, used }));
                }
            }
        }
    }

    /// Slots in use; one whose source is silent cannot switch and does not count.
    fn slot_usage(&self) -> Usage<HostName> {
        let Limits { switchovers_total, switchovers_per_host, .. } = self.limits;
        let mut usage = Usage::new(switchovers_total, switchovers_per_host);
        let held = self.scheduling.slots.held().filter_map(|id| self.store.migrations().get(&id));
        for holder in held.filter(|holder| self.ownership.agents().contains_key(&holder.source)) {
            usage.count(&holder.source, &holder.target);
        }
        usage
    }
}
