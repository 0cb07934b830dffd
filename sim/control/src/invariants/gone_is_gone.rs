//! A host that says that nothing of a move is left has nothing of it, and nothing of it appears there later.

use rackferry_agent_core::{Act, Event, MigrationId, Order, Side, What};

use super::Watch;
use crate::host::Simulated;
use crate::world::World;

pub(super) fn check(world: &World) -> Option<String> {
    if world.watch.attested.is_empty() {
        return None;
    }
    world.hosts.iter().enumerate().find_map(|(at, host)| {
        host.copies.iter().flatten().find_map(|copy| {
            let mark = copy.standing.mark.filter(|mark| mark.side == Side::Target)?;
            let attested = world.watch.attested.contains(&(at, mark.migration));
            attested.then(|| format!("{} has a copy of {} after all", host.name, mark.migration))
        })
    })
}

impl Watch {
    /// An agent's rules are told something: from now on that is said, or not any more.
    pub fn note_attested(&mut self, host: usize, event: &Event<Simulated>) {
        match event {
            // It is not to be said yet if there is more to discard.
            Event::Acted(Act { migration, what: What::Discard }, Ok(_))
                if !self.preparing.contains(&(host, *migration)) =>
            {
                self.attested.insert((host, *migration));
                self.to_say.insert((host, *migration));
            }
            Event::Ordered(Order::PrepareTarget { migration, .. }) => {
                self.attested.remove(&(host, *migration));
                self.preparing.insert((host, *migration));
            }
            Event::Prepared(migration, _) => {
                self.preparing.remove(&(host, *migration));
            }
            _ => {}
        }
    }

    /// An agent says it. An order to prepare may have come since it was true; what was never true is found out by the copy.
    pub fn said_gone(&mut self, host: usize, migration: MigrationId) {
        if !self.to_say.remove(&(host, migration)) {
            self.attested.insert((host, migration));
        }
    }

    /// An agent dies: what it was about to say is not said.
    pub fn falls_silent(&mut self, host: usize) {
        self.preparing.retain(|(at, _)| *at != host);
        self.to_say.retain(|(at, _)| *at != host);
    }
}
