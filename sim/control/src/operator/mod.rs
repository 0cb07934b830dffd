//! The operator: evacuates, plans and applies, restores, moves single VMs, cancels, holds back, repairs, forgets, hands out
//! tokens, asks again when no answer comes.

mod act;
mod call;
mod hold;

use rackferry_fleet::{
    Effect, EvacuationId, EvacuationRequest, Fleet, HostName, Installation, Link, LinkLimit,
    MigrationId, MigrationRequest, Moment, Plan, RestoreRequest, TokenRecord, Topology, VmName,
};

use crate::clock::SECOND;

/// Number of a call.
pub type CallId = usize;
/// How often an unanswered call is made again.
const TRIES: u32 = 8;

/// What is asked for.
#[derive(Clone, Debug)]
pub enum Request {
    /// Empty a rack.
    Evacuate(EvacuationRequest),
    /// Move one VM.
    Migrate(MigrationRequest),
    /// Stop an evacuation.
    Cancel(EvacuationId),
    /// Stop one move.
    CancelMigration(MigrationId),
    /// Import an inventory with one link between the racks; with it, that the first two VMs are kept apart or not.
    Import(bool),
    /// Set the limit of that link, or remove it.
    Limit(Option<LinkLimit>),
    /// Let the VM of a move be stopped for as long as it takes.
    Force(MigrationId),
    /// Pause an evacuation, or let it go on.
    Pause(EvacuationId, bool),
    /// Cordon a rack or a host, or end that.
    Cordon(String, bool),
    /// Declare a host dead.
    DeclareDead(HostName, Option<Installation>),
    /// Forget a host that was declared dead.
    ForgetHost(HostName),
    /// Forget a VM that died.
    ForgetVm(VmName),
    /// Remove what is left over.
    Repair,
    /// Plan an evacuation, and start nothing.
    Plan(EvacuationRequest),
    /// Start exactly what was planned.
    Apply(EvacuationRequest, Plan),
    /// Bring the VMs of an evacuation back.
    Restore(RestoreRequest),
    /// Hand out a token with this digest to a host.
    Token(HostName, String),
    /// A host uses a token up.
    UseToken(HostName, String),
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It is under way, or was already.
    Evacuation(EvacuationId),
    /// The same for a single move.
    Migration(MigrationId),
    /// It is stopped, or will be.
    Cancelled,
    /// It is so now.
    Done,
    /// It would do this.
    Planned(Plan),
    /// No.
    Refused(String),
}

/// A request and what became of it.
#[derive(Debug)]
pub struct Call {
    /// What was asked for.
    pub request: Request,
    /// The answer that arrived.
    pub reply: Option<Reply>,
    tries: u32,
}

/// The operator.
#[derive(Debug, Default)]
pub struct Operator {
    /// All calls so far.
    pub calls: Vec<Call>,
    /// Evacuations it was told of.
    pub evacuations: Vec<EvacuationId>,
    /// Moves it was told of.
    pub migrations: Vec<MigrationId>,
    /// Evacuations it has planned and not started.
    plans: Vec<(EvacuationRequest, Plan)>,
    /// Tokens it has handed out, each to a host.
    tokens: Vec<(HostName, String)>,
}

impl Operator {
    /// Puts a call to the fleet.
    pub fn ask(
        &self,
        call: CallId,
        fleet: &mut Fleet,
        now: Moment,
        out: &mut Vec<Effect>,
    ) -> Reply {
        let reply = match &self.calls[call].request {
            Request::Evacuate(request) => {
                fleet.create_evacuation(request, now, out).map(Reply::Evacuation)
            }
            Request::Migrate(request) => {
                fleet.create_migration(request, now, out).map(Reply::Migration)
            }
            Request::Cancel(id) => {
                fleet.cancel_evacuation(*id, now, out).map(|()| Reply::Cancelled)
            }
            Request::CancelMigration(id) => {
                fleet.cancel_migration(*id, now, out).map(|()| Reply::Cancelled)
            }
            Request::Force(id) => fleet.force_switchover(*id, now, out).map(|()| Reply::Done),
            Request::Import(apart) => {
                fleet.import_inventory(LINK.to_owned(), topology(*apart), now, out);
                Ok(Reply::Done)
            }
            Request::Limit(limit) => {
                fleet.set_limits(&[(LINK.into(), *limit)], now, out).map(|()| Reply::Done)
            }
            Request::Pause(id, paused) => {
                fleet.pause_evacuation(*id, *paused, now, out).map(|()| Reply::Done)
            }
            Request::DeclareDead(host, installation) => {
                fleet.declare_dead(host, installation.as_ref(), now, out).map(|()| Reply::Done)
            }
            Request::ForgetHost(host) => fleet.forget_host(host, now, out).map(|()| Reply::Done),
            Request::ForgetVm(vm) => fleet.forget_vm(vm, now, out).map(|()| Reply::Done),
            Request::Repair => {
                fleet.repair(now, out);
                Ok(Reply::Done)
            }
            Request::Plan(request) => fleet.plan_evacuation(request).map(Reply::Planned),
            Request::Apply(request, plan) => {
                fleet.apply_evacuation(request, plan, now, out).map(Reply::Evacuation)
            }
            Request::Restore(request) => {
                let restored = fleet.restore_evacuation(request, now, out);
                restored.map(|(id, _)| Reply::Evacuation(id))
            }
            Request::Token(host, digest) => {
                let (host, digest) = (host.clone(), digest.clone());
                let expires = Moment(now.0 + TOKEN_LIFE);
                let token = TokenRecord { host, digest, expires };
                fleet.create_token(token, now, out).map(|()| Reply::Done)
            }
            Request::UseToken(host, digest) => {
                fleet.use_token(host, digest, now, out).map(|()| Reply::Done)
            }
            Request::Cordon(place, cordoned) => {
                let places = std::slice::from_ref(place);
                fleet.cordon(places, *cordoned, now, out).map(|_| Reply::Done)
            }
        };
        reply.unwrap_or_else(|refusal| Reply::Refused(refusal.to_string()))
    }
}

/// How long a token is good.
const TOKEN_LIFE: u64 = 20 * SECOND;

/// The link between the racks.
pub const LINK: &str = "core0";
/// What it can carry, bytes per second.
const LINK_RATE: u64 = 100_000_000;

fn topology(apart: bool) -> Topology {
    let (a, b) = ("a".to_owned(), "b".to_owned());
    let link = Link { name: LINK.into(), a, b, rate: LINK_RATE, cost: 1 };
    let pair = (0..2).filter(|_| apart).map(|vm| (vm_name(vm).as_str().into(), "pair".to_owned()));
    Topology { links: vec![link], groups: pair.collect(), ..Topology::default() }
}

/// The name of the n-th VM.
pub fn vm_name(vm: usize) -> String {
    format!("v{vm}")
}

/// A pause after which an operator looks again.
pub const LOOK_AGAIN: u64 = SECOND;
