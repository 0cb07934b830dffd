//! What is not as it should be, for the operator, and what of it can be put right without asking a human.

use super::advice;
use crate::{
    Effect, Fleet, HostName, Listed, MigrationRecord, Moment, Order, Phase, ProblemCode, RunState,
    Standing, VmName, VmReport, ownership::Source,
};

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Of which kind.
    pub kind: ProblemCode,
    /// The host it is about.
    pub host: HostName,
    /// The VM it is about.
    pub vm: Option<VmName>,
    /// What is so.
    pub cause: String,
    /// What to do.
    pub fix: String,
    /// [`Fleet::repair`] does something about it.
    pub repairable: bool,
}

impl Fleet {
    /// Everything that is not as it should be, the most urgent first. `version` is the coordinator's.
    pub fn problems(&self, version: &str) -> Vec<Problem> {
        let mut found = self.uncertain();
        for (host, agent) in self.ownership.agents().iter() {
            found.extend(agent.vms.values().filter_map(|vm| self.copy_problem(host, vm)));
            found.extend(agent.vms.values().filter_map(|vm| self.spec_problem(host, vm)));
            if agent.version != version {
                let cause = format!("its agent is {}, the coordinator {version}", agent.version);
                let fix = advice::other_version(host);
                found.push(about(ProblemCode::AgentVersion, host, cause, fix));
            }
        }
        found.extend(self.ownership.astray().iter().map(|(vm, host)| self.stray(vm, host)));
        found.extend(self.hosts_amiss());
        found.sort_by(|a, b| (a.kind, &a.host, &a.vm).cmp(&(b.kind, &b.host, &b.vm)));
        found
    }

    /// Removes leftovers of VMs that run elsewhere for certain; returns what was ordered to be removed. Everything else
    /// that reconciliation does waits for the next list of an agent: an old list must not be taken for news.
    pub fn repair(&mut self, now: Moment, out: &mut Vec<Effect>) -> Vec<Problem> {
        self.begin(now);
        let mut repaired = Vec::new();
        let mut orders = Vec::new();
        for (host, agent) in self.ownership.agents().iter() {
            for vm in agent.vms.values() {
                if let Some(problem) = self.copy_problem(host, vm)
                    && let Some(order) = self.removal(host, vm)
                {
                    repaired.push(problem);
                    orders.push((host.clone(), order));
                }
            }
        }
        for (host, order) in orders {
            self.tell(&host, order);
        }
        self.finish(out);
        repaired
    }

    /// Moves that only a human can decide, or that wait for an agent with their VM stopped.
    fn uncertain(&self) -> Vec<Problem> {
        let live = self.live.keys().filter_map(|&id| self.migration(id));
        let problem = |view: crate::MigrationView<'_>| {
            let MigrationRecord { id, vm, source, target, .. } = view.record;
            let (kind, cause, fix) = match view.phase {
                Phase::OwnerUnknown if self.live.get(id).is_some_and(|live| live.conflict) => (
                    ProblemCode::OwnerUncertain,
                    format!("{id}: {source} and {target} both say they run it, or neither does"),
                    advice::two_copies(vm, source, target),
                ),
                Phase::OwnerUnknown
                    if self.live.get(id).is_some_and(|l| l.source == Source::Died) =>
                {
                    (
                        ProblemCode::OwnerUncertain,
                        format!(
                            "{id}: it was about to pass to {target}, and died at {source}, where it may have run on after it was stopped"
                        ),
                        format!(
                            "to let it go on at {target} from when it was stopped: rackferry-agent vm destroy --force {vm} on {source}; \
                         to start it at {source} from its disks instead: the same on {target}"
                        ),
                    )
                }
                Phase::OwnerUnknown => (
                    ProblemCode::OwnerUncertain,
                    format!(
                        "{id}: it passes to {target}, and {source} does not say that it stopped"
                    ),
                    advice::start_agent(source) + "; do not start the VM by hand",
                ),
                Phase::PausedRecoverable => (
                    ProblemCode::Halted,
                    format!("{id}: it is stopped, and its owner {target} has no agent"),
                    advice::start_agent(target),
                ),
                _ => return None,
            };
            Some(Problem { vm: Some(vm.clone()), ..about(kind, target, cause, fix) })
        };
        live.filter_map(problem).collect()
    }

    fn stray(&self, vm: &VmName, host: &HostName) -> Problem {
        let owner = self.store.vms().get(vm).map_or(host, |vm| &vm.owner);
        let cause = format!("it runs here, and {owner} owns it");
        let fix = advice::two_copies(vm, owner, host);
        Problem { vm: Some(vm.clone()), ..about(ProblemCode::Astray, host, cause, fix) }
    }

    /// What is wrong with a copy that a host lists and that no move takes care of.
    fn copy_problem(&self, host: &HostName, vm: &VmReport) -> Option<Problem> {
        let in_a_move = self.store.index().attempts_of_vm(&vm.name);
        let mut in_a_move = in_a_move.filter_map(|id| self.store.migrations().get(&id));
        let takes_part = |one: &MigrationRecord| one.source == *host || one.target == *host;
        if in_a_move.any(|one| one.is_active() && takes_part(one)) {
            return None;
        }
        let owner = self.store.vms().get(&vm.name).map(|record| &record.owner);
        let (kind, cause, fix) = match vm.run_state {
            RunState::Running | RunState::Paused => return None,
            RunState::Unknown => (
                ProblemCode::QemuSilent,
                "its QEMU does not answer its agent".to_owned(),
                advice::silent_qemu(&vm.name, host),
            ),
            RunState::MovedOut if owner.is_some_and(|owner| self.died_at(owner, &vm.name)) => {
                let owner = owner.map_or("", HostName::as_str);
                let cause = format!(
                    "it stopped here when the VM moved to {owner}, where the VM may have run before it died: it is older"
                );
                let fix = format!(
                    "start the VM at {owner} again, from its disks; this copy is then removed"
                );
                (ProblemCode::Leftover, cause, fix)
            }
            // It has ended; that is no problem.
            RunState::Dead if owner.is_none_or(|owner| owner == host) => return None,
            state if owner == Some(host) => (
                ProblemCode::Halted,
                format!("its only copy {}, and no move goes on", what(state)),
                advice::only_copy(host),
            ),
            state => {
                let there = owner.map_or("no host owns the VM".to_owned(), |owner| {
                    format!("{owner} owns the VM")
                });
                let fix = if self.removal(host, vm).is_some() {
                    "rackferry doctor --repair".to_owned()
                } else {
                    advice::unneeded_copy(&vm.name, host, vm.migration.is_some())
                };
                let cause = format!("a copy is left that {}; {there}", what(state));
                (ProblemCode::Leftover, cause, fix)
            }
        };
        let repairable = kind == ProblemCode::Leftover && self.removal(host, vm).is_some();
        let vm = Some(vm.name.clone());
        Some(Problem { vm, repairable, ..about(kind, host, cause, fix) })
    }

    fn died_at(&self, owner: &HostName, vm: &VmName) -> bool {
        let listed = self.listed_vm(owner, vm);
        listed.is_some_and(|vm| vm.run_state == RunState::Dead && vm.may_have_run)
    }

    /// How a leftover is removed; not at all if it could be the only copy. The owner's own word is needed that it has
    /// the VM, not only the log's.
    fn removal(&self, host: &HostName, vm: &VmReport) -> Option<Order> {
        let record = self.store.vms().get(&vm.name)?;
        let owner_has_it = self
            .listed_vm(&record.owner, &vm.name)
            .is_some_and(|theirs| matches!(theirs.run_state, RunState::Running | RunState::Paused));
        let certain = record.owner != *host
            && !matches!(record.standing, Standing::Committed { .. })
            && owner_has_it
            && !self.ownership.astray().contains_key(&vm.name);
        let id = vm.migration.filter(|_| certain)?;
        if self.store.migrations().get(&id).is_some_and(MigrationRecord::is_active) {
            return None;
        }
        match vm.run_state {
            RunState::Incoming | RunState::Loaded => {
                Some(Order::DiscardTarget(id, "it is left over".to_owned()))
            }
            RunState::MovedOut => {
                let generation = record.generation;
                Some(Order::ReleaseSource { migration: id, generation, resume: false })
            }
            // Which of the two sides it was, no record says any more; nothing of it can run.
            RunState::Dead | RunState::Running | RunState::Paused | RunState::Unknown => None,
        }
    }

    /// Hosts without agents, and those that are not as the inventory says.
    fn hosts_amiss(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        for view in self.hosts() {
            let host = &view.name;
            if view.connection.is_none() && !view.declared_dead {
                let seconds = self.silent_for(host).unwrap_or_default() / 1_000_000_000;
                let cause = format!(
                    "its agent is not connected, for {seconds} s at least; it owns {} VMs",
                    view.vms
                );
                let fix = advice::find_agent(host);
                found.push(about(ProblemCode::AgentAway, host, cause, fix));
            }
            match view.listed {
                Listed::NoInventory | Listed::Yes => {}
                Listed::No => {
                    let cause = "the inventory does not have it".to_owned();
                    found.push(about(ProblemCode::HostUnlisted, host, cause, advice::list_host()));
                }
                Listed::Elsewhere(rack) => {
                    let cause =
                        format!("it says it is in rack {}, the inventory says {rack}", view.rack);
                    let fix = advice::other_rack(host);
                    found.push(about(ProblemCode::HostElsewhere, host, cause, fix));
                }
            }
        }
        for (host, installation) in self.refused_installations() {
            let cause = if self.is_declared_dead(host) {
                format!(
                    "it was declared dead, and an agent of its installation {installation} dials in"
                )
            } else {
                format!(
                    "installation {installation} dials in for it, which is another one than its own"
                )
            };
            let fix = format!(
                "power the wrong one off; if the host's own installation is dead for good: rackferry host declare-dead {host}"
            );
            found.push(about(ProblemCode::HostDuplicate, host, cause, fix));
        }
        let listed = self.inventory().into_iter().flat_map(|known| &known.topology.racks);
        for (rack, hosts) in listed {
            for host in hosts.iter().filter(|host| !self.store.hosts().contains_key(*host)) {
                let cause =
                    format!("the inventory has it in rack {rack}, and no agent of it was here");
                let fix = advice::missing_host(host);
                found.push(about(ProblemCode::HostMissing, host, cause, fix));
            }
        }
        found
    }
}

pub(crate) fn about(kind: ProblemCode, host: &HostName, cause: String, fix: String) -> Problem {
    Problem { kind, host: host.clone(), vm: None, cause, fix, repairable: false }
}

/// What a copy does, behind "a copy that".
fn what(state: RunState) -> &'static str {
    match state {
        RunState::Incoming => "was to be filled",
        RunState::Loaded => "is loaded and stopped",
        RunState::MovedOut => "has moved out",
        RunState::Dead => "is dead",
        RunState::Running => "runs",
        RunState::Paused => "is paused",
        RunState::Unknown => "does not answer",
    }
}
