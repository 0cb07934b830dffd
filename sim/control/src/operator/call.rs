//! Calls: made, made again, answered.

use rackferry_fleet::Key;

use super::{Call, CallId, Reply, Request, TRIES};
use crate::clock::MS;
use crate::invariants::Acknowledged;
use crate::leader::Input;
use crate::world::{Happening, World};

impl World {
    pub(super) fn call(&mut self, request: Request) -> CallId {
        let id = self.operator.calls.len();
        self.trace.say(self.clock.now, || format!("operator: call {id} {request:?}"));
        self.operator.calls.push(Call { request, reply: None, tries: 0 });
        self.coverage.acts += 1;
        self.try_call(id);
        id
    }

    /// Makes a call, again if it was not answered.
    pub fn try_call(&mut self, id: CallId) {
        let call = &mut self.operator.calls[id];
        call.tries += 1;
        // A token is never asked for again: each call would make another.
        let tries = if matches!(call.request, Request::Token(..)) { 1 } else { TRIES };
        if call.reply.is_some() || call.tries > tries {
            call.tries = TRIES + 1;
            return;
        }
        let leading = (0..self.nodes.len()).filter(|&node| self.nodes[node].leader().is_some());
        let leading: Vec<usize> = leading.collect();
        let somebody = self.dice.index(self.nodes.len());
        let node = self.dice.pick(&leading).unwrap_or(somebody);
        let pause = self.dice.between(MS / 10, self.plan.delay_ns);
        self.clock.after(pause, Happening::CallArrives(node, id));
        // It may be answered after it was made again.
        let timeout = self.dice.between(300, 3000) * MS;
        self.clock.after(timeout, Happening::TryCall(id));
    }

    /// A call has arrived at a coordinator.
    pub fn call_arrives(&mut self, node: usize, id: CallId) {
        self.input(node, Input::Call(id));
    }

    /// An answer leaves a coordinator.
    pub fn answer(&mut self, id: CallId, reply: Reply) {
        let pause = self.dice.between(MS / 10, self.plan.delay_ns);
        self.clock.after(pause, Happening::Answered(id, reply));
    }

    /// An answer reaches the operator: from now on it must hold.
    pub fn answered(&mut self, id: CallId, reply: Reply) {
        let request = self.operator.calls[id].request.clone();
        if let (Some(first), false) =
            (&self.operator.calls[id].reply, matches!(reply, Reply::Refused(_)))
            && !matches!(first, Reply::Refused(_))
            && *first != reply
            && !self.is_forgotten(first)
        {
            let why = format!("call {id} was answered {first:?}, then {reply:?}");
            self.violated("answers durable", why);
        }
        match (&reply, request) {
            (Reply::Evacuation(evacuation), request) => {
                self.operator.evacuations.push(*evacuation);
                if let Some(request) = request_of(request) {
                    self.acknowledged(Acknowledged::Evacuation(*evacuation, request));
                }
            }
            (Reply::Planned(plan), Request::Plan(request)) => {
                self.operator.plans.push((request, plan.clone()));
            }
            (Reply::Done, Request::UseToken(host, digest)) => {
                self.token_used(id, &digest);
                self.acknowledged(Acknowledged::TokenUsed(host, digest));
            }
            (Reply::Migration(migration), Request::Migrate(request)) => {
                self.operator.migrations.push(*migration);
                self.acknowledged(Acknowledged::Migration(*migration, request.request));
            }
            (Reply::Cancelled, Request::Cancel(evacuation)) => {
                self.acknowledged(Acknowledged::Cancelled(evacuation));
            }
            _ => {}
        }
        self.operator.calls[id].reply = Some(reply);
    }

    /// Nothing has to be as it was answered: what was begun has ended and is forgotten, so that a repeated call begins it
    /// anew.
    fn is_forgotten(&self, reply: &Reply) -> bool {
        let key = match reply {
            Reply::Evacuation(id) => Key::Evacuation(*id),
            Reply::Migration(id) => Key::Migration(*id),
            // A plan is of its moment.
            Reply::Planned(_) => return true,
            _ => return false,
        };
        self.watch.forgotten.contains(&key)
    }

    /// A token lets one in, once.
    fn token_used(&mut self, id: CallId, digest: &str) {
        let same = |call: &Call| matches!(&call.request, Request::UseToken(_, it) if it == digest);
        let mut others = self.operator.calls.iter().enumerate().filter(|(other, _)| *other != id);
        let other =
            others.find(|(_, call)| same(call) && call.reply.as_ref() == Some(&Reply::Done));
        if let Some((other, _)) = other {
            self.violated("tokens once", format!("calls {other} and {id} used the same token"));
        }
    }

    /// Is the operator still waiting for anything?
    pub fn operator_waits(&self) -> bool {
        self.operator.calls.iter().any(|call| call.reply.is_none() && call.tries <= TRIES)
    }
}

/// The id of a request that starts an evacuation.
fn request_of(request: Request) -> Option<String> {
    match request {
        Request::Evacuate(request) | Request::Apply(request, _) => Some(request.request),
        Request::Restore(request) => Some(request.request),
        _ => None,
    }
}
