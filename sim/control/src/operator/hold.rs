//! What the operator puts right so that a world can come to rest.

use rackferry_fleet::{EvacuationState, Fleet, HostName, Phase, WaitCode};

use super::{Request, vm_name};
use crate::host::clone_installation;
use crate::host::qemu::{Copy, Qemu};
use crate::world::World;

impl World {
    /// Ends what holds back, at the end of trouble: a world that is paused, or has nowhere to go, does not come to rest.
    /// True if there was anything.
    pub fn lift_holds(&mut self) -> bool {
        let fleet = self.nodes.iter().find_map(|node| node.leader()?.fleet());
        let Some(fleet) = fleet else { return false };
        let paused = fleet.evacuations().filter(|view| view.state == EvacuationState::Paused);
        // Migrations that were created before an import kept their VMs apart.
        let apart = fleet.migrations().filter(|view| {
            view.wait.as_ref().is_some_and(|wait| wait.code == WaitCode::AntiAffinity)
        });
        let cordoned = fleet.hosts().into_iter().filter(|host| host.cordoned);
        let lift: Vec<Request> = paused
            .map(|view| Request::Pause(view.record.id, false))
            .chain(apart.map(|view| Request::CancelMigration(view.record.id)))
            .chain(cordoned.map(|host| Request::Cordon(host.name.to_string(), false)))
            .collect();
        let any = !lift.is_empty();
        for request in lift {
            self.call(request);
        }
        self.declare_lost_hosts() || self.give_up_loaded_copies() || any
    }

    /// Where a source died and may have run on before, the copy that its target has loaded is not let run; true if there
    /// was one.
    fn give_up_loaded_copies(&mut self) -> bool {
        let fleet = self.nodes.iter().find_map(|node| node.leader()?.fleet());
        let Some(fleet) = fleet else { return false };
        let doubtful = fleet.migrations().filter(|view| view.phase == Phase::OwnerUnknown);
        let copies: Vec<(usize, usize)> = doubtful
            .filter_map(|view| {
                let at = |name: &HostName| self.hosts.iter().position(|host| host.name == *name);
                let (source, target) = (at(&view.record.source)?, at(&view.record.target)?);
                let mut vms = 0..self.plan.vms;
                let vm = vms.find(|&vm| vm_name(vm) == view.record.vm.as_str())?;
                let died = |copy: &Copy| copy.qemu == Qemu::Dead;
                let loaded = |copy: &Copy| copy.qemu == Qemu::Loaded;
                let doubtful = self.hosts[source].copies[vm].as_ref().is_some_and(died)
                    && self.hosts[target].copies[vm].as_ref().is_some_and(loaded);
                doubtful.then_some((target, vm))
            })
            .collect();
        for &(host, vm) in &copies {
            self.trace.say(self.clock.now, || format!("operator: destroys v{vm} on host {host}"));
            self.watch.killed(vm, Qemu::Loaded);
            self.qemu_dies(host, vm);
            self.hosts[host].copies[vm] = None;
            self.agent_event(host, rackferry_agent_core::Event::Changed);
        }
        !copies.is_empty()
    }

    /// Declares hosts dead that were lost with their disks; true if there was one.
    pub(super) fn declare_lost_hosts(&mut self) -> bool {
        let fleet = self.nodes.iter().find_map(|node| node.leader()?.fleet());
        let views = fleet.map(Fleet::hosts).unwrap_or_default();
        for view in &views {
            if view.connection.is_some() && view.installation == Some(clone_installation()) {
                self.switch_clone_off(&view.name);
            }
        }
        let lost = views.into_iter().filter(|view| {
            let host = self.hosts.iter().find(|host| host.name == view.name);
            let replaced = host.map(crate::host::Host::installation) != view.installation;
            replaced && view.connection.is_none() && !view.declared_dead
        });
        let lost: Vec<_> = lost.map(|view| (view.name, view.installation)).collect();
        for (host, installation) in &lost {
            self.call(Request::DeclareDead(host.clone(), installation.clone()));
        }
        !lost.is_empty()
    }
}
