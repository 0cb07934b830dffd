//! What the operator does by itself, and what it asks for.

use rackferry_fleet::{
    Disruption, EvacuationRequest, LinkLimit, MigrationId, MigrationRequest, MoveOptions,
    RestoreRequest,
};

use super::{CallId, LINK_RATE, Request, vm_name};
use crate::clock::SECOND;
use crate::world::{Happening, World};

impl World {
    /// The operator does something, and will do something again.
    pub fn act(&mut self) {
        if self.healing {
            return;
        }
        self.act_later();
        if self.dice.chance(500) {
            self.declare_lost_hosts();
        }
        match self.dice.below(24) {
            0..=3 => {
                let from_a = self.dice.chance(500);
                self.evacuate(from_a);
            }
            4 | 5 => {
                let (vm, host) =
                    (self.dice.index(self.plan.vms), self.dice.index(self.hosts.len()));
                let request = MigrationRequest {
                    request: self.request_id(),
                    vm: vm_name(vm).as_str().into(),
                    target: self.hosts[host].name.clone(),
                    options: self.options(),
                };
                self.call(Request::Migrate(request));
            }
            6 | 7 => {
                if let Some(id) = self.dice.pick(&self.operator.evacuations) {
                    for _ in 0..=self.dice.below(2) {
                        self.call(Request::Cancel(id));
                    }
                }
            }
            8 | 9 => {
                // Of an evacuation perhaps, so any number that may have been given.
                let most = self.operator.migrations.last().map_or(3, |last| last.0 + 3);
                let id = MigrationId(self.dice.between(1, most));
                self.call(Request::CancelMigration(id));
            }
            10..=12 => self.limit_link(),
            13 => {
                let most = self.operator.migrations.last().map_or(3, |last| last.0 + 3);
                let id = MigrationId(self.dice.between(1, most));
                self.call(Request::Force(id));
            }
            14 => {
                let cordoned = self.dice.chance(600);
                let host = self.dice.index(self.hosts.len());
                let rack = if self.dice.chance(500) { "a" } else { "b" };
                let host = self.hosts[host].name.to_string();
                let place = if self.dice.chance(700) { host } else { rack.to_owned() };
                self.call(Request::Cordon(place, cordoned));
            }
            15 => {
                if let Some(id) = self.dice.pick(&self.operator.evacuations) {
                    let paused = self.dice.chance(600);
                    self.call(Request::Pause(id, paused));
                }
            }
            16 => self.plan_or_apply(),
            17 => {
                if let Some(evacuation) = self.dice.pick(&self.operator.evacuations) {
                    let (request, options) = (self.request_id(), self.options());
                    self.call(Request::Restore(RestoreRequest { request, evacuation, options }));
                }
            }
            18 => self.hand_out_token(),
            19 => self.tidy_up(),
            // Most of what can go wrong does so in moves.
            _ => {
                let from_a = self.dice.chance(500);
                self.evacuate(from_a);
            }
        }
    }

    fn act_later(&mut self) {
        // What is being decided is forgotten soonest while much is asked for.
        let sought = self.sought_until.iter().any(|&until| self.clock.now < until);
        let longest = if sought { self.plan.act_every_ns / 3 } else { self.plan.act_every_ns };
        let pause = self.dice.between(longest / 4, longest);
        self.clock.after(pause, Happening::Act);
    }

    /// An id of its own for each request; the same when its call is made again.
    fn request_id(&self) -> String {
        format!("request-{}", self.operator.calls.len())
    }

    /// Starts what was planned some time ago, if anything was.
    fn plan_or_apply(&mut self) {
        if let Some((request, plan)) = self.operator.plans.pop() {
            self.call(Request::Apply(request, plan));
        } else {
            let from_a = self.dice.chance(500);
            let request = self.evacuation(from_a);
            self.call(Request::Plan(request));
        }
    }

    /// Hands out a token, or lets it be used, perhaps by two.
    fn hand_out_token(&mut self) {
        let host = self.dice.index(self.hosts.len());
        let host = self.hosts[host].name.clone();
        let token = (host, self.request_id());
        self.operator.tokens.push(token.clone());
        self.call(Request::Token(token.0, token.1));
        for _ in 0..2 {
            if let Some((host, digest)) = self.dice.pick(&self.operator.tokens) {
                self.call(Request::UseToken(host, digest));
            }
        }
    }

    /// Removes what is left over, and forgets what is gone.
    fn tidy_up(&mut self) {
        match self.dice.below(3) {
            0 => {
                let host = self.dice.index(self.hosts.len());
                self.call(Request::ForgetHost(self.hosts[host].name.clone()));
            }
            1 => {
                let vm = self.dice.index(self.plan.vms);
                self.call(Request::ForgetVm(vm_name(vm).as_str().into()));
            }
            _ => {
                self.call(Request::Repair);
            }
        }
    }

    fn limit_link(&mut self) {
        let imported =
            self.operator.calls.iter().any(|call| matches!(call.request, Request::Import(_)));
        if !imported || self.dice.chance(100) {
            // With one host per rack no VM could leave.
            let apart = self.plan.hosts_per_rack > 1 && self.dice.chance(600);
            self.call(Request::Import(apart));
        }
        let limit = match self.dice.below(4) {
            0 => None,
            1 => Some(LinkLimit::Percent(self.dice.between(1, 100) as u8)),
            _ => Some(LinkLimit::Rate(self.dice.between(1, 2 * LINK_RATE))),
        };
        self.call(Request::Limit(limit));
    }

    fn options(&mut self) -> MoveOptions {
        // At rest every VM must arrive, restless ones too.
        let disruption = match self.dice.below(3) {
            _ if self.healing => Disruption::Allow,
            0 => Disruption::None,
            1 => Disruption::Brief,
            _ => Disruption::Allow,
        };
        MoveOptions { verify: self.plan.verify, disruption, ..MoveOptions::default() }
    }

    /// Empties one of the two racks into the other.
    pub fn evacuate(&mut self, from_a: bool) -> CallId {
        let request = self.evacuation(from_a);
        self.call(Request::Evacuate(request))
    }

    fn evacuation(&mut self, from_a: bool) -> EvacuationRequest {
        let (source, target) = if from_a { ("a", "b") } else { ("b", "a") };
        EvacuationRequest {
            request: self.request_id(),
            sources: vec![source.to_owned()],
            targets: vec![target.to_owned()],
            options: self.options(),
            link_limits: Default::default(),
            exclude: Default::default(),
            skip_blocked: false,
            // With both racks cordoned most of the time little would happen.
            no_cordon: self.healing || !self.operator.calls.len().is_multiple_of(4),
            deadline_ns: if self.dice.chance(300) {
                Some(self.dice.between(1, 30) * SECOND)
            } else {
                None
            },
        }
    }
}
