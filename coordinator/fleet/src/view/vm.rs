//! One VM with every copy of it.

use std::collections::BTreeSet;

use crate::{
    CopyRole, Fleet, Generation, HostName, MigrationRecord, MigrationView, Moment, Problem,
    ProblemCode, RackName, VmName, VmReport, VmSpecs, VmView,
};

/// A VM with every copy of it.
#[derive(Clone, Debug, PartialEq)]
pub struct VmDetail<'a> {
    /// What is on record of it.
    pub vm: VmView,
    /// Its copies, the owner's first.
    pub copies: Vec<CopyView>,
    /// The migration under way.
    pub migration: Option<MigrationView<'a>>,
    /// Its problems, and those of the hosts of its copies if their agents are silent.
    pub problems: Vec<Problem>,
    /// How to start it.
    pub specs: VmSpecs,
}

/// A copy of a VM, or the place where one should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyView {
    /// Its host.
    pub host: HostName,
    /// The rack of that.
    pub rack: RackName,
    /// Its part.
    pub role: CopyRole,
    /// The agent of its host is connected.
    pub connected: bool,
    /// What that agent lists.
    pub listed: Option<VmReport>,
    /// It is so at least since then: listed in this state, not listed, or without agent.
    pub since: Moment,
    /// Of the ownership that it has, or would get.
    pub generation: Option<Generation>,
}

impl Fleet {
    /// A VM with every copy of it. `version` is the coordinator's.
    pub fn vm_detail(&self, name: &VmName, version: &str) -> Option<VmDetail<'_>> {
        let vm = self.vm(name)?;
        let migration = vm.migration.and_then(|id| self.migration(id));
        let record = migration.as_ref().map(|view| view.record);
        let listing = self.ownership.agents().iter().filter(|(_, one)| one.vms.contains_key(name));
        let mut others: BTreeSet<&HostName> = listing.map(|(host, _)| host).collect();
        others.extend(record.iter().flat_map(|one| [&one.source, &one.target]));
        others.remove(&vm.owner);
        let hosts = std::iter::once(&vm.owner).chain(others);
        let copies: Vec<_> = hosts.map(|host| self.copy(host, &vm, record)).collect();
        let mut problems = self.problems(version);
        problems.retain(|one| match &one.vm {
            Some(vm) => vm == name,
            None => {
                let silent =
                    matches!(one.kind, ProblemCode::AgentAway | ProblemCode::HostDuplicate);
                silent && copies.iter().any(|copy| copy.host == one.host)
            }
        });
        let specs = self.vm_specs(name).ok()?;
        Some(VmDetail { vm, copies, migration, problems, specs })
    }

    fn copy(&self, host: &HostName, vm: &VmView, migration: Option<&MigrationRecord>) -> CopyView {
        let role = match migration {
            Some(migration) if migration.source == *host => CopyRole::Source,
            Some(migration) if migration.target == *host => CopyRole::Target,
            _ if vm.owner == *host => CopyRole::Owner,
            _ => CopyRole::Other,
        };
        let would_get = migration.filter(|_| role == CopyRole::Target).map(|one| one.generation);
        let owns = Some(vm.generation).filter(|_| vm.owner == *host);
        let agent = self.ownership.agents().get(host);
        let silent_ns = self.silent_for(host).unwrap_or_default();
        CopyView {
            host: host.clone(),
            rack: self.rack_of(host),
            role,
            connected: agent.is_some(),
            listed: self.listed_vm(host, &vm.name).cloned(),
            since: agent.map_or(Moment(self.now.0.saturating_sub(silent_ns)), |agent| {
                agent.state_since(&vm.name)
            }),
            generation: owns.or(would_get),
        }
    }
}
