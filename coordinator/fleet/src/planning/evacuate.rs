//! What clients ask for: evacuations and single moves.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Difference, Effect, End, EvacuationId, EvacuationRecord, Fleet, HostName, LinkLimit, LinkName,
    MigrationId, MigrationRecord, Moment, MoveOptions, Plan, Record, Refusal, RunState, Stage,
    Standing, VmName, VmRecord, live::Live,
};

/// Empty these racks or hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvacuationRequest {
    /// The client's id: the same id gives the same evacuation.
    pub request: String,
    /// Racks or hosts.
    pub sources: Vec<String>,
    /// Racks or hosts.
    pub targets: Vec<String>,
    /// How to move.
    pub options: MoveOptions,
    /// What its moves may put on links, all together.
    pub link_limits: BTreeMap<LinkName, LinkLimit>,
    /// Nanoseconds after which it should have ended.
    pub deadline_ns: Option<u64>,
    /// VMs of the sources that stay where they are.
    pub exclude: BTreeSet<VmName>,
    /// VMs that cannot move stay, and do not keep the others.
    pub skip_blocked: bool,
    /// Its sources are not cordoned by it.
    pub no_cordon: bool,
}

/// Move this VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationRequest {
    /// The client's id: the same id gives the same migration.
    pub request: String,
    /// The VM.
    pub vm: VmName,
    /// Where to.
    pub target: HostName,
    /// How to move.
    pub options: MoveOptions,
}

/// One move of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The VM.
    pub vm: VmName,
    /// Guest memory.
    pub memory_bytes: u64,
    /// Source host.
    pub source: HostName,
    /// Target host.
    pub target: HostName,
}

/// A plan, and the hosts that its request's places stand for.
pub(crate) struct Resolved {
    pub(crate) source_hosts: Vec<HostName>,
    pub(crate) target_hosts: Vec<HostName>,
    pub(crate) plan: Plan,
}

impl Fleet {
    /// What an evacuation would do now.
    ///
    /// # Errors
    /// As [`Fleet::create_evacuation`].
    pub fn plan_evacuation(&self, request: &EvacuationRequest) -> Result<Plan, Refusal> {
        let (source_hosts, target_hosts) = self.plan_hosts(request)?;
        let sorted = self.sort_out(request, &source_hosts)?;
        if sorted.demands.is_empty() {
            return Err(match sorted.left_out {
                none if none.is_empty() => self.nothing_to_move(&request.sources, &source_hosts),
                left_out => Refusal::NoneMovable(left_out),
            });
        }
        let rooms = self.rooms(&target_hosts);
        if rooms.is_empty() {
            return Err(self.no_rooms(&target_hosts));
        }
        self.place_all(sorted, &rooms)
    }

    /// No host owns a VM that could move. That is as good as done only if nothing else is there.
    fn nothing_to_move(&self, sources: &[String], source_hosts: &[HostName]) -> Refusal {
        let hosts = self.hosts_to_empty(sources, source_hosts);
        let remains = self.remains_on(&hosts, &BTreeMap::new());
        if remains.is_empty() { Refusal::NothingToMove } else { Refusal::NotEmpty(remains) }
    }

    /// Starts an evacuation, or finds the one this request has started already.
    ///
    /// # Errors
    /// If it cannot be done as a whole; then nothing happens.
    pub fn create_evacuation(
        &mut self,
        request: &EvacuationRequest,
        now: Moment,
        out: &mut Vec<Effect>,
    ) -> Result<EvacuationId, Refusal> {
        let plan = self.new_plan(request)?;
        self.start_evacuation(request, &plan, now, out)
    }

    /// Starts exactly this plan, which [`Fleet::new_plan`] has made for it, or finds the evacuation that this request has
    /// started already.
    ///
    /// # Errors
    /// [`Refusal::PlanChanged`] if something is not as it was when it was made; others as
    /// [`Fleet::create_evacuation`]. Then nothing happens.
    pub fn start_evacuation(
        &mut self,
        request: &EvacuationRequest,
        plan: &Plan,
        now: Moment,
        out: &mut Vec<Effect>,
    ) -> Result<EvacuationId, Refusal> {
        if let Some(known) = self.begun(request)? {
            return Ok(known.id);
        }
        self.start_exactly(request, plan, now, out)
    }

    /// Starts a plan if nothing has changed since it was made.
    pub(crate) fn start_exactly(
        &mut self,
        request: &EvacuationRequest,
        plan: &Plan,
        now: Moment,
        out: &mut Vec<Effect>,
    ) -> Result<EvacuationId, Refusal> {
        let (source_hosts, target_hosts) = self.compare(request, plan)?;
        if plan.moves.is_empty() {
            return Err(Refusal::NoneMovable(plan.left_out.clone()));
        }
        let resolved = Resolved { source_hosts, target_hosts, plan: plan.clone() };
        Ok(self.start(request, resolved, None, now, out))
    }

    /// The evacuation that a request has started already.
    ///
    /// # Errors
    /// [`Refusal::RequestReused`] if it was another one.
    pub(crate) fn begun(
        &self,
        request: &EvacuationRequest,
    ) -> Result<Option<&EvacuationRecord>, Refusal> {
        let Some(known) = self.evacuation_by_request(&request.request) else { return Ok(None) };
        let same = known.sources == request.sources
            && known.targets == request.targets
            && known.link_limits == request.link_limits
            && known.deadline.map(|at| at.since(known.created)) == request.deadline_ns
            && known.exclude == request.exclude
            && known.skip_blocked == request.skip_blocked
            && known.no_cordon == request.no_cordon
            && known.options == request.options;
        if same { Ok(Some(known)) } else { Err(Refusal::RequestReused(request.request.clone())) }
    }

    /// Starts what is planned.
    pub(crate) fn start(
        &mut self,
        request: &EvacuationRequest,
        resolved: Resolved,
        restores: Option<EvacuationId>,
        now: Moment,
        out: &mut Vec<Effect>,
    ) -> EvacuationId {
        let Resolved { source_hosts, target_hosts, plan } = resolved;
        self.begin(now);
        let id: EvacuationId = self.store.next();
        if let Some(before) = restores {
            self.lift_for_restore(before, &plan.moves);
        }
        if !request.no_cordon {
            self.cordon_sources(id, &source_hosts);
        }
        let mut vms = BTreeMap::new();
        for step in &plan.moves {
            let migration = self.queue(step, request.options, Some(id), None);
            vms.insert(step.vm.clone(), vec![migration]);
        }
        self.store.put(Record::Evacuation(Box::new(EvacuationRecord {
            id,
            request: request.request.clone(),
            sources: request.sources.clone(),
            targets: request.targets.clone(),
            source_hosts,
            target_hosts,
            options: request.options,
            link_limits: request.link_limits.clone(),
            deadline: request.deadline_ns.map(|ns| Moment(self.now.0.saturating_add(ns))),
            cancelled: false,
            paused: false,
            created: self.now,
            ended: None,
            vms,
            restores,
            exclude: request.exclude.clone(),
            skip_blocked: request.skip_blocked,
            left_out: plan.left_out,
            no_cordon: request.no_cordon,
            remains: Default::default(),
        })));
        self.prune();
        self.finish(out);
        id
    }

    /// Starts a single move, or finds the one this request has started already.
    ///
    /// # Errors
    /// If it cannot be done; then nothing happens.
    pub fn create_migration(
        &mut self,
        request: &MigrationRequest,
        now: Moment,
        out: &mut Vec<Effect>,
    ) -> Result<MigrationId, Refusal> {
        let step = match self.migration_by_request(&request.request) {
            Some(_) => None,
            None => Some(self.plan_move(&request.vm, &request.target)?),
        };
        self.start_migration(request, step.as_ref(), now, out)
    }

    /// Starts exactly this move, which [`Fleet::new_move`] has planned, or finds the one this request has started already.
    ///
    /// # Errors
    /// [`Refusal::PlanChanged`] if the VM is not as it was when it was planned; others as [`Fleet::create_migration`].
    /// Then nothing happens.
    pub fn start_migration(
        &mut self,
        request: &MigrationRequest,
        step: Option<&Move>,
        now: Moment,
        out: &mut Vec<Effect>,
    ) -> Result<MigrationId, Refusal> {
        if let Some(known) = self.migration_by_request(&request.request) {
            let same = known.vm == request.vm
                && known.target == request.target
                && known.options == request.options;
            return if same {
                Ok(known.id)
            } else {
                Err(Refusal::RequestReused(request.request.clone()))
            };
        }
        let planned = self.plan_move(&request.vm, &request.target)?;
        if step != Some(&planned) {
            let changed = step.map_or_else(
                || Difference::Unplanned(planned.vm.clone(), planned.source.clone()),
                |step| Difference::between(step, &planned),
            );
            return Err(Refusal::PlanChanged(vec![changed]));
        }
        let step = planned;
        self.begin(now);
        let id = self.queue(&step, request.options, None, Some(request.request.clone()));
        self.prune();
        self.finish(out);
        Ok(id)
    }

    /// Stops an evacuation: what is not committed stays at its source. Saying it again changes nothing.
    ///
    /// # Errors
    /// [`Refusal::UnknownEvacuation`].
    pub fn cancel_evacuation(
        &mut self,
        id: EvacuationId,
        now: Moment,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let record = self.store.evacuations().get(&id).ok_or(Refusal::UnknownEvacuation(id))?;
        if record.ended.is_some() {
            return Ok(());
        }
        let migrations: Vec<MigrationId> = self.store.index().moves_of_evacuation(id).collect();
        self.begin(now);
        self.store.change_evacuation(id, |record| record.cancelled = true);
        for migration in migrations {
            self.cancel(migration);
        }
        self.finish(out);
        Ok(())
    }

    /// Stops one migration, unless it is committed: then it goes on to its end.
    ///
    /// # Errors
    /// [`Refusal::UnknownMigration`].
    pub fn cancel_migration(
        &mut self,
        id: MigrationId,
        now: Moment,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        if !self.store.migrations().contains_key(&id) {
            return Err(Refusal::UnknownMigration(id));
        }
        self.begin(now);
        self.cancel(id);
        self.finish(out);
        Ok(())
    }

    fn cancel(&mut self, id: MigrationId) {
        let Some((migration, _)) = self.active(id) else { return };
        let standing = self.store.vms().get(&migration.vm).map(|vm| vm.standing);
        match migration.stage {
            Stage::Queued => self.end(id, End::Cancelled, "cancelled".to_owned()),
            Stage::Preparing { .. } => {
                self.mark_cancelled(id);
                self.roll_back(id);
            }
            Stage::Started { .. } if standing == Some(Standing::Moving(id)) => {
                self.mark_cancelled(id);
                if self.ownership.agents().contains_key(&migration.source) {
                    self.reconcile(id);
                } else {
                    self.roll_back(id);
                }
            }
            Stage::Started { .. } | Stage::Settling | Stage::Ended { .. } => {}
        }
    }

    fn mark_cancelled(&mut self, id: MigrationId) {
        self.store.change_migration(id, |record| record.cancelled = true);
    }

    fn queue(
        &mut self,
        step: &Move,
        options: MoveOptions,
        evacuation: Option<EvacuationId>,
        request: Option<String>,
    ) -> MigrationId {
        let crossing = self.crossing(evacuation, &step.source, &step.target);
        let id: MigrationId = self.store.next();
        self.store.put(Record::Migration(Box::new(MigrationRecord {
            id,
            vm: step.vm.clone(),
            memory_bytes: step.memory_bytes,
            source: step.source.clone(),
            target: step.target.clone(),
            evacuation,
            request,
            attempt: 1,
            not_before: None,
            crossing,
            options,
            generation: Default::default(),
            stage: Stage::Queued,
            cancelled: false,
            forced: false,
            created: self.now,
            started: None,
            result: Default::default(),
        })));
        self.live.insert(id, Live::default());
        self.scheduling.look_at(id);
        self.tighten(&step.target);
        id
    }

    /// The hosts that a request empties, and those it may fill: none that is emptied by now.
    pub(crate) fn plan_hosts(
        &self,
        request: &EvacuationRequest,
    ) -> Result<(Vec<HostName>, Vec<HostName>), Refusal> {
        self.check_links(request.link_limits.keys())?;
        let source_hosts = self.resolve(&request.sources)?;
        let mut target_hosts = self.resolve(&request.targets)?;
        let running = self.store.index().running();
        let running = running.filter_map(|id| self.store.evacuations().get(&id));
        let emptied: BTreeSet<&HostName> =
            running.flat_map(|other| &other.source_hosts).chain(&source_hosts).collect();
        target_hosts.retain(|host| !emptied.contains(host));
        if target_hosts.is_empty() {
            return Err(Refusal::SameHost(request.targets.join(", ")));
        }
        Ok((source_hosts, target_hosts))
    }

    pub(crate) fn plan_move(&self, name: &VmName, target: &HostName) -> Result<Move, Refusal> {
        let vm = self.store.vms().get(name).ok_or_else(|| Refusal::UnknownVm(name.clone()))?;
        if !self.store.hosts().contains_key(target) {
            return Err(Refusal::UnknownHost(target.clone()));
        }
        if let Some(why) = self.movable(name)? {
            return Err(Refusal::NotMovable(vec![(name.clone(), why)]));
        }
        if vm.owner == *target {
            return Err(Refusal::SameHost(target.to_string()));
        }
        let rooms = self.rooms(std::slice::from_ref(target));
        if rooms.is_empty() {
            return Err(self.no_rooms(std::slice::from_ref(target)));
        }
        self.planning.placer.place(&[self.demand(name, vm.memory_bytes)], &rooms)?;
        Ok(Move {
            vm: name.clone(),
            memory_bytes: vm.memory_bytes,
            source: vm.owner.clone(),
            target: target.clone(),
        })
    }

    /// Why a VM cannot move, if so; refused at once if it moves already or its agent is away.
    pub(crate) fn movable(&self, name: &VmName) -> Result<Option<&'static str>, Refusal> {
        if let Some(migration) = self.move_of(name) {
            return Err(Refusal::VmBusy { vm: name.clone(), migration });
        }
        let vm = self.store.vms().get(name).ok_or_else(|| Refusal::UnknownVm(name.clone()))?;
        if self.is_declared_dead(&vm.owner) {
            return Ok(Some(DEAD));
        }
        if !self.ownership.agents().contains_key(&vm.owner) {
            return Err(Refusal::Disconnected(vm.owner.clone()));
        }
        if self.ownership.astray().contains_key(name) {
            return Ok(Some("it runs on a host that does not own it"));
        }
        let Some(listed) = self.listed_vm(&vm.owner, name) else {
            return Ok(Some(DEAD));
        };
        Ok(match listed.run_state {
            RunState::Running if listed.spec_toml.is_empty() => {
                Some("its agent does not know how to start it elsewhere")
            }
            RunState::Running if self.spec_differs(&vm.owner, listed) => {
                Some("its agent reports another spec than the registered one (rackferry vm spec)")
            }
            RunState::Running => None,
            RunState::Paused => Some("it is paused"),
            RunState::Dead => Some(DEAD),
            RunState::Unknown => Some("its QEMU does not answer"),
            RunState::Incoming | RunState::Loaded | RunState::MovedOut => {
                Some("it does not run yet")
            }
        })
    }

    /// Hosts of racks and hosts, each once, in order of their names.
    pub(crate) fn resolve(&self, places: &[String]) -> Result<Vec<HostName>, Refusal> {
        let mut hosts = Vec::new();
        for place in places {
            let before = hosts.len();
            hosts.extend(self.store.index().hosts_of_rack(&place.as_str().into()).cloned());
            let host = HostName::from(place.as_str());
            hosts.extend(self.store.hosts().contains_key(&host).then_some(host));
            if hosts.len() == before {
                return Err(Refusal::UnknownPlace(place.clone()));
            }
        }
        hosts.sort();
        hosts.dedup();
        Ok(hosts)
    }

    pub(crate) fn evacuation_by_request(&self, request: &str) -> Option<&EvacuationRecord> {
        let id = self.store.index().evacuation_of_request(request)?;
        self.store.evacuations().get(&id)
    }

    pub(crate) fn migration_by_request(&self, request: &str) -> Option<&MigrationRecord> {
        let id = self.store.index().migration_of_request(request)?;
        self.store.migrations().get(&id)
    }

    /// VMs that hosts own, by name.
    pub(crate) fn owned_by(&self, hosts: &[HostName]) -> Vec<&VmRecord> {
        let names = hosts.iter().flat_map(|host| self.store.index().vms_of_host(host));
        let names: BTreeSet<&VmName> = names.collect();
        names.into_iter().filter_map(|name| self.store.vms().get(name)).collect()
    }

    /// The migration that a VM takes part in.
    pub(crate) fn move_of(&self, vm: &VmName) -> Option<MigrationId> {
        self.store.index().attempts_of_vm(vm).find(|id| self.live.contains_key(id))
    }
}

/// Why a VM cannot move whose QEMU died.
pub(crate) const DEAD: &str = "its QEMU is gone";
