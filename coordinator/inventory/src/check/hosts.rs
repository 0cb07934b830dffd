//! Racks and their hosts.

use std::net::IpAddr;

use super::{COUNT_LIMIT, Check, Kind};
use crate::{
    Host, Rack,
    file::{self, Defaults, File, Text},
    mistake::Mistake,
    unit,
};

/// The most processors of a host.
const CPUS_LIMIT: u32 = 8192;

impl Check {
    pub(super) fn racks(&mut self, file: &File) -> Vec<Rack> {
        let mut racks = Vec::new();
        let mut count = 0;
        for rack in &file.racks {
            let mut hosts = Vec::new();
            for host in &rack.hosts {
                let template = self.template(host, &hosts, &racks);
                let new = self.hosts(host, template.as_ref(), &file.defaults);
                count += new.len();
                hosts.extend(new);
                if count > COUNT_LIMIT {
                    self.too_many(&host.name, "hosts");
                    return racks;
                }
            }
            racks.push(Rack { name: rack.name.value.clone(), hosts });
        }
        racks
    }

    /// The host that another one is like; it must be listed before.
    fn template(&mut self, host: &file::Host, rack: &[Host], before: &[Rack]) -> Option<Host> {
        let name = host.template.as_ref()?;
        let known = rack.iter().chain(before.iter().flat_map(|rack| &rack.hosts));
        let found = known.into_iter().find(|host| host.name == name.value).cloned();
        if found.is_none() {
            let what = format!("no host before this one is called {}", name.value);
            self.found(Mistake::of(name, what, "list the template first, or correct its name"));
        }
        found
    }

    /// Every host of a line.
    fn hosts(
        &mut self,
        line: &file::Host,
        template: Option<&Host>,
        defaults: &Defaults,
    ) -> Vec<Host> {
        let like = self.like(line, template, defaults);
        let names = self.names(&line.name, Kind::Place);
        let addrs = self.addresses(line.addr.as_ref(), names.len());
        let mig_addrs = self.addresses(line.mig_addr.as_ref(), names.len());
        let each = names.into_iter().enumerate().map(|(index, name)| Host {
            name,
            addr: addrs.get(index).copied(),
            mig_addr: mig_addrs.get(index).copied(),
            ..like.clone()
        });
        each.collect()
    }

    /// What all hosts of a line have in common: what it says, else its template, else the defaults.
    fn like(&mut self, line: &file::Host, template: Option<&Host>, defaults: &Defaults) -> Host {
        let nic = line.nic.as_ref();
        let nic = nic.or(defaults.nic.as_ref().filter(|_| template.is_none()));
        let headroom = line.mem_headroom.as_ref();
        let headroom = headroom.or(defaults.mem_headroom.as_ref().filter(|_| template.is_none()));
        let mut labels = template.map_or_else(|| defaults.labels.clone(), |t| t.labels.clone());
        labels.extend(line.labels.clone());
        let cpus = line.cpus.as_ref().map(|cpus| self.within(cpus, 1, CPUS_LIMIT, "cpus"));
        Host {
            name: String::new(),
            addr: None,
            mig_addr: None,
            mem: self.read_some(line.mem.as_ref(), unit::size).or(template.and_then(|t| t.mem)),
            cpus: cpus.or(template.and_then(|t| t.cpus)),
            hugepages_2m: line.hugepages_2m.or(template.map(|t| t.hugepages_2m)).unwrap_or(0),
            hugepages_1g: line.hugepages_1g.or(template.map(|t| t.hugepages_1g)).unwrap_or(0),
            nic: self.read_some(nic, unit::rate).or(template.and_then(|t| t.nic)),
            mem_headroom: self
                .read_some(headroom, unit::percent)
                .or(template.and_then(|t| t.mem_headroom)),
            labels,
        }
    }

    /// One address for each host of a line; none if it says nothing.
    fn addresses(&mut self, text: Option<&Text>, hosts: usize) -> Vec<IpAddr> {
        let Some(text) = text else { return Vec::new() };
        let each = self.range(text);
        if each.len() != hosts && !each.is_empty() && hosts > 0 {
            let what = format!("{} addresses for {hosts} hosts", each.len());
            let advice = "write a range of as many addresses, as in 10.12.0.[2-20], or none";
            self.found(Mistake::of(text, what, advice));
        }
        let mut addresses = Vec::new();
        for one in each {
            let Ok(address) = one.parse::<IpAddr>() else {
                let what = format!("{one:?} is no IP address");
                self.found(Mistake::of(text, what, "write it as in 10.12.0.1 or fd00::1"));
                return Vec::new();
            };
            self.unique(text, address.to_string(), Kind::Address);
            addresses.push(address);
        }
        addresses
    }
}
