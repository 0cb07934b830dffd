//! The management network, of which a part can be kept apart from the rest.

use anyhow::Result;

use crate::lab::netns::ip;
use crate::lab::topology;

/// The network between agents, coordinators and the command line.
#[derive(Clone, Debug)]
pub struct Management {
    namespace: String,
}

impl Management {
    pub(crate) fn new(prefix: &str) -> Self {
        Self { namespace: topology::management(prefix) }
    }

    /// Keeps the processes behind some ports apart from all others; among themselves they go on talking.
    pub fn part(&self, ports: &[String]) -> Result<()> {
        let moved = ports.iter().map(|port| format!("link set {port} master br1\n"));
        let bridge = "link add br1 type bridge mcast_snooping 0\nlink set br1 up\n".to_owned();
        ip(Some(&self.namespace), &(bridge + &moved.collect::<String>()))
    }

    /// Ends that.
    pub fn join(&self, ports: &[String]) -> Result<()> {
        let moved = ports.iter().map(|port| format!("link set {port} master br0\n"));
        ip(Some(&self.namespace), &(moved.collect::<String>() + "link del br1\n"))
    }
}
