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
        self.store.change_migration(id, |record| record.forced = true);
        self.force(id);
        self.finish(out);
        Ok(())
    }

    /// The deadline of an evacuation passed before it ended.
    pub(crate) fn is_overdue(&self, evacuation: &EvacuationRecord) -> bool {
        crate::shown::is_overdue(evacuation, self.now)
    }

    /// Tells of deadlines that have passed, and sources that must switch over now.
    pub(crate) fn watch_deadlines(&mut self) {
        let running = self.store.index().running();
        let running = running.filter_map(|id| self.store.evacuations().get(&id));
        let overdue: BTreeSet<EvacuationId> =
            running.filter(|one| self.is_overdue(one)).map(|one| one.id).collect();
        let passed: Vec<EvacuationId> =
            overdue.difference(&self.scheduling.overdue).copied().collect();
        for id in passed {
            self.note(false, format!("the deadline of {id} has passed; it goes on"));
            self.outbox.publish = true;
        }
        self.scheduling.overdue = overdue;
        for id in self.store.index().begun().collect::<Vec<_>>() {
            self.force(id);
        }
    }

    /// Tells a source to switch over, if it must and its present agent has not heard it.
    fn force(&mut self, id: MigrationId) {
        let Some((migration, live)) = self.active(id) else { return };
        // A session that has not yet spoken would not hear it.
        let hears = live.session.is_heard()
            && live.source == Source::Moving
            && live.call_off.why().is_none();
        if !hears || live.force_told || !matches!(migration.stage, Stage::Started { .. }) {
            return;
        }
        if !self.must_force(&migration) {
            return;
        }
        if let Some(live) = self.live.get_mut(&id) {
            live.force_told = true;
        }
        self.tell(&migration.source, Order::ForceSwitchover(id));
    }

    fn must_force(&self, migration: &MigrationRecord) -> bool {
        let evacuation = migration.evacuation.and_then(|id| self.store.evacuations().get(&id));
        let any = planted!(self, ForcesDespiteLimit);
        migration.forced
            || evacuation.is_some_and(|evacuation| {
                (any || migration.options.disruption == Disruption::Allow)
                    && self.is_overdue(evacuation)
            })
    }
}
