//! Which VMs could move and where to, for clients that ask before a move. Nothing here changes anything.

use crate::{
    Connection, EvacuationRequest, Fleet, HostName, MigrationRequest, Move, Plan, Refusal, VmName,
};

/// A VM that a client asks about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub vm: VmName,
    /// Its owner.
    pub host: HostName,
    /// Its owner's agent.
    pub connection: Option<Connection>,
    /// Why it cannot move now, whatever its agent says.
    pub obstacle: Option<String>,
    /// Its QEMU.
    pub qemu_version: String,
    /// Its machine type.
    pub machine_type: String,
    /// How to start it elsewhere.
    pub spec_toml: String,
}

impl Fleet {
    /// Names of VMs, and of those of hosts and racks, each once, in order.
    ///
    /// # Errors
    /// A name that is none.
    pub fn candidate_names(&self, places: &[String]) -> Result<Vec<VmName>, Refusal> {
        let mut names = Vec::new();
        for place in places {
            let name = VmName::from(place.as_str());
            if self.store.vms().contains_key(&name) {
                names.push(name);
                continue;
            }
            let hosts = self.resolve(std::slice::from_ref(place))?;
            names.extend(self.owned_by(&hosts).into_iter().map(|vm| vm.name.clone()));
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// A VM that is known.
    pub fn candidate(&self, name: &VmName) -> Option<Candidate> {
        let vm = self.store.vms().get(name)?;
        let obstacle = match self.movable(name) {
            Ok(why) => why.map(str::to_owned),
            Err(refusal) => Some(refusal.to_string()),
        };
        let listed = self.listed_vm(&vm.owner, name);
        let told =
            |of: fn(&crate::VmReport) -> &String| listed.map(of).cloned().unwrap_or_default();
        Some(Candidate {
            vm: name.clone(),
            host: vm.owner.clone(),
            connection: self.ownership.agents().get(&vm.owner).map(|agent| agent.connection),
            obstacle,
            qemu_version: told(|vm| &vm.qemu_version),
            machine_type: told(|vm| &vm.machine_type),
            spec_toml: listed.map(|vm| self.spec_for_target(vm)).unwrap_or_default(),
        })
    }

    /// Hosts, and those of racks, with the connections of their agents.
    ///
    /// # Errors
    /// A name that is none.
    pub fn places(&self, names: &[String]) -> Result<Vec<(HostName, Option<Connection>)>, Refusal> {
        let hosts = self.resolve(names)?.into_iter();
        Ok(hosts.map(|host| (host.clone(), self.connection_of(&host))).collect())
    }

    /// The connection of a host's agent.
    pub fn connection_of(&self, host: &HostName) -> Option<Connection> {
        self.ownership.agents().get(host).map(|agent| agent.connection)
    }

    /// What an evacuation would begin; no moves if this request has begun them before.
    ///
    /// # Errors
    /// As [`Fleet::create_evacuation`].
    pub fn new_plan(&self, request: &EvacuationRequest) -> Result<Plan, Refusal> {
        match self.evacuation_by_request(&request.request) {
            Some(_) => Ok(Plan::default()),
            None => self.plan_evacuation(request),
        }
    }

    /// The move that a request would begin; none if it has begun it before.
    ///
    /// # Errors
    /// As [`Fleet::create_migration`].
    pub fn new_move(&self, request: &MigrationRequest) -> Result<Vec<Move>, Refusal> {
        match self.migration_by_request(&request.request) {
            Some(_) => Ok(Vec::new()),
            None => Ok(vec![self.plan_move(&request.vm, &request.target)?]),
        }
    }
}
