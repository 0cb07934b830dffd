//! Black holes: what some hosts send each other on the page network vanishes, without a word to either.

use anyhow::Result;

use crate::lab::netns::ip;
use crate::lab::topology::Host;

/// An address that no machine of the lab has: switches pass its frames on to every port, and no port takes them.
const ABSENT: &str = "02:00:00:00:0d:ed";

/// Pairs of hosts that do not hear each other; they do again once this is dropped. Other hosts, and the management
/// network, are as they were.
#[derive(Debug)]
pub struct BlackHole {
    pairs: Vec<(Host, Host)>,
}

impl BlackHole {
    /// Between `host` and each of `others`.
    ///
    /// # Errors
    /// `ip` fails; then nothing is left changed.
    pub fn between(host: &Host, others: &[Host]) -> Result<Self> {
        let mut hole = Self { pairs: Vec::new() };
        for other in others.iter().filter(|other| *other != host) {
            hole.pairs.push((host.clone(), other.clone()));
            for (here, there) in [(host, other), (other, host)] {
                let neighbour = format!(
                    "neigh replace {} lladdr {ABSENT} dev eth0 nud permanent\n",
                    there.address
                );
                ip(Some(&here.namespace), &neighbour)?;
            }
        }
        Ok(hole)
    }
}

impl Drop for BlackHole {
    fn drop(&mut self) {
        for (a, b) in &self.pairs {
            for (here, there) in [(a, b), (b, a)] {
                // The entry, or the whole lab, may be gone already.
                let _ =
                    ip(Some(&here.namespace), &format!("neigh del {} dev eth0\n", there.address));
            }
        }
    }
}
