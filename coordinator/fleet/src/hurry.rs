//! Deadlines of evacuations, and VMs that are stopped however long it takes.

use std::collections::BTreeSet;

use crate::{
    Disruption, Effect, EvacuationId, EvacuationRecord, Fleet, MigrationId, MigrationRecord,
    Moment, Order, Refusal, Stage, ownership::Source,
};

impl Fleet {
    /// Lets the VM of a migration be stopped as soon as its first pass is over and it has a slot, for as long as it takes;
    /// later attempts too. To say it again, or of a migration that is over, changes nothing.
    ///
    /// # Errors
    /// [`Refusal::UnknownMigration`].
    pub fn force_switchover(
        &mut self,
        id: MigrationId,
        now: Moment,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let known = self.store.migrations().get(&id).ok_or(Refusal::UnknownMigration(id))?;
        if known.forced || !known.is_active() {
            return Ok(());
        }
        self.begin(now);
        if let Some(record) = self.store.migration_mut(id) {
            record.forced = true;
        }
        self.hurry(id);
        self.finish(out);
        Ok(())
    }

    /// The deadline of an evacuation passed before it ended.
    pub(crate) fn is_overdue(&self, evacuation: &EvacuationRecord) -> bool {
        let end = evacuation.ended.unwrap_or(self.now);
        evacuation.deadline.is_some_and(|deadline| deadline <= end)
    }

    /// Tells of deadlines that have passed, and sources that must hurry now.
    pub(crate) fn watch_deadlines(&mut self) {
        let running = self.store.evacuations().values().filter(|one| one.ended.is_none());
        let overdue: BTreeSet<EvacuationId> =
            running.filter(|one| self.is_overdue(one)).map(|one| one.id).collect();
        let passed: Vec<EvacuationId> = overdue.difference(&self.overdue).copied().collect();
        for id in passed {
            self.note(false, format!("the deadline of {id} has passed; it goes on"));
            self.outbox.publish = true;
        }
        self.overdue = overdue;
        for id in self.live.keys().copied().collect::<Vec<_>>() {
            self.hurry(id);
        }
    }

    /// Tells a source to hurry, if it must and its present agent has not heard it.
    fn hurry(&mut self, id: MigrationId) {
        let Some((migration, live)) = self.active(id) else { return };
        // A session that has not yet spoken would not hear it.
        let hears = live.acknowledged && live.source == Source::Moving && live.called_off.is_none();
        if !hears || live.hurry_told || !matches!(migration.stage, Stage::Started { .. }) {
            return;
        }
        if !self.must_hurry(&migration) {
            return;
        }
        if let Some(live) = self.live.get_mut(&id) {
            live.hurry_told = true;
        }
        self.tell(&migration.source, Order::HurrySource(id));
    }

    fn must_hurry(&self, migration: &MigrationRecord) -> bool {
        let evacuation = migration.evacuation.and_then(|id| self.store.evacuations().get(&id));
        #[cfg(feature = "planted-bugs")]
        let any = self.has(crate::PlantedBug::HurriesTheGentle);
        #[cfg(not(feature = "planted-bugs"))]
        let any = false;
        migration.forced
            || evacuation.is_some_and(|evacuation| {
                (any || migration.options.disruption == Disruption::Allow)
                    && self.is_overdue(evacuation)
            })
    }
}
