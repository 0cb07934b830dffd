//! What a file says, ranges expanded and templates filled in.

use std::{collections::BTreeMap, net::IpAddr};

use rackferry_model::Disruption;

/// Names and values that VMs and hosts are chosen by.
pub type Labels = BTreeMap<String, String>;

/// A site.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inventory {
    /// Racks, as they are listed.
    pub racks: Vec<Rack>,
    /// Switches that racks are joined by.
    pub spines: Vec<String>,
    /// Uplinks of racks, then other links.
    pub links: Vec<Link>,
    /// How VMs are to be moved.
    pub policies: Vec<Policy>,
    /// Labels of VMs.
    pub vms: Vec<VmLabels>,
}

/// A rack.
#[derive(Clone, Debug, PartialEq)]
pub struct Rack {
    /// Its name.
    pub name: String,
    /// Its hosts.
    pub hosts: Vec<Host>,
}

/// A host.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Where it is managed.
    pub addr: Option<IpAddr>,
    /// Where pages go.
    pub mig_addr: Option<IpAddr>,
    /// Memory, bytes.
    pub mem: Option<u64>,
    /// Processors.
    pub cpus: Option<u32>,
    /// Huge pages of 2 MiB.
    pub hugepages_2m: u32,
    /// Huge pages of 1 GiB.
    pub hugepages_1g: u32,
    /// Its network card, bytes per second.
    pub nic: Option<u64>,
    /// Memory that is kept free, percent.
    pub mem_headroom: Option<u8>,
    /// Its labels.
    pub labels: Labels,
}

/// A link, with its rate in each direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// One end: a rack or a spine.
    pub a: String,
    /// The other.
    pub b: String,
    /// Bytes per second.
    pub rate: u64,
    /// What it costs to go over it.
    pub cost: u32,
}

/// How VMs are to be moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// VMs that have all these labels.
    pub matches: Labels,
    /// The longest pause, milliseconds.
    pub max_downtime_ms: Option<u32>,
    /// The lowest goes first.
    pub priority: Option<u8>,
    /// Whether pages may follow after the VM.
    pub post_copy: bool,
    /// What a VM that does not converge may be subjected to.
    pub disruption: Option<Disruption>,
}

/// Labels of a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmLabels {
    /// The VM.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
}
