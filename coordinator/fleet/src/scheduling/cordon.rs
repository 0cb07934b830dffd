//! Hosts that take no more VMs. What is on its way to them arrives; what is queued for them goes elsewhere.

use crate::{Effect, Fleet, HostName, Moment, Refusal};

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
        for host in hosts
            .iter()
            .filter(|host| self.is_cordoned(host) != cordoned)
            .cloned()
            .collect::<Vec<_>>()
        {
            self.store.change_host(&host, |record| record.cordoned = cordoned);
            if cordoned {
                self.look_at_reaching(&host);
            } else {
                self.free_room(&host);
            }
        }
        self.finish(out);
        Ok(hosts)
    }

    pub(crate) fn is_cordoned(&self, host: &HostName) -> bool {
        self.store.hosts().get(host).is_some_and(|record| record.cordoned)
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
