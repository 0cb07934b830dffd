//! The life of a world: trouble, then healing, then one evacuation that must simply work.

use rackferry_fleet::End;

use crate::clock::SECOND;
use crate::host::qemu::Qemu;
use crate::operator::{LOOK_AGAIN, Reply};
use crate::world::{START, World};

/// Virtual time in which a healed world comes to rest, beside the fleet's time-outs.
const REST: u64 = 600 * SECOND;

impl World {
    /// Runs the whole life of the world.
    pub fn live(&mut self) {
        self.run_until(START + self.plan.troubled_ns);
        if self.violation.is_none() {
            self.heal();
            self.come_to_rest();
        }
        if self.violation.is_none() {
            self.evacuate_for_good();
        }
        self.coverage.worlds = 1;
        self.coverage.virtual_ns = self.clock.now - START;
    }

    fn heal(&mut self) {
        self.trace.say(self.clock.now, || "HEAL".to_owned());
        self.healing = true;
        self.net.slow.clear();
        let cuts: Vec<_> = self.net.cuts.iter().map(|(&link, &count)| (link, count)).collect();
        for (link, count) in cuts {
            self.heal_link(link, count);
        }
        for node in 0..self.nodes.len() {
            self.heal_disk(node);
            self.start_node(node);
        }
        for host in 0..self.hosts.len() {
            self.hosts[host].full = false;
            for copy in self.hosts[host].copies.iter_mut().flatten() {
                copy.deaf_until = 0;
            }
            self.start_agent(host);
        }
    }

    fn come_to_rest(&mut self) {
        let limit = self.clock.now + REST + 4 * self.plan.limits.host_silence_timeout_ns;
        loop {
            self.run_until(self.clock.now + LOOK_AGAIN);
            if self.violation.is_some() {
                return;
            }
            let waits = self.operator_waits() || self.lift_holds();
            match self.unrest() {
                None if !waits => return,
                Some((invariant, what)) if self.clock.now >= limit => {
                    return self.violated(invariant, what);
                }
                _ => {}
            }
        }
    }

    /// Nothing is broken: whatever lives in one rack must come to the other, at the first attempt.
    fn evacuate_for_good(&mut self) {
        let racks = self.plan.hosts_per_rack;
        let lives = |host: &crate::host::Host| {
            host.copies.iter().flatten().any(|copy| copy.qemu == Qemu::Running)
        };
        let from_a = self.hosts[..racks].iter().any(lives);
        if !from_a && !self.hosts[racks..].iter().any(lives) {
            return;
        }
        // The leader hears the last lists.
        self.run_until(self.clock.now + 5 * SECOND);
        let call = self.evacuate(from_a);
        self.come_to_rest();
        let reply = self.operator.calls[call].reply.clone();
        let Some(Reply::Evacuation(id)) = reply else {
            return self.violated("intents reached", format!("the evacuation at rest: {reply:?}"));
        };
        let fleet = self.nodes.iter().find_map(|node| node.leader()?.fleet());
        let views = fleet.and_then(|fleet| fleet.evacuation(id)).map(|view| view.migrations);
        let failed = views.iter().flatten().find(|view| {
            !matches!(view.record.stage, rackferry_fleet::Stage::Ended { end: End::Moved, .. })
        });
        let failed = failed.map(|view| format!("{:?}: {}", view.record, view.reason));
        if let Some(why) = failed {
            self.violated("intents reached", format!("at rest a move failed: {why}"));
        }
    }
}
