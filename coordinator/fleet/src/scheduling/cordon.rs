//! Hosts that take no more VMs. What is on its way to them arrives; what is queued for them goes elsewhere.
//!
//! An evacuation cordons its sources, and they stay cordoned after it: an empty host that takes VMs again is not empty for
//! long. A cancelled evacuation lifts what it has set itself. What an operator has cordoned, an operator lifts.

use crate::{Effect, EvacuationId, Fleet, HostName, Moment, Move, Refusal};

impl Fleet {
    /// Cordons the hosts of racks and hosts, or ends that; returns them. To say it again changes nothing.
    ///
    /// # Errors
    /// If a place is not known; then nothing happens.
    pub fn cordon(
        &mut self,
        places: &[String],
        cordoned: bool,
        now: Moment,
        out: &mut Vec<Effect>,
    ) -> Result<Vec<HostName>, Refusal> {
        let hosts = self.resolve(places)?;
        self.begin(now);
        for host in &hosts {
            if self.is_cordoned(host) != cordoned {
                self.set_cordon(host, cordoned, None);
            } else if self.cordoned_by(host).is_some() {
                // From here on it is the operator's.
                self.store.change_host(host, |record| record.cordoned_by = None);
            }
        }
        self.finish(out);
        Ok(hosts)
    }

    /// An evacuation begins: its sources take no more VMs. A host that is cordoned already stays as it is.
    pub(crate) fn cordon_sources(&mut self, id: EvacuationId, hosts: &[HostName]) {
        for host in hosts {
            if !self.is_cordoned(host) {
                self.set_cordon(host, true, Some(id));
            }
        }
    }

    /// An evacuation was cancelled: it lifts what it has set itself, unless a later evacuation empties the host, too. True
    /// if there was anything.
    pub(crate) fn lift_cordons_of(&mut self, id: EvacuationId) -> bool {
        let held = self.store.hosts().values().filter(|host| host.cordoned_by == Some(id));
        let held: Vec<HostName> = held.map(|host| host.name.clone()).collect();
        let mut lifted = false;
        for host in held {
            match self.heir(id, &host) {
                Some(heir) => {
                    self.store.change_host(&host, |record| record.cordoned_by = Some(heir));
                }
                None => {
                    self.set_cordon(&host, false, None);
                    lifted = true;
                }
            }
        }
        lifted
    }

    /// VMs come back to hosts that the evacuation had cordoned.
    pub(crate) fn lift_for_restore(&mut self, id: EvacuationId, moves: &[Move]) {
        for step in moves {
            if self.cordoned_by(&step.target) == Some(id) {
                self.set_cordon(&step.target, false, None);
            }
        }
    }

    /// The latest evacuation that would have cordoned a host if another had not before.
    fn heir(&self, id: EvacuationId, host: &HostName) -> Option<EvacuationId> {
        let later = self.store.evacuations().values().rev().take_while(|record| record.id > id);
        let mut later = later.filter(|record| !record.cancelled && !record.no_cordon);
        later.find(|record| record.source_hosts.contains(host)).map(|record| record.id)
    }

    fn set_cordon(&mut self, host: &HostName, cordoned: bool, by: Option<EvacuationId>) {
        self.store.change_host(host, |record| {
            record.cordoned = cordoned;
            record.cordoned_by = by;
        });
        if cordoned {
            self.look_at_reaching(host);
        } else {
            self.free_room(host);
        }
    }

    pub(crate) fn is_cordoned(&self, host: &HostName) -> bool {
        self.store.hosts().get(host).is_some_and(|record| record.cordoned || record.declared_dead)
    }

    /// The evacuation that has cordoned a host, if an evacuation has.
    pub(crate) fn cordoned_by(&self, host: &HostName) -> Option<EvacuationId> {
        self.store.hosts().get(host)?.cordoned_by
    }

    /// Why no VM can go to any of these hosts.
    pub(crate) fn no_rooms(&self, hosts: &[HostName]) -> Refusal {
        let cordoned: Vec<HostName> =
            hosts.iter().filter(|host| self.is_cordoned(host)).cloned().collect();
        match hosts.iter().find(|host| !self.is_cordoned(host)) {
            Some(away) => Refusal::Disconnected(away.clone()),
            None => Refusal::Cordoned(cordoned),
        }
    }
}
