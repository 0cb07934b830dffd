//! Begins moves: the VM is reserved, the target prepares, the source starts.

use crate::{
    EvacuationId, Fleet, HostName, MigrationId, Order, Stage, Standing,
    live::Session,
    ownership::{Source, Target},
};

impl Fleet {
    /// The crossing between two hosts' racks in an evacuation; a single move has its own.
    pub(crate) fn crossing(
        &mut self,
        evacuation: Option<EvacuationId>,
        source: &HostName,
        target: &HostName,
    ) -> crate::Crossing {
        let (from, to) = (self.rack_of(source), self.rack_of(target));
        let known = evacuation.and_then(|id| self.store.index().crossing(id, from, to));
        known.unwrap_or_else(|| self.store.next())
    }

    /// Reserves the VM for a target and tells that to prepare.
    pub(crate) fn prepare(&mut self, id: MigrationId, target: HostName) {
        let (Some(target_boot), Some((migration, _))) = (self.boot_of(&target), self.active(id))
        else {
            return;
        };
        let crossing = if target == migration.target {
            migration.crossing
        } else {
            self.crossing(migration.evacuation, &migration.source, &target)
        };
        let generation = self.store.next();
        let now = self.now;
        let elsewhere = target != migration.target;
        self.store.change_migration(id, |record| {
            record.target = target;
            record.crossing = crossing;
            record.generation = generation;
            record.stage = Stage::Preparing { target_boot };
            record.started = Some(now);
        });
        self.store.change_vm(&migration.vm, |vm| vm.standing = Standing::Moving(id));
        let target = self.store.migrations().get(&id).map(|one| one.target.clone());
        if elsewhere {
            self.free_room(&migration.target);
        }
        if let Some(target) = target.filter(|_| elsewhere || self.group_of(&migration.vm).is_some())
        {
            self.tighten(&target);
        }
        if let Some(live) = self.live.get_mut(&id) {
            live.source = Source::Runs;
        }
        self.show_wait(id, None);
        self.order_prepare(id);
    }

    /// Tells the target again what it may not have heard, or may have forgotten.
    pub(crate) fn repeat_prepare(&mut self, id: MigrationId) {
        let Some((migration, _)) = self.active(id) else { return };
        let Stage::Preparing { target_boot } = &migration.stage else { return };
        let Some(boot) = self.boot_of(&migration.target) else { return };
        if boot != *target_boot {
            let stage = Stage::Preparing { target_boot: boot };
            self.store.change_migration(id, |record| record.stage = stage);
        }
        self.order_prepare(id);
    }

    fn order_prepare(&mut self, id: MigrationId) {
        let Some((migration, _)) = self.active(id) else { return };
        let Some(vm) = self.listed_vm(&migration.source, &migration.vm) else { return };
        let order = Order::PrepareTarget {
            migration: id,
            vm: migration.vm,
            generation: migration.generation,
            source: migration.source.clone(),
            spec_toml: self.spec_for_target(vm),
            cpu_properties: vm.cpu_properties.clone(),
            memory_bytes: migration.memory_bytes,
            options: migration.options,
        };
        self.tell(&migration.target, order);
    }

    /// Tells the source to start, once the target waits and the source is there.
    pub(crate) fn start_source(&mut self, id: MigrationId) {
        let Some((migration, live)) = self.active(id) else { return };
        let Stage::Preparing { target_boot } = migration.stage else { return };
        if !live.ready || live.source != Source::Runs || live.target != Target::Paused {
            return;
        }
        let (Some(source_boot), Some(target)) =
            (self.boot_of(&migration.source), self.member(&migration.target))
        else {
            return;
        };
        if let Some(live) = self.live.get_mut(&id) {
            live.source = Source::Moving;
            live.session = Session::Unheard;
        }
        let stage = Stage::Started { source_boot, target_boot };
        self.store.change_migration(id, |record| record.stage = stage);
        let rate = self.first_rate(id);
        let order = Order::StartSource {
            migration: id,
            vm: migration.vm,
            generation: migration.generation,
            crossing: migration.crossing,
            target,
            options: migration.options,
            rate,
        };
        self.tell(&migration.source, order);
    }
}
