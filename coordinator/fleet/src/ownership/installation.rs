//! Which installation of an agent speaks for a host.
//!
//! What an agent does not list proves that it is gone only if the agent would know of it. One that was cloned with the name
//! and the certificate of another host does not, nor does one with a new state directory. So a host's first installation is
//! written down, and another one is refused until the host is declared dead.

use crate::{Fleet, Hello, HostName, Installation, Moment, Refusal};

/// How long a refused installation counts as there, in nanoseconds: it dials again within seconds.
const THERE_NS: u64 = 60_000_000_000;

impl Fleet {
    /// Lets an agent speak for its host, or says why not; then what is known of the host stays as it is.
    ///
    /// # Errors
    /// [`Refusal::Installation`], [`Refusal::DeclaredDead`].
    pub fn admit(&mut self, hello: &Hello, now: Moment) -> Result<(), Refusal> {
        let Some(record) = self.store.hosts().get(&hello.host) else { return Ok(()) };
        let known = record.installation.as_ref().zip(hello.installation.as_ref());
        let same = known.is_none_or(|(known, this)| known == this);
        let refusal = match (same, record.declared_dead) {
            (true, false) | (false, true) => return Ok(()),
            // Also one that does not say which it is may be the one that was declared dead.
            (true, true) => Refusal::DeclaredDead(hello.host.clone()),
            (false, false) if planted!(self, ClonesAdmitted) => return Ok(()),
            (false, false) => Refusal::Installation(hello.host.clone()),
        };
        let this = hello.installation.clone().unwrap_or_else(|| Installation::new("unnamed"));
        let seen =
            self.ownership.refused_installations.insert(hello.host.clone(), (this.clone(), now));
        if seen.is_none_or(|(before, at)| before != this || now.since(at) > THERE_NS) {
            self.note(true, format!("refused an agent with installation {this}: {refusal}"));
            self.begin(now);
            self.refused_agent(&hello.host, &refusal);
        }
        Err(refusal)
    }

    /// Hosts that another installation than theirs wants to speak for.
    pub(crate) fn refused_installations(&self) -> impl Iterator<Item = (&HostName, &Installation)> {
        let there = |at: Moment| self.now.since(at) <= THERE_NS;
        let refused_installations = self.ownership.refused_installations.iter();
        refused_installations
            .filter(move |(_, (_, at))| there(*at))
            .map(|(host, (this, _))| (host, this))
    }
}
