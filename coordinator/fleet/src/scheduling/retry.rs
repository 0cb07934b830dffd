//! Another attempt for a VM of an evacuation whose move was undone, after a pause.

use crate::{
    EvacuationId, Fleet, MigrationId, MigrationRecord, Moment, Record, Stage, Wait, WaitCode,
    live::Live,
};

/// The longest pause that doubling comes to.
const PAUSE_MAX_NS: u64 = 600_000_000_000;

impl Fleet {
    /// Queues another attempt: on another host, or on the same if there is no other, or if the VM itself was the cause.
    pub(crate) fn retry(
        &mut self,
        failed: &MigrationRecord,
        evacuation: EvacuationId,
        not_converged: bool,
    ) {
        let Some(record) = self.store.evacuations().get(&evacuation) else { return };
        if record.cancelled || failed.attempt >= self.limits.attempts {
            return;
        }
        let mut others = record.target_hosts.clone();
        others.retain(|host| *host != failed.target && !not_converged);
        let target = self.place_one(&failed.vm, failed.memory_bytes, &others);
        let target = target.unwrap_or_else(|| failed.target.clone());
        let crossing = self.crossing(Some(evacuation), &failed.source, &target);
        let pause = self.pause_after(failed.attempt, not_converged);
        let id: MigrationId = self.store.next();
        let again = MigrationRecord {
            id,
            target,
            crossing,
            attempt: failed.attempt + 1,
            not_before: Some(Moment(self.now.0.saturating_add(pause))),
            generation: Default::default(),
            stage: Stage::Queued,
            created: self.now,
            started: None,
            result: Default::default(),
            ..failed.clone()
        };
        self.store.put(Record::Migration(Box::new(again)));
        self.live.insert(id, Live::default());
        self.scheduling.queue.look_at(id);
        if let Some(target) = self.store.migrations().get(&id).map(|one| one.target.clone()) {
            self.tighten(&target);
        }
        self.store.change_evacuation(evacuation, |record| {
            record.vms.entry(failed.vm.clone()).or_default().push(id);
        });
    }

    fn pause_after(&self, attempt: u32, not_converged: bool) -> u64 {
        let limits = &self.limits;
        let first =
            if not_converged { limits.non_converged_retry_ns } else { limits.retry_pause_ns };
        let doubled = first.saturating_mul(1 << attempt.saturating_sub(1).min(30));
        doubled.min(PAUSE_MAX_NS.max(first))
    }

    /// Why an attempt must not begin yet: what became of the one before, and how many there may be.
    pub(crate) fn backs_off(&self, migration: &MigrationRecord) -> Option<(Wait, Moment)> {
        if planted!(self, RetriesAtOnce) {
            return None;
        }
        let until = migration.not_before.filter(|&until| self.now < until)?;
        let limit = self.limits.attempts;
        let used = migration.attempt.saturating_sub(1);
        let detail = self.last_failure(migration).unwrap_or_default().to_owned();
        Some((Wait { code: WaitCode::RetryBackoff, detail, limit, used }, until))
    }

    /// Why the attempt before was undone.
    fn last_failure(&self, migration: &MigrationRecord) -> Option<&str> {
        let evacuation = self.store.evacuations().get(&migration.evacuation?)?;
        let attempts = evacuation.vms.get(&migration.vm)?;
        let before = attempts.iter().rev().find(|&&id| id < migration.id)?;
        match &self.store.migrations().get(before)?.stage {
            Stage::Ended { reason, .. } => Some(reason),
            _ => None,
        }
    }
}
