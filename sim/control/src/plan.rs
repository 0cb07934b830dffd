//! What a world is like: its size, its habits and what breaks in it, all from its seed.

use rackferry_agent_core::OUTBOX;
use rackferry_fleet::Limits;

use crate::clock::{MS, SECOND};
use crate::dice::Dice;
use crate::faults::Kind;

/// The plan of one world.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Coordinator nodes: one or three.
    pub nodes: usize,
    /// Hosts of each of the two racks.
    pub hosts_per_rack: usize,
    /// VMs at the start.
    pub vms: usize,
    /// VMs that fit into a host.
    pub room: u64,
    /// The fleet's limits.
    pub limits: Limits,
    /// The longest usual way of a message.
    pub delay_ns: u64,
    /// What breaks.
    pub kinds: Vec<Kind>,
    /// The usual pause between two faults; 0: none.
    pub fault_every_ns: u64,
    /// In so many of a thousand steps of a session something breaks at once.
    pub fault_at_step: u64,
    /// Of a thousand of these, in how many something breaks at the other end of the session, too.
    pub both_ends: u64,
    /// Faults seek VMs that stand still.
    pub seeks: bool,
    /// Of a thousand messages between coordinators, how many are lost, and how many come twice.
    pub datagram_loss: u64,
    /// Of a thousand words of an agent, how many are said twice.
    pub said_twice: u64,
    /// Pause between two acts of the operator.
    pub act_every_ns: u64,
    /// How long faults go on.
    pub troubled_ns: u64,
    /// The first pass of a copy takes at most this long.
    pub copy_ns: u64,
    /// Some QEMUs are of the kind that stops its VM without being told.
    pub old_qemu: bool,
    /// Of a thousand sessions, how many have a guest that writes faster than is sent.
    pub restless: u64,
    /// Guest memory is compared before the commit.
    pub verify: bool,
    /// Words that wait in an agent without coordinator.
    pub outbox: usize,
    /// Frames that a stream takes before any of them has arrived.
    pub window: usize,
}

impl Plan {
    /// The plan of a seed.
    pub fn new(dice: &mut Dice) -> Self {
        let hosts_per_rack = 1 + dice.index(2);
        let most = if dice.chance(800) { 5 } else { 8 };
        let vms = 1 + dice.index(most);
        let seeks = dice.chance(450);
        let kills = if seeks { 500 } else { 250 };
        let kinds: Vec<Kind> = Kind::ALL
            .into_iter()
            .filter(|kind| dice.chance(if kind.kills() { kills } else { 450 }))
            .collect();
        // What is decided about a VM that stands still is remembered the worst if its move is forgotten at once.
        let forgetful = dice.chance(if seeks { 600 } else { 200 });
        let limits = Limits {
            outgoing_per_host: 1 + dice.below(3) as u32,
            incoming_per_host: 1 + dice.below(3) as u32,
            switchovers_per_host: 1 + dice.below(2) as u32,
            switchovers_total: 1 + dice.below(4) as u32,
            attempts: if seeks && dice.chance(500) { 1 } else { 1 + dice.below(3) as u32 },
            retry_pause_ns: dice.between(1, 4) * SECOND,
            non_converged_retry_ns: dice.between(1, 8) * SECOND,
            host_silence_timeout_ns: dice.between(2, 12) * SECOND,
            link_share_min: dice.between(1, 40) * 1_000_000,
            history: if forgetful { dice.index(3) } else { Limits::default().history },
            ..Limits::default()
        };
        // What is forgotten early must be forgotten while something of it is left.
        let busiest = if limits.history < 3 { 1500 } else { 9000 };
        let calm = dice.chance(30);
        Self {
            nodes: if dice.chance(650) { 3 } else { 1 },
            hosts_per_rack,
            vms,
            room: vms as u64 + dice.below(2),
            limits,
            delay_ns: dice.between(1, 20) * MS,
            kinds: if calm { Vec::new() } else { kinds },
            fault_every_ns: if dice.chance(700) { dice.between(400, 6000) * MS } else { 0 },
            fault_at_step: if dice.chance(700) { dice.between(5, 200) } else { 0 },
            both_ends: if dice.chance(500) { dice.between(100, 700) } else { 0 },
            seeks,
            datagram_loss: if dice.chance(300) { dice.between(1, 100) } else { 0 },
            said_twice: if dice.chance(300) { dice.between(1, 200) } else { 0 },
            act_every_ns: dice.between(1000, busiest) * MS,
            troubled_ns: dice.between(10, 45) * SECOND,
            copy_ns: dice.between(50, 4000) * MS,
            old_qemu: dice.chance(300),
            restless: if dice.chance(300) { dice.between(50, 600) } else { 0 },
            verify: dice.chance(200),
            outbox: if dice.chance(900) { 3 + dice.index(2) } else { OUTBOX },
            window: if dice.chance(800) { 1 + dice.index(2) } else { usize::MAX },
        }
    }

    /// Hosts in all.
    pub fn hosts(&self) -> usize {
        2 * self.hosts_per_rack
    }
}
