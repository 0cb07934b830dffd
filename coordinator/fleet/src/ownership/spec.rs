//! A VM's spec is registered once; what agents report later is compared with it, and never passed on.
//!
//! A host's word on its own VM is all there is when the VM is new. After that another word may be an attacker's: the
//! VM's next host would run it. So targets get the registered text, and a difference waits for a person.

use crate::{
    Effect, Fleet, HostName, Moment, Problem, ProblemCode, Refusal, RunState, SpecText, VmName,
    VmReport, view::problems::about,
};

/// A VM's spec, as registered and as its owner's agent reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmSpecs {
    /// The host that owns the VM.
    pub host: HostName,
    /// What targets are given; none if no agent has told it yet.
    pub registered: Option<SpecText>,
    /// What the owner's agent says now; none if it does not list the VM, or does not know.
    pub reported: Option<String>,
}

impl Fleet {
    /// A VM's spec.
    ///
    /// # Errors
    /// The VM is not known.
    pub fn vm_specs(&self, name: &VmName) -> Result<VmSpecs, Refusal> {
        let record = self.store.vms().get(name).ok_or_else(|| Refusal::UnknownVm(name.clone()))?;
        let reported = self.listed_vm(&record.owner, name).map(|vm| vm.spec_toml.clone());
        Ok(VmSpecs {
            host: record.owner.clone(),
            registered: record.spec.clone(),
            reported: reported.filter(|text| !text.is_empty()),
        })
    }

    /// Registers what the owner's agent reports, if that is still the text that a person has seen; says whose agent that is.
    ///
    /// # Errors
    /// The VM is not known, or moves; its agent is not connected, or reports another text, or none. Then nothing happens.
    pub fn accept_spec(
        &mut self,
        name: &VmName,
        seen: &str,
        now: Moment,
        out: &mut Vec<Effect>,
    ) -> Result<HostName, Refusal> {
        let specs = self.vm_specs(name)?;
        if let Some(migration) = self.move_of(name) {
            return Err(Refusal::VmBusy { vm: name.clone(), migration });
        }
        if !self.ownership.agents().contains_key(&specs.host) {
            return Err(Refusal::Disconnected(specs.host));
        }
        if specs.reported.as_deref() != Some(seen) {
            return Err(Refusal::SpecDiffers(name.clone(), specs.host));
        }
        self.begin(now);
        self.store.change_vm(name, |vm| vm.spec = Some(seen.into()));
        self.look_at_vm(name);
        self.note(
            false,
            format!("the spec of VM {name} was accepted as {} reports it", specs.host),
        );
        self.outbox.publish = true;
        self.finish(out);
        Ok(specs.host)
    }

    /// Registers what the owner reports, if nothing is registered: records of earlier versions have no spec.
    pub(crate) fn register_spec(&mut self, listed: &VmReport) {
        if !listed.spec_toml.is_empty()
            && self.store.vms().get(&listed.name).is_some_and(|record| record.spec.is_none())
        {
            let spec = SpecText::from(listed.spec_toml.as_str());
            self.store.change_vm(&listed.name, |record| record.spec = Some(spec));
        }
    }

    /// What a target is told of how to start a VM.
    pub(crate) fn spec_for_target(&self, listed: &VmReport) -> String {
        let registered = self.store.vms().get(&listed.name).and_then(|record| record.spec.clone());
        registered.map_or_else(|| listed.spec_toml.clone(), String::from)
    }

    /// Whether a host that owns a VM reports another spec than the registered one.
    pub(crate) fn spec_differs(&self, host: &HostName, listed: &VmReport) -> bool {
        let lives = matches!(listed.run_state, RunState::Running | RunState::Paused);
        lives
            && !listed.spec_toml.is_empty()
            && self.store.vms().get(&listed.name).is_some_and(|record| {
                let other = |spec: &SpecText| spec.as_str() != listed.spec_toml;
                record.owner == *host && record.spec.as_ref().is_some_and(other)
            })
    }

    pub(crate) fn spec_problem(&self, host: &HostName, listed: &VmReport) -> Option<Problem> {
        if !self.spec_differs(host, listed) {
            return None;
        }
        let name = &listed.name;
        let cause = "its agent reports another spec than the registered one; targets would get the registered one".to_owned();
        let fix = format!(
            "compare both: rackferry vm spec {name}; if its user has changed it: rackferry vm accept-spec {name}; if not, \
             {host} may be in foreign hands"
        );
        let kind = ProblemCode::VmSpecChanged;
        Some(Problem { vm: Some(name.clone()), ..about(kind, host, cause, fix) })
    }
}
