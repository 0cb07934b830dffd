//! What sessions say: ready, progress, may I commit, stopped, running, ended.

use crate::{
    Activity, End, Fleet, Generation, HostName, MigrationId, MigrationRecord, Order, Outcome, Said,
    SessionEnd, Stage, Standing,
    live::Session,
    ownership::{Source, Target},
};

impl Fleet {
    pub(crate) fn said(&mut self, host: &HostName, said: Said) {
        match said {
            Said::Report { memory_free_bytes, vms } => self.report(host, memory_free_bytes, vms),
            Said::TargetReady(id) => self.target_ready(host, id),
            Said::Progress(id, progress) => self.progressed(host, id, progress),
            Said::CommitRequest(id, generation) => self.commit_requested(host, id, generation),
            Said::SourceStopped(id) => self.source_stopped(host, id),
            Said::TargetRunning(id) => self.target_running(host, id),
            Said::Ended(id, end) => self.session_ended(host, id, end),
            Said::TargetDiscarded(id) => self.target_discarded(host, id),
            Said::SwitchoverRequest(id) => self.switchover_requested(host, id),
        }
    }

    /// The migration, if this host is its source and was told so.
    fn as_source(&self, host: &HostName, id: MigrationId) -> Option<MigrationRecord> {
        let migration = self.store.migrations().get(&id)?;
        (migration.source == *host).then(|| migration.clone())
    }

    fn as_target(&self, host: &HostName, id: MigrationId) -> Option<MigrationRecord> {
        let migration = self.store.migrations().get(&id)?;
        (migration.target == *host).then(|| migration.clone())
    }

    fn target_ready(&mut self, host: &HostName, id: MigrationId) {
        if self.as_target(host, id).is_none() {
            return;
        }
        if let Some(live) = self.live.get_mut(&id) {
            live.ready = true;
            live.target = Target::Paused;
            self.reconcile(id);
        }
    }

    fn progressed(&mut self, host: &HostName, id: MigrationId, progress: crate::Progress) {
        let Some(migration) = self.as_source(host, id) else { return };
        if !matches!(migration.stage, Stage::Started { .. }) {
            return;
        }
        let Some(live) = self.live.get_mut(&id) else { return };
        let activity = live.progress.activity;
        let pass1_ratio = progress.pass1_ratio.clamp(live.progress.pass1_ratio, 1.0);
        live.progress = crate::Progress { pass1_ratio, ..progress };
        live.session.hear();
        if live.source == Source::Unknown {
            live.source = Source::Moving;
        }
        if activity != progress.activity {
            self.scheduling.review_rates();
        }
        if progress.activity == Activity::Switching && !self.scheduling.holds_slot(id) {
            // Its request, or the slot it got, was lost with a coordinator that has been restarted since.
            self.scheduling.ask_slot(id);
        }
        self.touch(id);
    }

    /// The point of no return, as far as the log goes: from here on the source may let its QEMU finish.
    fn commit_requested(&mut self, host: &HostName, id: MigrationId, generation: Generation) {
        let refusal = self.refuse_commit(host, id, generation);
        if refusal.is_none() {
            if let Some(live) = self.live.get_mut(&id) {
                live.source = Source::Moving;
                live.session.hear();
            }
            let committed = self.standing(id) != Some(Standing::Moving(id));
            if !committed {
                self.stand_committed(id, false);
            }
        }
        let order = Order::CommitDecision { migration: id, generation, refusal };
        self.tell(host, order);
    }

    fn refuse_commit(
        &self,
        host: &HostName,
        id: MigrationId,
        generation: Generation,
    ) -> Option<String> {
        let Some(migration) = self.as_source(host, id) else {
            return Some(format!("{host} is not the source of {id}"));
        };
        if generation != migration.generation {
            return Some(format!("the generation of {id} is {}", migration.generation));
        }
        let told = match &migration.stage {
            Stage::Started { source_boot, .. } => Some(source_boot.clone()),
            Stage::Ended { reason, .. } => return Some(format!("{id} is over: {reason}")),
            _ => None,
        };
        if told.is_none() || told != self.boot_of(host) {
            return Some(format!("{host} was not told to start {id}"));
        }
        match self.standing(id) {
            Some(Standing::Committed { .. }) if planted!(self, AskedAgainRefused) => {
                Some("asked before".to_owned())
            }
            // Said again, the answer is the same.
            Some(Standing::Committed { migration, .. }) if migration == id => None,
            Some(Standing::Moving(moving)) if moving == id => self.doubt(id, &migration),
            _ => Some(format!("the VM does not stand in {id}")),
        }
    }

    /// Why a move that could commit should not.
    fn doubt(&self, id: MigrationId, migration: &MigrationRecord) -> Option<String> {
        if migration.cancelled {
            return Some("cancelled".to_owned());
        }
        let live = self.live.get(&id)?;
        let no_copy = matches!(live.target, Target::Gone | Target::Died | Target::Orphaned);
        if live.call_off.why().is_some() || no_copy {
            return Some("the target's copy is gone".to_owned());
        }
        live.conflict.then(|| "the owner of the VM is uncertain".to_owned())
    }

    /// How the VM of a migration stands.
    fn standing(&self, id: MigrationId) -> Option<Standing> {
        let migration = self.store.migrations().get(&id)?;
        self.store.vms().get(&migration.vm).map(|vm| vm.standing)
    }

    fn source_stopped(&mut self, host: &HostName, id: MigrationId) {
        let Some(migration) = self.as_source(host, id) else { return };
        if let Some(live) = self.live.get_mut(&id) {
            live.source = Source::Stopped;
            live.session.hear();
            return self.reconcile(id);
        }
        // The commit was undone meanwhile, because the target lost its copy.
        if self.stays_with(host, &migration.vm) {
            self.release(&migration, host, true);
        }
    }

    fn target_running(&mut self, host: &HostName, id: MigrationId) {
        let Some(migration) = self.as_target(host, id) else { return };
        if let Some(live) = self.live.get_mut(&id) {
            live.target = Target::Runs;
            self.ownership.agents.copy_runs(host, &migration.vm, id, self.now);
            return self.reconcile(id);
        }
        let vm = self.store.vms().get(&migration.vm);
        if vm.is_some_and(|vm| vm.owner != *host && vm.generation < migration.generation) {
            self.note(true, format!("{host} runs VM {} by {id}, which is over", migration.vm));
        }
    }

    fn target_discarded(&mut self, host: &HostName, id: MigrationId) {
        let Some(migration) = self.as_target(host, id) else { return };
        let copy = self.listed_vm(host, &migration.vm);
        if copy.is_some_and(|vm| vm.migration == Some(id)) {
            self.ownership.agents.forget_copy(host, &migration.vm);
        }
        self.scheduling.release_host(host);
        self.free_room(host);
        self.target_gone(id, None);
    }

    fn target_gone(&mut self, id: MigrationId, reason: Option<String>) {
        let settling = self.stage(id) == Some(&Stage::Settling);
        if let Some(live) = self.live.get_mut(&id).filter(|_| !settling) {
            live.target = Target::Gone;
            live.ready = false;
            live.reason = reason.or(live.reason.take());
            self.reconcile(id);
        }
    }

    /// The copy is there and did not want to run; its session is over.
    fn target_stuck(&mut self, id: MigrationId, reason: Option<String>) {
        if let Some(live) = self.live.get_mut(&id) {
            live.target = Target::Orphaned;
            live.reason = reason.or(live.reason.take());
            self.reconcile(id);
        }
    }

    fn session_ended(&mut self, host: &HostName, id: MigrationId, end: SessionEnd) {
        let Some(migration) = self.store.migrations().get(&id).cloned() else { return };
        let reason = (!end.reason.is_empty()).then(|| end.reason.clone());
        if migration.source == *host {
            self.keep_figures(id, &end);
            self.keep_reason(id, reason.as_deref());
            if let Some(live) = self.live.get_mut(&id) {
                live.not_converged = end.not_converged;
                live.powered_off |= end.powered_off;
            }
            if end.powered_off {
                self.ownership.agents.powered_off(host, &migration.vm, self.now);
            }
            self.source_ended(&migration, end.outcome, reason);
        } else if migration.target == *host {
            self.keep_target_digest(id, &end);
            match end.outcome {
                Outcome::Moved => self.target_running(host, id),
                Outcome::RolledBack | Outcome::VmLost => self.target_gone(id, reason),
                Outcome::Stopped => self.target_stuck(id, reason),
            }
        }
    }

    fn source_ended(
        &mut self,
        migration: &MigrationRecord,
        outcome: Outcome,
        reason: Option<String>,
    ) {
        let id = migration.id;
        let Some(live) = self.live.get_mut(&id) else {
            if outcome == Outcome::Stopped {
                self.source_stopped(&migration.source, id);
            }
            return;
        };
        live.session = Session::Ended;
        live.reason = reason.or(live.reason.take());
        live.source = match outcome {
            // Its session heard from the target that the VM runs there, before the target told us.
            Outcome::Moved => {
                live.target = Target::Runs;
                Source::Gone
            }
            Outcome::VmLost => Source::Died,
            Outcome::RolledBack => Source::Runs,
            Outcome::Stopped => Source::Stopped,
        };
        self.reconcile(id);
    }

    /// The source's figures are the last ones; they may come after the end.
    fn keep_figures(&mut self, id: MigrationId, end: &SessionEnd) {
        self.store.change_migration(id, |record| {
            record.result.counters = end.counters;
            record.result.qemu_downtime_ms = end.qemu_downtime_ms;
            record.result.blackout_ms = end.blackout_ms;
            record.result.source_digest.clone_from(&end.memory_digest);
        });
    }

    /// A list may have been faster than the word why.
    fn keep_reason(&mut self, id: MigrationId, why: Option<&str>) {
        let Some(why) = why else { return };
        if !matches!(self.stage(id), Some(Stage::Ended { end: End::RolledBack, .. })) {
            return;
        }
        self.store.change_migration(id, |record| {
            if let Stage::Ended { reason, .. } = &mut record.stage {
                why.clone_into(reason);
            }
        });
    }

    fn keep_target_digest(&mut self, id: MigrationId, end: &SessionEnd) {
        if end.memory_digest.is_empty() {
            return;
        }
        self.store.change_migration(id, |record| {
            record.result.target_digest.clone_from(&end.memory_digest);
        });
    }

    fn switchover_requested(&mut self, host: &HostName, id: MigrationId) {
        let Some(migration) = self.as_source(host, id) else { return };
        if !matches!(migration.stage, Stage::Started { .. }) {
            return;
        }
        let Some(live) = self.live.get_mut(&id) else { return };
        live.session.hear();
        if self.scheduling.ask_slot(id) {
            self.tell(host, Order::SwitchoverGrant(id));
        }
        self.touch(id);
    }
}
