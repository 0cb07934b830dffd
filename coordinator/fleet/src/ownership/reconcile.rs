//! Acts on the verdicts of the ownership table.

use crate::{
    Action, End, Fleet, HostName, MigrationId, MigrationRecord, Moment, Order, RunState, Stage,
    Standing, VmName,
    live::{Live, Session},
    ownership::{Passed, Source, Target, Verdict, decide},
};

/// Why a migration ends whose VM has nothing left to move.
pub(crate) const POWERED_OFF: &str = "its guest powered itself off";

impl Fleet {
    /// Does what the table says about a migration, as often as one step opens the next.
    pub(crate) fn reconcile(&mut self, id: MigrationId) {
        if self.stage(id) == Some(&Stage::Settling) {
            return self.reconcile_settling(id);
        }
        while let Some(passed) = self.passed(id) {
            let Some(live) = self.live.get(&id) else { return };
            match decide(passed, live.source, live.target) {
                Verdict::Wait if passed == Passed::Preparing => return self.start_source(id),
                #[cfg(feature = "planted-bugs")]
                Verdict::Wait
                    if passed == Passed::Committed
                        && self.has(crate::PlantedBug::ResumesBeforeStopped) =>
                {
                    return self.resume_early(id);
                }
                Verdict::Wait => return self.go_on_cancelling(id, passed),
                Verdict::CallOff => {
                    return self.call_off(id, "the target's copy is gone");
                }
                Verdict::RollBack => return self.roll_back(id),
                Verdict::MarkStopped => self.stand_committed(id, true),
                Verdict::Resume => return self.resume_target(id),
                Verdict::Abort => return self.abort(id),
                Verdict::Settle => return self.settle(id),
                Verdict::Lost => return self.lose(id),
                Verdict::Conflict => return self.conflict(id),
            }
        }
    }

    fn passed(&self, id: MigrationId) -> Option<Passed> {
        let migration = self.store.migrations().get(&id)?;
        let standing = self.store.vms().get(&migration.vm)?.standing;
        match (&migration.stage, standing) {
            (Stage::Preparing { .. }, _) => Some(Passed::Preparing),
            (Stage::Started { .. }, Standing::Committed { source_stopped, .. }) => {
                Some(if source_stopped { Passed::Stopped } else { Passed::Committed })
            }
            (Stage::Started { .. }, _) => Some(Passed::Copying),
            _ => None,
        }
    }

    pub(crate) fn stage(&self, id: MigrationId) -> Option<&Stage> {
        self.store.migrations().get(&id).map(|migration| &migration.stage)
    }

    /// A migration with what is known of it, if it is active.
    pub(crate) fn active(&mut self, id: MigrationId) -> Option<(MigrationRecord, &mut Live)> {
        let migration = self.store.migrations().get(&id)?.clone();
        Some((migration, self.live.get_mut(&id)?))
    }

    /// Writes down a commit, or that the source stopped after it.
    pub(crate) fn stand_committed(&mut self, id: MigrationId, source_stopped: bool) {
        let Some((migration, _)) = self.active(id) else { return };
        if !self.store.vms().contains_key(&migration.vm) {
            return;
        }
        self.store.change_vm(&migration.vm, |vm| {
            vm.owner = migration.target;
            vm.generation = migration.generation;
            vm.standing = Standing::Committed { migration: id, source_stopped };
        });
        self.free_room(&migration.source);
        self.scheduling.seize_slot(id);
    }

    fn resume_target(&mut self, id: MigrationId) {
        let Some((migration, _)) = self.active(id) else { return };
        self.tell(&migration.target, Order::ResumeTarget(id, migration.generation));
    }

    /// Tells the source to cancel; its answer ends the migration.
    pub(crate) fn call_off(&mut self, id: MigrationId, why: &str) {
        let Some((migration, live)) = self.active(id) else { return };
        if let Some(why) = live.call_off.tell(why) {
            self.tell(&migration.source, Order::Cancel(id, why));
            self.outbox.publish = true;
        }
    }

    /// A move that is being cancelled must not be forgotten, whichever process was restarted meanwhile. If the
    /// source stays silent it ends here: the source owns its VM, and a commit will be refused.
    fn go_on_cancelling(&mut self, id: MigrationId, passed: Passed) {
        let Some((migration, live)) = self.active(id) else { return };
        if passed != Passed::Copying || !(migration.cancelled || live.call_off.why().is_some()) {
            return;
        }
        if live.source != Source::Unknown {
            return self.call_off(id, "cancelled");
        }
        let timeout = self.limits.host_silence_timeout_ns;
        if migration.cancelled && self.silent_for(&migration.source).is_some_and(|ns| ns > timeout)
        {
            self.roll_back(id);
        }
    }

    /// The VM stays with its source, which owns it all the time.
    pub(crate) fn roll_back(&mut self, id: MigrationId) {
        let Some((migration, live)) = self.active(id) else { return };
        let reason = failure(&migration, live);
        let end = if migration.cancelled { End::Cancelled } else { End::RolledBack };
        self.stand_stable(&migration, &migration.source.clone());
        self.leave_source(&migration, reason, end);
    }

    /// The commit is undone.
    fn abort(&mut self, id: MigrationId) {
        let Some((migration, live)) = self.active(id) else { return };
        let reason = failure(&migration, live);
        self.stand_stable(&migration, &migration.source.clone());
        let generation = self.store.next();
        let kept = planted!(self, AbortKeepsGeneration);
        let generation = if kept { migration.generation } else { generation };
        self.store.change_vm(&migration.vm, |vm| vm.generation = generation);
        self.leave_source(&migration, reason, End::RolledBack);
    }

    /// Ends a migration whose VM is its source's: the target's copy goes, a stopped source goes on.
    fn leave_source(&mut self, migration: &MigrationRecord, reason: String, end: End) {
        let stopped = self.live.get(&migration.id).is_some_and(|l| l.source == Source::Stopped);
        self.tell(&migration.target, Order::DiscardTarget(migration.id, reason.clone()));
        if stopped {
            self.release(migration, &migration.source, true);
        }
        self.end(migration.id, end, reason);
    }

    /// The target owns the VM for good; its source is heard next.
    pub(crate) fn settle(&mut self, id: MigrationId) {
        let Some((migration, _)) = self.active(id) else { return };
        self.stand_stable(&migration, &migration.target.clone());
        self.store.change_vm(&migration.vm, |vm| vm.generation = migration.generation);
        self.store.change_migration(id, |record| record.stage = Stage::Settling);
        self.scheduling.free_slot(id);
        self.free_ends(&migration.source, &migration.target);
        self.reconcile_settling(id);
    }

    /// The VM runs at the target; the migration ends when the source has nothing left to say.
    fn reconcile_settling(&mut self, id: MigrationId) {
        let Some((migration, live)) = self.active(id) else { return };
        let (source, ended) = (live.source, live.session == Session::Ended);
        match source {
            Source::Moving => {}
            Source::Stopped => {
                if self.listed_vm(&migration.source, &migration.vm).is_some_and(is_moved_out) {
                    self.release(&migration, &migration.source, false);
                }
            }
            Source::Unknown if self.ownership.agents.contains_key(&migration.source) => {}
            // Its figures are under way; the next tick does not wait for them.
            Source::Gone | Source::Died if !ended => {}
            Source::Runs => {
                let MigrationRecord { vm, source, target, .. } = &migration;
                self.note(
                    true,
                    format!("{id}: {source} says it runs VM {vm}, which {target} owns"),
                );
                self.ownership.astray.insert(vm.clone(), source.clone());
                self.end(id, End::Moved, String::new());
            }
            Source::Unknown | Source::Gone | Source::Died => {
                self.end(id, End::Moved, String::new());
            }
        }
    }

    fn lose(&mut self, id: MigrationId) {
        let Some((migration, live)) = self.active(id) else { return };
        let died = live.target == Target::Died;
        let ran_on = live.source == Source::Died;
        let powered_off = live.powered_off;
        let reason = match (&live.reason, died) {
            _ if powered_off => POWERED_OFF.to_owned(),
            (Some(reason), _) => reason.clone(),
            (None, true) => format!("its QEMU died at {} after it may have run", migration.target),
            (None, false) => "its QEMU died".to_owned(),
        };
        let owner = self.store.vms().get(&migration.vm).map(|vm| vm.owner.clone());
        let mut owner = owner.unwrap_or_else(|| migration.source.clone());
        if ran_on && !died && owner != migration.source {
            // What died last is what is left of it: the commit is undone.
            owner.clone_from(&migration.source);
            let generation = self.store.next();
            self.store.change_vm(&migration.vm, |vm| vm.generation = generation);
        }
        self.stand_stable(&migration, &owner);
        // What died where the VM belongs is its user's to start again, or to remove.
        if !died || owner != migration.target {
            self.tell(&migration.target, Order::DiscardTarget(id, reason.clone()));
        }
        if powered_off {
            self.note(false, format!("VM {} has ended: {reason}", migration.vm));
            return self.end(id, End::Ended, reason);
        }
        self.note(true, format!("VM {} is lost: {reason}", migration.vm));
        self.end(id, End::Lost, reason);
    }

    fn conflict(&mut self, id: MigrationId) {
        let Some((migration, live)) = self.active(id) else { return };
        if std::mem::replace(&mut live.conflict, true) {
            return;
        }
        let (source, target) = (live.source, live.target);
        let MigrationRecord { vm, source: from, target: to, .. } = &migration;
        self.note(
            true,
            format!("{id}: the owner of VM {vm} is uncertain: {from} says {source:?}, {to} says {target:?}"),
        );
        let detail = format!("{from} says {source:?}, {to} says {target:?}");
        self.happened(Action::OwnerUncertain, format!("VM {vm} in {id}"), &detail);
        self.outbox.publish = true;
    }

    fn stand_stable(&mut self, migration: &MigrationRecord, owner: &HostName) {
        self.store.change_vm(&migration.vm, |vm| {
            vm.owner = owner.clone();
            vm.standing = Standing::Stable;
        });
    }

    /// A host owns a VM, and no commit says that it leaves. It may be moving once more: a copy that an
    /// earlier move stopped goes on all the same.
    pub(crate) fn stays_with(&self, host: &HostName, vm: &VmName) -> bool {
        self.store.vms().get(vm).is_some_and(|vm| {
            vm.owner == *host && !matches!(vm.standing, Standing::Committed { .. })
        })
    }

    /// Tells a host what to do with a copy that moved out.
    pub(crate) fn release(&mut self, migration: &MigrationRecord, host: &HostName, resume: bool) {
        let vm = self.store.vms().get(&migration.vm);
        let generation = vm.map_or(migration.generation, |vm| vm.generation);
        let order = Order::ReleaseSource { migration: migration.id, generation, resume };
        self.tell(host, order);
    }

    /// Ends a migration; ownership is settled before.
    pub(crate) fn end(&mut self, id: MigrationId, end: End, reason: String) {
        let at = self.now;
        let live = self.live.remove(&id);
        self.scheduling.forget(id);
        let not_converged = live.as_ref().is_some_and(|live| live.not_converged);
        let was_uncertain = live.as_ref().is_some_and(|live| live.conflict);
        self.store.change_migration(id, |record| {
            if let Some(live) = live
                && record.result.counters == crate::Counters::default()
            {
                record.result.counters = live.progress.counters;
            }
            record.stage = Stage::Ended { end, reason, at };
        });
        self.count_end(end);
        let Some(record) = self.store.migrations().get(&id).cloned() else { return };
        if end == End::Lost || was_uncertain {
            self.tell_of_end(&record, was_uncertain);
        }
        self.free_ends(&record.source, &record.target);
        self.planning.may_close(record.evacuation);
        if let (End::RolledBack, Some(evacuation)) = (end, record.evacuation) {
            self.retry(&record, evacuation, not_converged);
        }
        self.close_crossing(&record);
    }

    /// Operators ask what became of a VM that is lost, or was uncertain.
    fn tell_of_end(&mut self, record: &MigrationRecord, was_uncertain: bool) {
        let Stage::Ended { end, reason, .. } = &record.stage else { return };
        let action = if was_uncertain { Action::OwnerSettled } else { Action::VmLost };
        let dash = if reason.is_empty() { "" } else { ": " };
        let detail = format!("{end}{dash}{reason}");
        self.happened(action, format!("VM {} in {}", record.vm, record.id), &detail);
    }

    /// If a migration was the last of its crossing, its rack forgets what was claimed.
    fn close_crossing(&mut self, last: &MigrationRecord) {
        if !self.store.index().is_open(last.crossing) {
            let rack = self.store.hosts().get(&last.source).map(|host| host.rack.clone());
            self.ownership.racks_due.extend(rack);
        }
    }

    /// Gives up a move whose target is silent for too long and cannot have begun. The VM is not touched:
    /// its source was never told.
    pub(crate) fn give_up_silent(&mut self, id: MigrationId) {
        let Some((migration, live)) = self.active(id) else { return };
        let source = live.source;
        let timeout = self.limits.host_silence_timeout_ns;
        let target_silent = self.silent_for(&migration.target).is_some_and(|ns| ns > timeout);
        let source_silent = self.silent_for(&migration.source).is_some_and(|ns| ns > timeout);
        match migration.stage {
            Stage::Preparing { .. } if target_silent => {
                if let Some(live) = self.live.get_mut(&id) {
                    live.reason = Some(format!("the agent of {} went away", migration.target));
                }
                self.roll_back(id);
            }
            Stage::Started { .. }
                if source_silent
                    && self.passed(id) == Some(Passed::Committed)
                    && planted!(self, SilenceIsEvidence) =>
            {
                self.stand_committed(id, true);
                self.reconcile(id);
            }
            Stage::Started { .. } if source_silent => {
                if let Some(passed) = self.passed(id) {
                    self.go_on_cancelling(id, passed);
                }
            }
            Stage::Settling if source_silent || matches!(source, Source::Gone | Source::Died) => {
                self.end(id, End::Moved, String::new());
            }
            _ => {}
        }
    }

    /// How long a host has had no agent.
    pub(crate) fn silent_for(&self, host: &HostName) -> Option<u64> {
        self.ownership.silent_since.get(host).map(|&since| self.now.since(since))
    }

    /// This leader began less than so many nanoseconds ago, and a host whose agent may be dialling it is not heard yet.
    /// An agent that goes later is not waited for: it would hold up requests that have nothing to do with it.
    pub fn awaits_agents(&self, now: Moment, within_ns: u64) -> bool {
        let began = self.ownership.began;
        now.since(began) < within_ns
            && self.ownership.silent_since.values().any(|&since| since == began)
    }
}

fn is_moved_out(vm: &crate::VmReport) -> bool {
    vm.run_state == RunState::MovedOut
}

/// Why a migration did not move its VM, for people.
fn failure(migration: &MigrationRecord, live: &Live) -> String {
    if migration.cancelled {
        return "cancelled".to_owned();
    }
    // What a session says is nearer to the cause: its other end may have told of the consequence before.
    if let Some(reason) = live.reason.as_deref().or(live.call_off.why()) {
        return reason.to_owned();
    }
    match (live.source, live.target) {
        (_, Target::Gone | Target::Died) => format!("the copy at {} is gone", migration.target),
        (_, Target::Orphaned) => format!("the agent of {} was restarted", migration.target),
        _ => format!("the session at {} is gone", migration.source),
    }
}
